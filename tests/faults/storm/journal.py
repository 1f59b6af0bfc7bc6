"""What a worker set out to do and what was acknowledged, in a file that outlives the worker's being killed."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

Known = dict[str, int | None]


@dataclass(frozen=True)
class Story:
    """What a journal tells: `known` contents by path, what may have been `begun` last, and counts of what was done."""

    known: Known
    begun: tuple[str, int | None] | None
    done: Counter[str]

    def possible(self, path: str) -> set[int | None]:
        """Return which contents may be at `path`; None stands for no object."""
        in_doubt = {self.begun[1]} if self.begun and self.begun[0] == path else set()
        return {self.known.get(path)} | in_doubt


class Journal:
    """Appends each line in one write, so that it is there in full as soon as the call returns."""

    def __init__(self, file: Path, known: Known) -> None:
        fresh = file.with_suffix(".fresh")
        fresh.write_text(json.dumps({"known": known}) + "\n")
        fresh.replace(file)
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND)

    def begin(self, path: str, content: int | None) -> None:
        """Say that from now on `path` may hold `content`, or nothing if that is None."""
        self._write(begin=[path, content])

    def end(self, what: str, *, failed: bool = False) -> None:
        """Say that `what` was done, or that it `failed` and changed nothing."""
        self._write(end=what, failed=failed)

    def _write(self, **line: object) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read(file: Path) -> Story:
    """Return what the journal in `file` tells; an absent one tells nothing."""
    known: Known = {}
    begun: tuple[str, int | None] | None = None
    done: Counter[str] = Counter()
    for line in map(json.loads, file.read_text().splitlines() if file.exists() else ()):
        known.update(line.get("known", {}))
        if "begin" in line:
            begun = tuple(line["begin"])
        elif "end" in line:
            if begun and not line["failed"]:
                known[begun[0]] = begun[1]
            begun = None
            done[line["end"] + " refused" * line["failed"]] += 1
    return Story(known, begun, done)
