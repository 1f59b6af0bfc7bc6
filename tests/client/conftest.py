"""A running site for the tests of the client, and a wire to it that counts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.authtoken.models import Token

from django_blobstore.client import Client
from django_blobstore.models import Bucket
from tests import servers
from tests.client.wires import Wire
from tests.conftest import need
from tests.faults.tcp_proxy import TcpProxy
from tests.idleness import wait_until_idle
from tests.rest import api
from tests.routers import OneDatabase
from tests.settings import HAS_POSTGRESQL
from tests.stored import Stored, used_by_all

ON_POSTGRESQL = [pytest.mark.django_db(transaction=True, databases=["postgres"])] if HAS_POSTGRESQL else []


@pytest.fixture(params=[pytest.param("postgresql", marks=ON_POSTGRESQL)])
def database() -> Iterator[str]:
    """PostgreSQL alone: what the client does depends on the interface, which is tested on both."""
    need(HAS_POSTGRESQL, "PostgreSQL")
    with OneDatabase.using("postgres") as alias:
        yield alias


@pytest.fixture
def stored(kept_gridfs: Stored, settings: Settings) -> Iterator[Stored]:
    """A storage in GridFS that all sites share, empty before each test."""
    with used_by_all(kept_gridfs, settings) as stored:
        yield stored


@pytest.fixture(scope="session")
def kept_site() -> Iterator[Callable[[str], servers.Site]]:
    """Return the one site of a deployment; it stays, since it takes a second to start."""
    with servers.kept(servers.site) as start:
        yield start


@pytest.fixture
def site(database: str, stored: Stored, kept_site: Callable[[str], servers.Site]) -> Iterator[servers.Site]:
    """The REST interface under gunicorn."""
    site = kept_site(servers.deployment())
    yield site
    wait_until_idle(site)


@pytest.fixture
def root(database: str) -> User:
    """A user who may do everything."""
    return api.administrator()


@pytest.fixture
def token(root: User) -> str:
    return str(Token.objects.create(user=root).key)


@pytest.fixture
def bucket(root: User) -> Bucket:
    """A bucket called "papers"."""
    return Bucket.objects.create(name="papers", owner=root)


@pytest.fixture
def wire(site: servers.Site) -> Iterator[Wire]:
    """The way to the site."""
    with TcpProxy(urlsplit(site.url).port or 0) as proxy:
        yield Wire(proxy)


@pytest.fixture
def make_client(wire: Wire, token: str, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Make clients of root's that remember the same things."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Client(wire.url, token, **{"state": tmp_path / "state", **options}),
        )


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def home(wire: Wire, token: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a ``blobstore`` command that is logged in and keeps what it remembers in `tmp_path`."""
    return {"BLOBSTORE_URL": wire.url, "BLOBSTORE_TOKEN": token, **nobodys_home(tmp_path)}


@pytest.fixture
def empty_home(tmp_path: Path) -> dict[str, str]:
    """The environment of one that is not logged in."""
    return nobodys_home(tmp_path)


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL at which nobody answers, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def nobodys_home(directory: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(directory / "state-home"), "XDG_CONFIG_HOME": str(directory / "config-home")}
