"""What is said of contents, files and objects between the catalog and those who have it change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from django_blobstore.models import ManagedResource

# Raises an error, such as `ConditionFailed`, if the object that is there, or that none is, is not as it must be.
Condition: TypeAlias = "Callable[[ManagedResource | None], object]"


@dataclass(frozen=True)
class Content:
    """What is known of some bytes: their hashes in hex and their number."""

    sha384: str
    length: int
    sha256: str = ""


@dataclass(frozen=True)
class StoredFile:
    """A file in the storage of an alias; `path` is "" where there is none."""

    storage: str
    path: str


@dataclass
class Change:
    """What a transaction did: the object it wrote or removed, and the files that nothing needs any more."""

    managed: ManagedResource
    discarded: list[StoredFile] = field(default_factory=list)


class Returned(NamedTuple):
    """What giving back a reference came to: was it the `last`, and the content's storage path and length in bytes."""

    last: bool
    path: str
    length: int


@dataclass
class Removed:
    """How many `objects` were removed, and how many `contents` of how many `bytes` lost their last reference by it."""

    objects: int = 0
    contents: int = 0
    bytes: int = 0
    discarded: list[StoredFile] = field(default_factory=list)

    def add(self, returned: Returned) -> None:
        self.objects += 1
        if returned.last:
            self.contents += 1
            self.bytes += returned.length


@dataclass(frozen=True)
class Recount:
    """The references a resource counted `before` and `after`, and the files that nothing needs any more."""

    before: int
    after: int
    discarded: list[StoredFile] = field(default_factory=list)
