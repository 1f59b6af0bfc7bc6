"""How content is checked while it is read: by which of its hashes, and in which thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from timeit import repeat

BATCH = 1024 * 1024


class Verification:
    """Compares the bytes that pass with one of the `expected` hashes, in hex by algorithm.

    It is the one that this machine computes fastest: SHA-256 where the processor has instructions for it, else SHA-384.
    Both were computed from the same bytes when those were stored, and nobody can make other bytes with the SHA-256 of
    given ones, let alone a broken disk; so either match means that these are the bytes with that SHA-384.

    Content of more than a MiB is hashed by another thread, which has at most one MiB in work while the next one is
    collected. Not to be shared between threads.
    """

    def __init__(self, expected: Mapping[str, str]) -> None:
        algorithm = min(expected, key=_cost)
        self.length = 0
        self._expected = expected[algorithm]
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._collected: list[bytes] = []
        self._room = BATCH
        self._in_work: Future[None] | None = None

    def update(self, block: bytes) -> None:
        """Take the next bytes."""
        self._collected.append(block)
        self.length += len(block)
        self._room -= len(block)
        if self._room < 0:
            self._wait()
            self._in_work = _threads.submit(self._hash_all, self._collected)
            self._collected, self._room = [], BATCH

    def succeeds(self) -> bool:
        """Tell whether all that passed so far has the hash."""
        self._wait()
        self._hash_all(self._collected)
        self._collected = []
        return self._hash.hexdigest() == self._expected

    def _hash_all(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self._hash.update(block)

    def _wait(self) -> None:
        if self._in_work:
            self._in_work.result()
            self._in_work = None


@cache
def _cost(algorithm: str) -> float:
    """Return how long this machine takes to hash a little."""
    block = bytes(64 * 1024)
    return min(repeat(partial(hashlib.new(algorithm, usedforsecurity=False).update, block), number=1, repeat=5))


def _start_threads() -> None:
    global _threads
    _threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="blobstore-verification")


_threads: ThreadPoolExecutor
_start_threads()
# Threads do not survive a fork, and their pool would not notice.
os.register_at_fork(after_in_child=_start_threads)
