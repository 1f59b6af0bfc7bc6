"""How content is hashed and counted while it passes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias

from django_blobstore.errors import ContentTooLarge, HashMismatch, InvalidHash, LengthMismatch

SHA384_LENGTH = 96
STORED_ALGORITHMS = ("sha384", "sha256")

_HEX = re.compile("[0-9a-f]+")


class Readable(Protocol):
    """Anything with ``read(n) -> bytes``, where only ``b""`` means the end."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Readable, Protocol):
    """A `Readable` that can go back."""

    def seek(self, offset: int, /) -> int: ...

    def tell(self) -> int: ...


Stream: TypeAlias = "Readable | bytes | bytearray | memoryview"


def as_readable(stream: Stream) -> Readable:
    """Return `stream`, or a reader of it if it is bytes. Raises `TypeError` for anything else."""
    # Asking whether it is a `Readable` would take longer than hashing a small content.
    if isinstance(stream, (bytes, bytearray, memoryview)):
        return io.BytesIO(stream)
    if not callable(getattr(stream, "read", None)):
        raise TypeError(f"Content is bytes or something with read(n), not {type(stream).__name__}.")
    return stream


def clean_hash(value: str, algorithm: str = "sha384") -> str:
    """Return `value` as lower-case hex, or raise `InvalidHash`."""
    expected = hashlib.new(algorithm, usedforsecurity=False).digest_size * 2
    cleaned = value.lower()
    if len(cleaned) != expected or not _HEX.fullmatch(cleaned):
        raise InvalidHash(value, f"a {algorithm} is {expected} hexadecimal digits")
    return cleaned


class HashingReader:
    """Reads `stream` once, hashing and counting what passes.

    `length` bytes are read if it is not negative, else all there are. More than `limit` bytes raise
    `ContentTooLarge`. `on_read` is called whenever the stream gave something, however little. Reads are filled: fewer
    bytes than asked for mean the end, whatever the stream does.
    """

    def __init__(
        self,
        stream: Stream,
        length: int = -1,
        *,
        limit: int | None = None,
        algorithms: Iterable[str] = STORED_ALGORITHMS,
        on_read: Callable[[], object] | None = None,
    ) -> None:
        if limit is not None and length > limit:
            raise ContentTooLarge(limit)
        self._stream = as_readable(stream)
        self._expected = length
        self._limit = limit
        self._on_read = on_read
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._ahead = b""
        self.length = 0

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer only at the end."""
        block, self._ahead = self._ahead[:size], self._ahead[size:]
        return block + self._take(size - len(block)) if len(block) < size else block

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end, and leave them to be read again."""
        self._ahead = self.read(size) + self._ahead
        return self._ahead[:size]

    def drain(self, block_size: int = 1024 * 1024) -> None:
        """Read to the end, only to hash."""
        while self.read(block_size):
            pass

    def hexdigest(self, algorithm: str) -> str:
        """Return the hash of what was read so far, in lower-case hex."""
        return self._hashes[algorithm].hexdigest()

    @property
    def sha384(self) -> str:
        return self.hexdigest("sha384")

    def check(self, expected: Mapping[str, str]) -> None:
        """Compare what was read with the length announced and the `expected` hashes, in hex by algorithm."""
        if 0 <= self._expected != self.length:
            raise LengthMismatch(self._expected, self.length)
        for algorithm, value in expected.items():
            if value != self.hexdigest(algorithm):
                raise HashMismatch(value, self.hexdigest(algorithm), algorithm)

    def _take(self, size: int) -> bytes:
        block = self._read_filled(size if self._expected < 0 else min(size, self._expected - self.length))
        for running in self._hashes.values():
            running.update(block)
        return block

    def _read_filled(self, size: int) -> bytes:
        block = self._read_once(size)
        if len(block) == size or not block:
            return block
        parts = [block]
        missing = size - len(block)
        while missing and (block := self._read_once(missing)):
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def _read_once(self, size: int) -> bytes:
        if not size:
            return b""
        block = self._stream.read(size)
        if isinstance(block, str):
            raise TypeError("Content is bytes; open text files with mode 'rb'.")
        self.length += len(block)
        if self._limit is not None and self.length > self._limit:
            raise ContentTooLarge(self._limit)
        if self._on_read:
            self._on_read()
        return block
