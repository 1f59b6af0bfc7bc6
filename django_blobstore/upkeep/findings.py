"""What an audit, a scrub or a move can find, and how it is counted without being kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

SAMPLE = 100


class Kind(StrEnum):
    """What is wrong."""

    OBJECT_WITHOUT_CONTENT = "object-without-content"
    COUNT_TOO_LOW = "count-too-low"
    COUNT_TOO_HIGH = "count-too-high"
    TOTALS_WRONG = "totals-wrong"
    CONTENT_WITHOUT_OBJECT = "content-without-object"
    FILE_MISSING = "file-missing"
    FILE_OF_OTHER_LENGTH = "file-of-other-length"
    FILE_OF_OTHER_HASH = "file-of-other-hash"
    FILE_NAMED_TWICE = "file-named-twice"
    FILE_WITHOUT_ROW = "file-without-row"
    FILE_NOT_OURS = "file-not-ours"
    CHUNKS_WITHOUT_FILE = "chunks-without-file"
    DAMAGED = "damaged-before"
    UNREAD = "unread"
    NOT_COPIED = "not-copied"


# A storage may be shared with others; what they keep there is only mentioned.
HARMLESS = {Kind.FILE_NOT_OURS}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with `name`: a SHA-384, a storage path, an object, or the id of chunks.

    `length` is how many bytes it concerns and `storage` the alias they are in.
    """

    kind: Kind
    name: str
    length: int = 0
    storage: str = ""
    detail: str = ""
    fixed: bool = False


@dataclass
class Tally:
    """How many of one kind were found, with how many bytes, and how many of them are mended."""

    found: int = 0
    bytes: int = 0
    fixed: int = 0


@dataclass
class Findings:
    """A count of each kind, and the first hundred findings."""

    tallies: dict[Kind, Tally] = field(default_factory=dict)
    sample: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        tally = self.tallies.setdefault(finding.kind, Tally())
        tally.found += 1
        tally.bytes += finding.length
        tally.fixed += finding.fixed
        if len(self.sample) < SAMPLE:
            self.sample.append(finding)

    def count(self, *kinds: Kind) -> int:
        """Return how many of `kinds` were found."""
        return sum(self.tallies[kind].found for kind in kinds if kind in self.tallies)

    @property
    def left(self) -> int:
        """How many are wrong still."""
        return sum(tally.found - tally.fixed for kind, tally in self.tallies.items() if kind not in HARMLESS)

    def figures(self) -> dict[str, Any]:
        """Return the counts as the row of a run keeps them: in all, and by kind."""
        found = sum(tally.found for tally in self.tallies.values())
        kinds = {kind.value: asdict(tally) for kind, tally in self.tallies.items()}
        return {"found": found, "left": self.left, "kinds": kinds}

    @classmethod
    def of(cls, kinds: Mapping[str, Mapping[str, int]]) -> Findings:
        """Return the findings of which these are the counts by kind."""
        return cls({Kind(kind): Tally(**tally) for kind, tally in kinds.items()})
