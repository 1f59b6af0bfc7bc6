"""One process of the storm: what it does at random, and what it must always find.

Paths that begin with "own" belong to one worker and its successors; there, what was acknowledged must read back. The
others are everybody's; there, the content must be one of those that are put there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from django_blobstore import proof
from django_blobstore.errors import (
    CatalogBusy,
    LeaseLost,
    RequestExpired,
    ResourceDeleted,
    ResourceNotFound,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.moving import move_contents
from django_blobstore.storages import gridfs_writer
from django_blobstore.upkeep import sweep
from tests.faults.storm.journal import Journal, read
from tests.stored import ALIAS, ELSEWHERE
from tests.streams import Stream, content_of, sha384

STORM = Namespace(bucket="storm")
SHARED = ["a", "b", "c", "d"]
OWN_PATHS = 3

# Lengths around nothing, one chunk and what is held in memory; the last two arrive as files of their own.
CONTENTS = [b"", b"1", *(content_of(length) for length in (4096, 262_000, 300_000, 1_048_577, 1_300_000))]
NUMBERS = {sha384(content): number for number, content in enumerate(CONTENTS)}
# Several batches for the long ones.
BATCH_BYTES = 2**19

# What may happen to anybody among others at work on the same content or path, and changes nothing.
REFUSALS = (ResourceNotFound, UploadPending, ResourceDeleted, LeaseLost, CatalogBusy, RequestExpired)


class Violation(AssertionError):
    """The store broke its promise."""


def contents_of(path: str) -> list[int]:
    """Return which contents may ever be put at `path`."""
    if path.startswith("own"):
        return list(range(len(CONTENTS)))
    first = SHARED.index(path)
    return [(first + offset) % len(CONTENTS) for offset in range(len(CONTENTS) // 2 + 1)]


class Worker:
    """Works until `stop` exists. `slot` is its place among the workers, `seed` decides what it does.

    Unless it is told not to, it moves contents between two storages, too.
    """

    def __init__(self, slot: int, seed: str, directory: Path, *, moves: bool = True) -> None:
        self.random = random.Random(seed)
        self.store = ManagedStorage()
        self.own = own_paths(slot)
        self.moves = moves
        self.stop = directory / "stop"
        self.journal_file = journal_file(directory, slot)

    def run(self) -> None:
        """Check what the predecessor left, and work."""
        gridfs_writer.BATCH_BYTES = BATCH_BYTES
        self.known = check_own(self.journal_file, self.own)
        self.journal = Journal(self.journal_file, self.known)
        while not self.stop.exists():
            self._choose()()

    def _choose(self) -> Callable[[], None]:
        deeds = {self._put: 8, self._remove: 4, self._prove: 4, self._copy: 3, self._read: 5, self._read_range: 2}
        deeds |= {self._sweep: 1, self._relocate: int(self.moves)}
        return self.random.choices(list(deeds), list(deeds.values()))[0]

    def _put(self) -> None:
        path, number = self._path_and_content()
        content = CONTENTS[number]
        stream = self.random.choice([content, Stream(content, at_most=400_000)])
        check_hash = self.random.choice(["", sha384(content)])
        self._change("put", path, number, lambda: self.store.put(STORM, path, stream, check_hash=check_hash))

    def _remove(self) -> None:
        path = self._path()
        self._change("remove", path, None, lambda: self.store.remove(STORM, path))

    def _prove(self) -> None:
        path, number = self._path_and_content()
        self._change("prove", path, number, lambda: self._ask_and_answer(path, CONTENTS[number]))

    def _ask_and_answer(self, path: str, content: bytes) -> None:
        request = self.store.put_request(STORM, path, sha384(content))
        self.store.proof_of_access_response(proof.answer(content, request, sha384(content)))

    def _copy(self) -> None:
        path = self._path()
        with suppress(*REFUSALS):
            source = self.store.stat(STORM, self.random.choice(SHARED))
            number = NUMBERS[source.resource.sha384]
            if number in contents_of(path):
                self._change("copy", path, number, lambda: self.store.copy(source, STORM, path))

    def _read(self) -> None:
        path = self._path()
        check(path, found(path), self._expected(path))
        self.journal.end("read")

    def _read_range(self) -> None:
        path = self._path()
        with suppress(*REFUSALS), self.store.get(STORM, path) as file:
            content = CONTENTS[NUMBERS[file.sha384]]
            start = self.random.randint(0, len(content))
            file.seek(start)
            if file.read(5000) != content[start : start + 5000]:
                raise Violation(f"The bytes of {path!r} from {start} on are wrong.")
        self.journal.end("read range")

    def _sweep(self) -> None:
        sweep()
        self.journal.end("sweep")

    def _relocate(self) -> None:
        move_contents(*self.random.sample([ALIAS, ELSEWHERE], 2), limit=2, workers=1)
        self.journal.end("relocate")

    def _change(self, what: str, path: str, number: int | None, work: Callable[[], object]) -> None:
        """Do `work`, after which `path` holds the content `number`, and keep the journal."""
        if path in self.own:
            self.journal.begin(path, number)
        try:
            work()
        except REFUSALS as refusal:
            self._check_refusal(what, path, refusal)
            self.journal.end(what, failed=True)
            return
        if path in self.own:
            self.known[path] = number
        self.journal.end(what)

    def _check_refusal(self, what: str, path: str, refusal: Exception) -> None:
        if what == "remove" and self.known.get(path) is not None and isinstance(refusal, ResourceNotFound):
            raise Violation(f"{path!r} was stored and is lost.") from refusal

    def _expected(self, path: str) -> set[int | None]:
        return {self.known.get(path)} if path in self.own else {None, *contents_of(path)}

    def _path(self) -> str:
        return self.random.choice(self.own + SHARED)

    def _path_and_content(self) -> tuple[str, int]:
        path = self._path()
        return path, self.random.choice(contents_of(path))


def own_paths(slot: int) -> list[str]:
    return [f"own/{slot}/{number}" for number in range(OWN_PATHS)]


def journal_file(directory: Path, slot: int) -> Path:
    return directory / f"journal-{slot}"


def check_own(file: Path, paths: list[str]) -> dict[str, int | None]:
    """Return which content is at each of `paths`, which must be as the journal in `file` says."""
    story = read(file)
    known = {path: found(path) for path in paths}
    for path, number in known.items():
        check(path, number, story.possible(path))
    return known


def check_shared() -> None:
    for path in SHARED:
        check(path, found(path), {None, *contents_of(path)})


def check(path: str, number: int | None, possible: set[int | None]) -> None:
    if number not in possible:
        raise Violation(f"{path!r} holds content {number}, not one of {possible}.")


def found(path: str) -> int | None:
    """Return the number of the content at `path`, read in full, or None if there is no object."""
    try:
        with ManagedStorage().get(STORM, path) as file:
            return NUMBERS[sha384(file.read())]
    except (ResourceNotFound, UploadPending):
        return None
