"""A running site for the tests of the REST interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_blobstore.models import Bucket
from tests import servers
from tests.rest import api
from tests.stored import Stored

SERVERS = {"gunicorn": servers.GUNICORN, "uvicorn": servers.UVICORN}


@pytest.fixture
def storage_kind(database: str) -> str:
    """Files beside SQLite and GridFS beside PostgreSQL: every kind of either, without every pair of them."""
    return "files" if database == "default" else "gridfs"


@pytest.fixture
def server(database: str) -> str:
    """An ASGI server beside SQLite and a WSGI server beside PostgreSQL, likewise."""
    return "uvicorn" if database == "default" else "gunicorn"


@pytest.fixture
def site(server: str, stored: Stored) -> Iterator[servers.Site]:
    """The REST interface on a running `server`, with the user root, who may do everything."""
    api.administrator()
    with servers.site(SERVERS[server]) as site:
        yield site


@pytest.fixture
def bucket(database: str) -> Bucket:
    """An empty bucket that nobody owns."""
    return Bucket.objects.create(name="bucket")
