"""How a directory and the objects below a prefix are told apart: side by side, in byte order, neither as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django_blobstore.client.memory import Hashes, Look
from django_blobstore.client.outcomes import Meter, Outcome, attempt, unmetered
from django_blobstore.client.places import Place
from django_blobstore.client.put import Sender, hash_of


@dataclass(frozen=True)
class Pair:
    """A `path` below both: the `file` here, the object `found` there, or an `error` that keeps us from telling.

    What is here but is no file to send is `skipped` for a reason.
    """

    path: str
    file: Path | None = None
    found: dict[str, Any] | None = None
    error: OSError | None = None
    skipped: str = ""


@dataclass
class Mirror:
    """Makes the objects below `target` those of `directory`; nothing of an unchanged file is read or sent.

    With `dry_run` it only says what it would do.
    """

    sender: Sender
    hashes: Hashes
    directory: Path
    target: Place
    dry_run: bool = False
    meter: Meter = unmetered
    spare: list[str] = field(default_factory=list)
    failures: int = 0

    def pairs(self, objects: Iterator[dict[str, Any]]) -> Iterator[Pair]:
        """Yield what is to be compared; `objects` are those below the target. What is only there is left in `spare`."""
        for pair in _side_by_side(_walk(self.directory, ""), _relative(objects, self.target.path)):
            if pair.error:
                self.failures += 1
            if pair.file or pair.error or pair.skipped:
                yield pair
            else:
                self.spare.append(self.target.path + pair.path)

    def bring(self, pair: Pair) -> Outcome:
        """Put the file of `pair` unless the same content is there."""
        place = self.target.at(self.target.path + pair.path)
        return attempt(place.address, lambda: self._bring(pair, place))

    def _bring(self, pair: Pair, place: Place) -> Outcome:
        if pair.skipped:
            return Outcome(place.address, "skipped", reason=pair.skipped)
        if pair.error or pair.file is None:
            raise pair.error or FileNotFoundError(pair.path)
        place.require_path()
        look = Look.at(pair.file)
        if pair.found and pair.found["length"] == look.size and pair.found["sha384"] == self._sha384(look, place):
            return Outcome(place.address, "unchanged", 0, pair.found, pair.file)
        if self.dry_run:
            return Outcome(place.address, "to send", 0, {}, pair.file)
        outcome = self.sender.put(pair.file, place, on_progress=self.meter(place.address))
        self.hashes.keep(look, outcome.object["sha384"])
        return outcome

    def _sha384(self, look: Look, place: Place) -> str:
        known = self.hashes.find(look)
        if known:
            return known
        with look.path.open("rb") as stream:
            sha384, _ = hash_of(stream, self.meter(place.address))
        self.hashes.keep(look, sha384)
        return sha384


def _walk(directory: Path, prefix: str) -> Iterator[Pair]:
    """Yield the files below `directory` in byte order of their paths; linked files, but not linked directories."""
    try:
        with os.scandir(directory) as entries:
            found = sorted(((_key(entry), entry.name) for entry in entries), key=lambda pair: pair[0])
    except OSError as error:
        yield Pair(prefix, error=error)
        return
    for key, name in found:
        if key.endswith(b"/"):
            yield from _walk(directory / name, f"{prefix}{name}/")
        else:
            yield from _file(directory / name, prefix + name)


def _file(file: Path, path: str) -> Iterator[Pair]:
    try:
        if file.is_file():
            yield Pair(path, file)
        else:
            yield Pair(path, skipped=_why_skipped(file))
    except OSError as error:
        yield Pair(path, error=error)


def _why_skipped(file: Path) -> str:
    if not file.is_symlink():
        return "it is no regular file"
    return "it is a link to a directory" if file.is_dir() else "it is a link to no file"


def _key(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")


def _relative(objects: Iterator[dict[str, Any]], prefix: str) -> Iterator[Pair]:
    for found in objects:
        yield Pair(found["path"].removeprefix(prefix), found=found)


def _side_by_side(files: Iterator[Pair], objects: Iterator[Pair]) -> Iterator[Pair]:
    """Join two sequences in byte order of their paths."""
    file, there = next(files, None), next(objects, None)
    while file and there:
        if _order(file) == _order(there):
            yield replace(file, found=there.found)
            file, there = next(files, None), next(objects, None)
        elif _order(file) < _order(there):
            yield file
            file = next(files, None)
        else:
            yield there
            there = next(objects, None)
    yield from (pair for pair in (file, there) if pair)
    yield from files
    yield from objects


def _order(pair: Pair) -> bytes:
    return os.fsencode(pair.path)
