"""A long upload by tuspy through killed workers, and what it takes: ``python -m tests.outside.big_upload [MiB]``.

Without a number it is 5 GiB. The bytes are in GridFS on disk, the catalog in SQLite; there must be room for the content
twice, in parts and as a whole, and a little more.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
from tusclient.client import TusClient

from tests.benchmarks.ground import MIB, deployment, peak_mib
from tests.faults.tcp_proxy import TO_SERVER, TcpProxy, Trap

if TYPE_CHECKING:
    from tests.servers import Site

USER, PASSWORD = "big", "x"
CHUNK = 64 * MIB


class Numbered(io.RawIOBase):
    """A file of `mebibytes` MiB that is never in memory as a whole; no two of them are equal."""

    def __init__(self, mebibytes: int) -> None:
        self.length = mebibytes * MIB
        self._block = os.urandom(MIB)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number, start = divmod(self._position, MIB)
        block = (number.to_bytes(8) + self._block[8:])[start : start + len(buffer)]
        size = min(len(block), max(0, self.length - self._position))
        buffer[:size] = block[:size]
        self._position += size
        return size

    def sha384(self) -> str:
        self.seek(0)
        return hashlib.file_digest(self, "sha384").hexdigest()  # type: ignore[arg-type]


@dataclass
class Figures:
    """What an upload took: the workers killed, their peak memory in MiB, and seconds in all and to finish."""

    killed: list[int] = field(default_factory=list)
    peak: float = 0
    seconds: float = 0
    finishing: float = 0


def upload(site: Site, file: Numbered, path: str) -> Figures:
    """Upload `file` as the object at `path` of `USER` and kill all workers at a third and at two thirds of it."""
    figures = Figures()
    over = threading.Event()
    with TcpProxy(urlsplit(site.url).port or 0) as way:
        # No more than this passes before somebody is killed, however late the watcher is.
        thirds = [Trap("stalled", TO_SERVER, file.length // 3, for_all=True) for _ in range(2)]
        way.heal(thirds[0])
        watcher = threading.Thread(target=_watch, args=(site, way, thirds, figures, over))
        watcher.start()
        began = time.monotonic()
        try:
            credentials = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            url = f"http://127.0.0.1:{way.port}/api/uploads/"
            client = TusClient(url, headers={"Authorization": f"Basic {credentials}"})
            about = {"metadata": {"path": path}, "chunk_size": CHUNK, "retries": 100, "retry_delay": 0.5}
            client.uploader(file_stream=io.BufferedReader(file), **about).upload()
        finally:
            over.set()
            watcher.join()
        figures.seconds = time.monotonic() - began
    return figures


def _watch(site: Site, way: TcpProxy, thirds: list[Trap], figures: Figures, over: threading.Event) -> None:
    from django.db import connections

    from django_blobstore.models import ResumableUpload

    while not over.wait(0.05):
        workers = psutil.Process(site.process.pid).children()
        for worker in workers:
            figures.peak = max(figures.peak, _peak(worker.pid))
        upload = ResumableUpload.objects.first()
        if upload and upload.state == ResumableUpload.State.FINISHING:
            figures.finishing += 0.05
        if thirds and thirds[0].is_sprung and workers:
            thirds.pop(0)
            for worker in workers:
                os.kill(worker.pid, signal.SIGKILL)
                figures.killed.append(worker.pid)
            way.heal(thirds[0] if thirds else None)
    connections.close_all()


def _peak(pid: int) -> float:
    try:
        return peak_mib(pid)
    except (OSError, StopIteration):
        return 0  # it has ended


def main(mebibytes: int) -> None:
    """Upload so many MiB and print what it took."""
    with deployment(on_disk=True):
        from django.contrib.auth import get_user_model

        from django_blobstore.models import ManagedResource
        from tests import servers

        get_user_model().objects.create_superuser(USER, password=PASSWORD)
        file = Numbered(mebibytes)
        with servers.site(servers.GUNICORN) as site:
            figures = upload(site, file, "big")
        managed = ManagedResource.objects.select_related("resource").get(path="big")
        right = managed.resource.sha384 == file.sha384() and managed.resource.length == file.length
        print(f"{mebibytes} MiB, {len(figures.killed)} workers killed, SHA-384 {'right' if right else 'WRONG'}")
        print(f"peak memory of a worker {figures.peak:.0f} MiB")
        print(f"{figures.seconds:.0f} s in all, of which {figures.finishing:.0f} s or more to put the parts together")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5 * 1024)
