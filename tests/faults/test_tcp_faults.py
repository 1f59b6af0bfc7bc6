"""Connections that are cut, reset, half-closed, stalled or slow: between the store and mongod, and before gunicorn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from pytest_django import Settings
from storages.backends.s3 import S3Storage

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource, PendingFile
from django_blobstore.storages import GridFSStorage, hooks
from tests.faults.dying import APP_NAME as DOOMED
from tests.faults.dying import wait_until_forgotten
from tests.faults.operations import HOME, state
from tests.faults.tcp_proxy import TO_CLIENT, TO_SERVER, WAYS, TcpProxy
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.rest.api import PASSWORD, administrator
from tests.servers import Site, deployment, kept, site
from tests.stored import ALIAS, Stored, used_by_all
from tests.streams import MIB, Stream, content_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

LARGE = content_of(6 * MIB, 1)
SECONDS = 120


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True)
class Wire:
    """A `proxy` before mongod, the storage as it is behind it, and the settings that say how the store reaches it."""

    proxy: TcpProxy
    stored: Stored
    settings: Settings

    @contextmanager
    def in_use(self, way: str, *, for_all: bool = False, answer: int = 1000) -> Iterator[None]:
        """Have the store reach mongod through the proxy, and in the end wait until mongod has done what came.

        The client soon gives up only what it cannot but wait for: what comes over a stalled connection within `answer`
        ms, and a server when no connection comes about.
        """
        late = 1000 * SECONDS
        found = 1000 if for_all and way != "slow" else late
        timeouts = "connectTimeoutMS=5000" if way == "stalled" else f"connectTimeoutMS={late}"
        timeouts += f"&socketTimeoutMS={answer if way == 'stalled' else late}"
        # Named so, the client does not look for other ways.
        uri = f"mongodb://127.0.0.1:{self.proxy.port}/?directConnection=true&{timeouts}"
        known = {"serverSelectionTimeoutMS": found, "appname": DOOMED}
        options = self.stored.options["OPTIONS"] | {"uri": uri, "client_options": known}
        direct = self.settings.STORAGES
        self.settings.STORAGES = {**direct, ALIAS: self.stored.options | {"OPTIONS": options}}
        storage = storages[ALIAS]
        assert isinstance(storage, GridFSStorage)
        # On a busy machine the first connection takes longer than the client waits.
        wait_until(lambda: tried(lambda: storage.exists("a")))
        try:
            yield
        finally:
            self.settings.STORAGES = direct
            storage._bucket.database.client.close()
            wait_until_forgotten(self.stored)


@pytest.fixture
def bytes_to_mongod(make_stored: Callable[[str], Stored], mongo_uri: str, settings: Settings) -> Iterator[Wire]:
    """A proxy before mongod, which the store does not use yet."""
    stored = make_stored("gridfs")
    settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    with TcpProxy(urlsplit(mongo_uri).port or 27017) as proxy:
        yield Wire(proxy, stored, settings)


def tried(work: Callable[[], object]) -> bool:
    """Do `work`; say whether it was done, or else failed by an error that says the server is to blame."""
    try:
        work()
    except (ConnectionError, TimeoutError):
        return False
    return True


@pytest.mark.parametrize("for_all", [False, True], ids=["one connection", "all connections"])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("way", WAYS)
def test_a_put_over_a_bad_wire_is_done_or_leaves_nothing(
    bytes_to_mongod: Wire, way: str, direction: str, for_all: bool
) -> None:
    store = ManagedStorage()
    store.put(HOME, "kept", b"kept")
    expected = {"kept": b"kept"}

    def put(path: str, content: bytes) -> None:
        if tried(lambda: store.put(HOME, path, Stream(content))):
            expected[path] = content

    with bytes_to_mongod.in_use(way, for_all=for_all):
        # Answers are short: the first ones to the chunks get lost.
        after = 2 * MIB if direction == TO_SERVER else 100
        trap = bytes_to_mongod.proxy.set_trap(way, direction, after, for_all=for_all)
        # One that is given up earlier, since the machine is busy, is no trial yet.
        while not trap.is_sprung:
            put("large", LARGE)
        put("small", b"small")
        assert len(expected) == 3 or way != "slow"
        bytes_to_mongod.proxy.heal()
        wait_until(lambda: tried(lambda: store.get(HOME, "kept").read()))
    assert state() == expected
    assert_sound(bytes_to_mongod.stored)
    assert_settled(bytes_to_mongod.stored)


@pytest.mark.parametrize("way", WAYS)
def test_a_get_over_a_bad_wire_goes_on_where_it_broke_off(bytes_to_mongod: Wire, way: str) -> None:
    store = ManagedStorage()
    store.put(HOME, "kept", LARGE)
    with bytes_to_mongod.in_use(way, answer=3000):
        trap = bytes_to_mongod.proxy.set_trap(way, TO_CLIENT, 3 * MIB)
        assert store.get(HOME, "kept").read() == LARGE
        assert trap.is_sprung
        bytes_to_mongod.proxy.heal()
    assert_settled(bytes_to_mongod.stored)


@pytest.mark.parametrize("way", ["cut", "reset", "stalled"])
def test_a_get_over_a_broken_wire_is_an_error_and_no_damage(bytes_to_mongod: Wire, way: str) -> None:
    store = ManagedStorage()
    store.put(HOME, "kept", LARGE)
    with bytes_to_mongod.in_use(way, for_all=True):
        bytes_to_mongod.proxy.set_trap(way, TO_CLIENT, 3 * MIB, for_all=True)
        with pytest.raises((ConnectionError, TimeoutError)):
            store.get(HOME, "kept").read()
        bytes_to_mongod.proxy.heal()
        wait_until(lambda: tried(lambda: store.get(HOME, "kept").read()))
    assert state() == {"kept": LARGE}
    assert not ManagedResource.objects.exclude(resource__damaged_at=None).exists()
    assert_settled(bytes_to_mongod.stored)


@dataclass(frozen=True)
class Front:
    """A `site` with a `proxy` before it, and the URL of an object over either."""

    site: Site
    proxy: TcpProxy
    path: str

    @property
    def direct(self) -> str:
        return f"{self.site.url}{self.path}"

    @property
    def wired(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}{self.path}"


ROOT: dict[str, Any] = {"auth": ("root", PASSWORD), "timeout": SECONDS}


@pytest.fixture(scope="module")
def kept_site() -> Iterator[Callable[[str], Site]]:
    with kept(site) as start:
        yield start


@pytest.fixture
def stored(kept_files: Stored, settings: Settings) -> Iterator[Stored]:
    with used_by_all(kept_files, settings) as stored:
        yield stored


@pytest.fixture
def front(stored: Stored, kept_site: Callable[[str], Site]) -> Iterator[Front]:
    administrator()
    bucket = Bucket.objects.create(name="bucket")
    running = kept_site(deployment())
    with TcpProxy(urlsplit(running.url).port or 80) as proxy:
        yield Front(running, proxy, f"/api/buckets/{bucket.pk}/objects/a")


def blocks(content: bytes) -> Iterator[bytes]:
    """Yield `content` in blocks, the last two of them once the server is at work on those before."""
    for start in range(0, len(content), MIB):
        if start == len(content) - 2 * MIB:
            wait_until(PendingFile.objects.exists)
        yield content[start : start + MIB]


@pytest.mark.parametrize("chunked", [False, True], ids=["of known length", "chunked"])
@pytest.mark.parametrize("way", ["cut", "reset", "half-closed"])
def test_a_body_that_breaks_off_leaves_nothing(front: Front, stored: Stored, way: str, chunked: bool) -> None:
    trap = front.proxy.set_trap(way, TO_SERVER, len(LARGE) - MIB)
    headers = {} if chunked else {"Content-Length": str(len(LARGE))}
    try:
        status = httpx.put(front.wired, content=blocks(LARGE), headers=headers, **ROOT).status_code
    except httpx.TransportError:
        status = 0
    print(f"\nbody {way}, chunked {chunked}: {status or 'no answer'}")
    assert trap.is_sprung
    assert status in ((0, 400) if way == "half-closed" else (0,))
    wait_until(lambda: not PendingFile.objects.exists())
    assert_empty(stored)
    assert httpx.put(front.direct, content=LARGE, **ROOT).status_code == 201
    assert_settled(stored)


def test_a_slow_body_arrives(front: Front, stored: Stored) -> None:
    front.proxy.set_trap("slow", TO_SERVER, MIB)
    assert httpx.put(front.wired, content=LARGE, **ROOT).status_code == 201
    assert httpx.get(front.direct, **ROOT).content == LARGE
    assert_settled(stored)


@pytest.mark.parametrize("way", ["cut", "reset"])
def test_a_client_that_goes_away_leaves_no_open_file_and_a_worker_alive(front: Front, stored: Stored, way: str) -> None:
    large = content_of(40 * MIB, 3)  # more than the buffers on the way hold
    assert httpx.put(front.direct, content=large, **ROOT).status_code == 201
    workers = psutil.Process(front.site.process.pid).children()
    trap = front.proxy.set_trap(way, TO_CLIENT, MIB)
    with pytest.raises(httpx.TransportError):
        httpx.get(front.wired, **ROOT)
    assert trap.is_sprung
    wait_until(lambda: not any(open_blobs(worker, stored) for worker in workers))
    assert httpx.get(front.direct, **ROOT).content == large
    assert psutil.Process(front.site.process.pid).children() == workers
    assert_settled(stored)


def open_blobs(worker: psutil.Process, stored: Stored) -> list[str]:
    return [file.path for file in worker.open_files() if file.path.rpartition("/")[2] in str(stored.names())]


def test_an_s3_that_is_away_is_told_so_by_every_verb() -> None:
    options = {"bucket_name": "b", "endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}
    once = Config(retries={"max_attempts": 0})
    storage = S3Storage(**options, access_key="test", secret_key="test", client_config=once)
    verbs: list[Callable[[], object]] = [
        lambda: hooks.open_for_reading(storage, "a"),
        lambda: hooks.read_range(storage, "a", 0, 1),
        lambda: hooks.delete_many(storage, ["a"]),
        lambda: hooks.save(storage, "a", ContentFile(b"a")),
    ]
    for verb in verbs:
        with pytest.raises(ConnectionError, match="S3 cannot be reached"):
            verb()
