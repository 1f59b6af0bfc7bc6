"""A running site for the tests of the REST interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from pytest_django import Settings

from django_blobstore.models import Bucket
from tests import servers
from tests.idleness import wait_until_idle
from tests.rest import api
from tests.stored import Stored, StoredInMemory, used_by_all

SERVERS = {"gunicorn": servers.GUNICORN, "uvicorn": servers.UVICORN, "uvicorn on h11": (*servers.UVICORN, "--http=h11")}


@pytest.fixture
def storage_kind(database: str) -> str:
    """Files beside SQLite and GridFS beside PostgreSQL: every kind of either, without every pair of them."""
    return "files" if database == "default" else "gridfs"


@pytest.fixture
def server(database: str) -> str:
    """An ASGI server beside SQLite and a WSGI server beside PostgreSQL, likewise."""
    return "uvicorn" if database == "default" else "gunicorn"


@pytest.fixture
def kept_memory() -> Stored:
    return StoredInMemory()


@pytest.fixture
def stored(storage_kind: str, request: pytest.FixtureRequest, settings: Settings) -> Iterator[Stored]:
    """The storage of `storage_kind` that all sites share, empty before each test."""
    with used_by_all(request.getfixturevalue(f"kept_{storage_kind}"), settings) as stored:
        yield stored


@pytest.fixture(scope="session")
def kept_site() -> Iterator[Callable[[str, str], servers.Site]]:
    """Return the one site of a deployment and a kind of server; it stays, since it takes a second to start."""
    with servers.kept(lambda server: servers.site(SERVERS[server])) as start:
        yield start


@pytest.fixture
def site(server: str, stored: Stored, kept_site: Callable[[str, str], servers.Site]) -> servers.Site:
    """The REST interface on a running `server`, with the user root, who may do everything."""
    api.administrator()
    return kept_site(servers.deployment(), server)


@pytest.fixture
def logged(site: servers.Site) -> Callable[[], str]:
    """Return what the site has logged since the test began: it stays, and other tests provoke errors."""
    wait_until_idle(site)
    begin = site.log.stat().st_size
    return lambda: site.log.read_bytes()[begin:].decode(errors="replace")


@pytest.fixture
def bucket(database: str) -> Bucket:
    """An empty bucket that nobody owns."""
    return Bucket.objects.create(name="bucket")


@pytest.fixture
def http(site: servers.Site) -> Iterator[httpx.Client]:
    """A client of root's; its URLs are relative to the REST interface."""
    with api.remote(site) as client:
        yield client


@pytest.fixture
def objects(bucket: Bucket) -> str:
    """Where the objects of `bucket` are, for `http`."""
    return f"buckets/{bucket.pk}/objects/"
