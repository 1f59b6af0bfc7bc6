"""Threads that put and get again and again while servers fall over, and every acknowledgement they were given."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from threading import Event

from django.db import close_old_connections, connections

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource
from tests.invariants import assert_settled
from tests.stored import Stored
from tests.streams import MIB, Stream, content_of, sha384

HOME = Namespace("traffic")
WRITERS = 4
LENGTHS = (1000, 70_000, 300_000, MIB + 70_000)
LARGE = content_of(12 * MIB, 1)
SECONDS = 300


@dataclass
class Figures:
    """What came of the uploads and downloads.

    `unheard_of` are uploads that are stored though the store could not say so. `pauses` are the longest times without
    an acknowledgement after each blow, in seconds.
    """

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    unheard_of: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    downloads: int = 0
    broken_downloads: Counter[str] = field(default_factory=Counter)
    pauses: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} uploads acknowledged, {len(self.lost)} lost, refused {dict(self.refused)}, "
            f"{self.unheard_of} of these stored; "
            f"{self.downloads} downloads right, broken off {dict(self.broken_downloads)}; "
            f"longest pauses {', '.join(f'{pause:.1f}' for pause in self.pauses)} s"
        )


class Traffic:
    """Puts new contents and reads an old one in threads while `flowing`; only `refusals` may be raised to them."""

    def __init__(self, *refusals: type[Exception]) -> None:
        self.refusals = refusals
        self.store = ManagedStorage()
        self.acknowledged: dict[str, str] = {}
        self.times: list[float] = []
        self.blows: list[float] = []
        self.figures = Figures()
        self._numbers = count()
        self._over = Event()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self.store.put(HOME, "large", Stream(LARGE))
        self.acknowledged["large"] = sha384(LARGE)
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

    def wait_for_refusal(self) -> None:
        """Wait until another upload was refused."""
        before, deadline = self.figures.refused.total(), time.monotonic() + SECONDS
        while self.figures.refused.total() == before:
            assert time.monotonic() < deadline, f"No upload was refused in {SECONDS} s"
            time.sleep(0.02)

    def wait_for_download(self) -> None:
        """Wait until there was a whole download."""
        deadline = time.monotonic() + SECONDS
        while not self.figures.downloads:
            assert time.monotonic() < deadline, f"No download in {SECONDS} s"
            time.sleep(0.02)

    def blow(self) -> None:
        """Note that a server falls over now."""
        self.blows.append(time.monotonic())

    def check(self, stored: Stored) -> Figures:
        """Fail unless everything acknowledged is stored and sound and the store settles; return the figures."""
        connections.close_all()
        found = dict(ManagedResource.objects.values_list("path", "resource__sha384"))
        figures = self.figures
        figures.acknowledged = len(self.acknowledged)
        figures.lost = [path for path, expected in self.acknowledged.items() if found.get(path) != expected]
        figures.unheard_of = len(found.keys() - self.acknowledged.keys())
        figures.pauses = [_longest_gap(self.times, *window) for window in pairwise([*self.blows, time.monotonic()])]
        assert not figures.lost
        assert not ManagedResource.objects.exclude(resource__damaged_at=None).exists()
        assert_settled(stored)
        return figures

    def _repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                close_old_connections()  # as Django does before and after each request
                work()
        finally:
            connections.close_all()

    def _upload(self) -> None:
        number = next(self._numbers)
        content = content_of(LENGTHS[number % len(LENGTHS)], number)
        try:
            self.store.put(HOME, f"{number}", Stream(content))
        except self.refusals as error:
            self.figures.refused[type(error).__name__] += 1
            self._over.wait(0.05)
        else:
            self.acknowledged[f"{number}"] = sha384(content)
            self.times.append(time.monotonic())

    def _download(self) -> None:
        """Read slowly, so that most blows fall into the midst of it. A wrong hash is an error of another kind."""
        try:
            with self.store.get(HOME, "large") as file:
                for _ in file.chunks():
                    self._over.wait(0.05)
            self.figures.downloads += 1
        except self.refusals as error:
            self.figures.broken_downloads[type(error).__name__] += 1
            self._over.wait(0.05)


def _longest_gap(times: list[float], start: float, end: float) -> float:
    inside = sorted([start, *(moment for moment in times if start < moment < end)])
    return max((later - earlier for earlier, later in pairwise(inside)), default=0.0)
