"""Uploads and downloads while the primary of a replica set dies: `python -m tests.faults.primary_kills`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from threading import Event

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

from django.db import connections
from django.test import override_settings

from django_blobstore.managed import ManagedStorage, Namespace
from tests.faults.replica_set import ReplicaSet
from tests.invariants import assert_settled, unreadable_objects
from tests.settings import STORAGES, TEST_DIRECTORY
from tests.stored import ALIAS, Stored, in_gridfs
from tests.streams import MIB, Stream, content_of, sha384

HOME = Namespace("kills")
WRITERS = 4
LENGTHS = (1000, 70_000, 300_000, MIB + 70_000)
LARGE = content_of(12 * MIB, 1)
STRIKES = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM, "stopped": signal.SIGSTOP}
SECONDS = 120


@dataclass
class Figures:
    """What came of the uploads and downloads; `pauses` are the longest times without any acknowledgement, in s."""

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    downloads: int = 0
    broken_downloads: Counter[str] = field(default_factory=Counter)
    pauses: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} uploads acknowledged, {len(self.lost)} lost, refused {dict(self.refused)}; "
            f"{self.downloads} downloads right, broken off {dict(self.broken_downloads)}; "
            f"longest pauses {', '.join(f'{pause:.1f}' for pause in self.pauses)} s"
        )


class Traffic:
    """Threads that put new contents and read an old one, again and again, until the context ends."""

    def __init__(self) -> None:
        self.store = ManagedStorage()
        self.acknowledged: dict[str, str] = {}
        self.times: list[float] = []
        self.figures = Figures()
        self._numbers = count()
        self._over = Event()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self.store.put(HOME, "large", Stream(LARGE))
        with ThreadPoolExecutor(WRITERS + 1) as threads:
            works = [self._upload] * WRITERS + [self._download]
            running: list[Future[None]] = [threads.submit(self._repeat, work) for work in works]
            try:
                yield
            finally:
                self._over.set()
        for work in running:
            work.result()

    def wait_for(self, uploads: int) -> None:
        """Wait until so many more uploads were acknowledged."""
        goal, deadline = len(self.times) + uploads, time.monotonic() + SECONDS
        while len(self.times) < goal:
            assert time.monotonic() < deadline, f"{len(self.times)} of {goal} uploads after {SECONDS} s"
            time.sleep(0.02)

    def _repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                work()
        finally:
            connections.close_all()

    def _upload(self) -> None:
        number = next(self._numbers)
        content = content_of(LENGTHS[number % len(LENGTHS)], number)
        try:
            self.store.put(HOME, f"{number}", Stream(content))
        except (ConnectionError, TimeoutError) as error:
            self.figures.refused[type(error).__name__] += 1
        else:
            self.acknowledged[f"{number}"] = sha384(content)
            self.times.append(time.monotonic())

    def _download(self) -> None:
        """Read slowly, so that most strikes fall into the midst of it. A wrong hash is an error of another kind."""
        try:
            with self.store.get(HOME, "large") as file:
                for _ in file.chunks():
                    self._over.wait(0.05)
            self.figures.downloads += 1
        except (ConnectionError, TimeoutError) as error:
            self.figures.broken_downloads[type(error).__name__] += 1


def run(replicas: ReplicaSet, stored: Stored, strikes: list[str], *, uploads: int) -> Figures:
    """Strike the primary as told, with so many `uploads` acknowledged before each and after the last.

    The storage must be that of `replicas`. Raises `AssertionError` if anything is lost or wrong.
    """
    traffic = Traffic()
    moments = []
    with traffic.flowing():
        for strike in strikes:
            traffic.wait_for(uploads)
            primary = replicas.primary()
            moments.append(time.monotonic())
            replicas.strike(primary, STRIKES[strike])
            traffic.wait_for(min(uploads, 10))
            replicas.bring_back(primary)
        traffic.wait_for(uploads)
    figures = traffic.figures
    figures.acknowledged = len(traffic.acknowledged)
    figures.pauses = [_longest_gap(traffic.times, *window) for window in pairwise([*moments, time.monotonic()])]
    figures.lost = [path for path, expected in traffic.acknowledged.items() if not _is_stored(path, expected)]
    assert not figures.lost
    assert not list(unreadable_objects())
    assert_settled(stored)
    return figures


def _is_stored(path: str, expected: str) -> bool:
    managed = ManagedStorage().stat(HOME, path)
    return managed.resource.sha384 == expected and managed.resource.damaged_at is None


def _longest_gap(times: list[float], start: float, end: float) -> float:
    inside = sorted([start, *(moment for moment in times if start < moment < end)])
    return max((later - earlier for earlier, later in pairwise(inside)), default=0.0)


def main() -> int:
    """Return 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.primary_kills")
    parser.add_argument("--uploads", type=int, default=100, help="acknowledged before each strike")
    parser.add_argument("--strikes", nargs="+", choices=[*STRIKES], default=["killed"] * 5)
    parser.add_argument("--election-timeout", type=int, default=10_000, help="of the replica set, in ms")
    options = parser.parse_args()
    TEST_DIRECTORY.mkdir(exist_ok=True)
    connections["default"].creation.create_test_db(verbosity=0, autoclobber=True)
    with (
        ReplicaSet(election_timeout=options.election_timeout) as replicas,
        in_gridfs(replicas.uri) as stored,
        override_settings(STORAGES=STORAGES | {ALIAS: stored.options}, BLOBSTORE={"DELETION_GRACE": 0}),
    ):
        print(run(replicas, stored, options.strikes, uploads=options.uploads))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(TEST_DIRECTORY, ignore_errors=True)
