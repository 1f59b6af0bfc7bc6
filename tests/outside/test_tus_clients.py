"""Clients of tus that nobody here wrote, against a server whose workers are killed under them."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from django.db.models import F
from tusclient.client import TusClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, ResumableUpload
from tests import servers
from tests.conftest import EVERY_PAIR, ON_EVERY_DATABASE, ON_ONE_DATABASE, need
from tests.faults.tcp_proxy import TO_SERVER, TcpProxy, Trap
from tests.idleness import wait_until_idle
from tests.invariants import assert_settled, assert_sound
from tests.outside import node_clients
from tests.rest import api
from tests.stored import Stored
from tests.streams import MIB, content_of

LENGTH = 12 * MIB + 4321
CHUNK = MIB
# So many bytes pass before each of the kills.
KILLS_AFTER = (7 * MIB // 2, 4 * MIB)
PATIENT = [100, 500, 1000, 1000, 2000, 2000, 3000, 3000]
AUTHORIZATION = {"Authorization": "Basic " + b64encode(f"root:{api.PASSWORD}".encode()).decode()}

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


# Before files and before GridFS where workers are killed or uploads withdrawn; else the client makes the difference.
ONCE = pytest.mark.parametrize("database", ON_EVERY_DATABASE if EVERY_PAIR else ON_ONE_DATABASE, indirect=True)


@pytest.fixture
def site(stored: Stored, kept_site: Callable[..., servers.Site]) -> Iterator[servers.Site]:
    """A site whose workers may be killed: others take their place, and need not import anything."""
    api.administrator()
    site = kept_site(servers.deployment(), *servers.GUNICORN, "--workers=2", "--preload")
    yield site
    wait_until_idle(site)
    assert_sound(stored)
    assert_settled(stored)


@pytest.fixture
def way(site: servers.Site) -> Iterator[TcpProxy]:
    """The way to the site, which lets no more pass while workers are about to be killed."""
    with TcpProxy(urlsplit(site.url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def client(database: str) -> str:
    """A client in JavaScript beside each database; Uppy has tus-js-client inside."""
    return "tus" if database == "default" else "uppy"


@pytest.fixture(scope="session")
def node() -> Path:
    need(node_clients.available(), "Node with npm")
    return node_clients.install()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of `LENGTH` bytes."""
    path = tmp_path / "content"
    path.write_bytes(content_of(LENGTH))
    return path


@contextmanager
def workers_killed(site: servers.Site, way: TcpProxy) -> Iterator[str]:
    """Kill every worker each time that so many bytes have passed, of which no more do until then; yield the URL."""
    traps = [Trap("stalled", TO_SERVER, length, for_all=True) for length in KILLS_AFTER]
    kills: list[int] = []
    over = threading.Event()

    def watch() -> None:
        for trap, following in zip(traps, (*traps[1:], None), strict=True):
            while not trap.is_sprung:
                if over.wait(0.01):
                    return
            kills.append(_kill_workers(site))
            way.heal(following)

    way.heal(traps[0])
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield f"http://127.0.0.1:{way.port}"
    finally:
        over.set()
        watcher.join()
    assert len(kills) == len(KILLS_AFTER)
    assert 0 not in kills


def _kill_workers(site: servers.Site) -> int:
    """Kill those that there are, and return how many."""
    workers = psutil.Process(site.process.pid).children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    return len(workers)


def options(url: str, path: str, **more: Any) -> dict[str, Any]:
    """Return the options that tus-js-client and Uppy share."""
    return {
        "endpoint": f"{url}/api/uploads/",
        "headers": AUTHORIZATION,
        "chunkSize": CHUNK,
        "retryDelays": PATIENT,
        "metadata": {"path": path},
    } | more


def assert_arrived(file: Path, path: str) -> None:
    """Fail unless the object at `path` is `file`."""
    user = Namespace(user=str(api.User.objects.get(username="root").pk))
    expected = hashlib.sha384(file.read_bytes()).hexdigest()
    with ManagedStorage().get(user, path) as stored:
        assert hashlib.file_digest(stored, "sha384").hexdigest() == expected  # type: ignore[arg-type]


def by_tuspy(url: str, file: Path, path: str, **more: Any) -> None:
    client = TusClient(f"{url}/api/uploads/", headers=AUTHORIZATION)
    about = {"metadata": {"path": path}, "chunk_size": CHUNK, "retries": 20, "retry_delay": 0.5} | more
    client.uploader(str(file), **about).upload()


def test_tuspy_uploads_through_killed_workers(site: servers.Site, way: TcpProxy, file: Path, database: str) -> None:
    metadata = {"path": "tuspy"} if database == "default" else {}
    with workers_killed(site, way) as url:
        by_tuspy(url, file, "tuspy", metadata=metadata, upload_checksum=True)
    assert_arrived(file, ManagedResource.objects.get().path)


@ONCE
def test_tuspy_uploads_all_in_one_request(site: servers.Site, file: Path) -> None:
    by_tuspy(site.url, file, "tuspy", chunk_size=LENGTH)
    assert_arrived(file, "tuspy")


def test_javascript_uploads_through_killed_workers(
    site: servers.Site, way: TcpProxy, file: Path, node: Path, client: str
) -> None:
    with workers_killed(site, way) as url:
        said = node_clients.upload(node, client, file, **options(url, "js"))
    assert_arrived(file, "js")
    assert said["url"].startswith(f"{url}/api/uploads/")


def test_javascript_uploads_several_parts_at_once(
    site: servers.Site, way: TcpProxy, file: Path, node: Path, client: str
) -> None:
    with workers_killed(site, way) as url:
        node_clients.upload(node, client, file, **options(url, "js", parallelUploads=3))
    assert_arrived(file, "js")
    # What was put together is kept for a repetition only, and then swept, as is one whose creation was not heard of.
    assert ResumableUpload.objects.filter(partial=True, offset=F("length")).count() == 3


@ONCE
def test_javascript_uploads_a_stream_of_unknown_length(site: servers.Site, file: Path, node: Path) -> None:
    node_clients.upload(node, "tus", file, **options(site.url, "js", asStream=True, uploadLengthDeferred=True))
    assert_arrived(file, "js")


@ONCE
def test_javascript_uploads_with_the_first_request(site: servers.Site, file: Path, node: Path) -> None:
    node_clients.upload(node, "tus", file, **options(site.url, "js", uploadDataDuringCreation=True))
    assert_arrived(file, "js")


def test_javascript_ends_an_upload_for_good(
    site: servers.Site, file: Path, node: Path, client: str, stored: Stored
) -> None:
    said = node_clients.upload(node, client, file, **options(site.url, "js", abortAt=2 * CHUNK))
    assert said["aborted"]
    # A request may have been on its way.
    wait_until_idle(site)
    assert not stored.names()
    assert not ManagedResource.objects.exists()
    assert not ResumableUpload.objects.exists()
