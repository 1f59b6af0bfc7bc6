"""How the body of a request is cut into parts, and how parts are read as one content."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from django.core.files.base import File

from django_blobstore.catalog import StoredFile
from django_blobstore.digests import Readable
from django_blobstore.resource_storage import ResourceStorage


class Part(NamedTuple):
    """A file with `length` bytes of an upload."""

    file: StoredFile
    length: int


class ArrivingBody:
    """What one request brings, part by part; an error of the stream ends it and is kept for later."""

    def __init__(self, stream: Readable) -> None:
        self.ended = False
        self.error: Exception | None = None
        self._stream = stream
        self._seconds = self._part_until = math.inf

    def begin_part(self, seconds: float) -> None:
        """Let the next part end `seconds` after its first bytes."""
        self._seconds, self._part_until = seconds, math.inf

    def read(self, size: int, /) -> bytes:
        if self.ended or time.monotonic() >= self._part_until:
            return b""
        block = self._read(size)
        self._part_until = min(self._part_until, time.monotonic() + self._seconds)
        return block

    def has_more(self) -> bool:
        """Say whether there is another byte, which only the end of a request is asked for."""
        return not self.ended and bool(self._read(1))

    def _read(self, size: int) -> bytes:
        try:
            block = self._stream.read(size)
        except Exception as error:  # noqa: BLE001 -- raised once the bytes before it are safe
            self.error = error
            block = b""
        self.ended = not block
        return block


class JoinedParts:
    """The bytes of files, one after the other, that can be read again from the start; a context that closes them."""

    def __init__(self, parts: Sequence[Part], on_read: Callable[[], object]) -> None:
        self._parts = parts
        self._on_read = on_read
        self._next = 0
        self._open: File[bytes] | None = None
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, /) -> int:
        if offset:
            raise io.UnsupportedOperation("Parts are read again from their start only.")
        self._close()
        self._next = self._position = 0
        return 0

    def read(self, size: int, /) -> bytes:
        self._on_read()
        while self._open or self._next < len(self._parts):
            self._open = self._open or self._open_next()
            block: bytes = self._open.read(size)
            if block:
                self._position += len(block)
                return block
            self._close()
        return b""

    def _open_next(self) -> File[bytes]:
        file, length = self._parts[self._next]
        self._next += 1
        return ResourceStorage(file.storage).get(file.path, length)

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None
