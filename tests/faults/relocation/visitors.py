"""What a site does while its store moves: a process that reads, removes and puts again what was there from the start.

One of the storm puts, overwrites, copies, proves and removes beside them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from django_blobstore.managed import ManagedStorage, Namespace
from tests.streams import MIB, content_of

HOME = Namespace("relocation")
# Every so many-th object is removed and put again by one process; the others are always there.
CHANGING = 10
# Every so many-th is large: a file of several chunks, put without being held in memory.
LARGE = 200


def content(number: int) -> bytes:
    """Return what the object `number` holds."""
    length = MIB + 300_000 if number % LARGE == LARGE - 1 else 100 + number * 7 % 5000
    return content_of(length, number)


class Visitor:
    """Reads objects at random, some of them in part, removes some and puts them again, until `stop` exists."""

    def __init__(self, directory: Path, resources: int, seed: str) -> None:
        self.random = random.Random(seed)
        self.store = ManagedStorage()
        self.stop = directory / "stop"
        self.figures = directory / f"figures-{seed}"
        self.always = [number for number in range(resources) if number % CHANGING]
        self.changing = range(0, resources, CHANGING)
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        deeds: list[Callable[[], None]] = [self._read, self._read, self._read_part, self._put_again]
        while not self.stop.exists():
            self.random.choice(deeds)()
        self.figures.write_text("\n".join(self.done.elements()))

    def _read(self) -> None:
        number = self.random.choice(self.always)
        with self.store.get(HOME, f"{number}") as file:
            assert file.read() == content(number)
        self.done["read"] += 1

    def _read_part(self) -> None:
        number = self.random.choice(self.always)
        expected = content(number)
        start = self.random.randrange(len(expected))
        with self.store.get(HOME, f"{number}") as file:
            file.seek(start)
            assert file.read(500) == expected[start : start + 500]
        self.done["read range"] += 1

    def _put_again(self) -> None:
        number = self.random.choice(self.changing)
        self.store.remove(HOME, f"{number}")
        self.store.put(HOME, f"{number}", content(number))
        assert self.store.get(HOME, f"{number}").read() == content(number)
        self.done["remove and put"] += 1


def read_figures(file: Path) -> Counter[str]:
    """Return what a visitor did."""
    return Counter(file.read_text().split("\n")) if file.exists() and os.stat(file).st_size else Counter()
