"""What a Django File over a remote file needs so that it never looks for a local one of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import IO, Any, Self, cast

from django.core.files import File


class DamagedFile(OSError):
    """A stored file is there, but not whole: raised by storages that notice."""


class StorageUnreachable(ConnectionError):
    """A storage does not answer, or cannot be written at the moment; try again. What it was sent may still be done."""


class StorageTimeout(TimeoutError):
    """A storage did not answer in time. What it was asked to do may still be done."""


class StoredFile(File):  # type: ignore[type-arg]
    """A file opened with "rb", over a reader with `size`; `open` goes back to its start, and reopens it if closed."""

    DEFAULT_CHUNK_SIZE = 2**20
    mode = "rb"

    def __init__(self, name: str, reopen: Callable[[], BufferedIOBase], reader: BufferedIOBase | None = None) -> None:
        super().__init__(cast("IO[bytes]", reader or reopen()), name)
        self._reopen = reopen

    def read1(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, of those that come next without copying; none only at the end."""
        return cast("BufferedIOBase", self.file).read1(size)

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the content from its start in pieces of at most `chunk_size` bytes (1 MiB), as they come: uncopied."""
        self.seek(0)
        while piece := self.read1(chunk_size or self.DEFAULT_CHUNK_SIZE):
            yield piece

    def open(self, mode: str | None = None, *_: Any, **__: Any) -> Self:
        if mode not in (None, "rb"):
            raise ValueError(f"{self.name!r} is open for reading; open it from its storage for {mode!r}.")
        if self.closed:
            self.file = cast("IO[bytes]", self._reopen())
        self.seek(0)
        return self
