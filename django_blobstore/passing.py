"""How it is told that bytes pass, so that whoever waits for a large content sees it move, and can put an end to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from django_blobstore.digests import Readable, Seekable


class Passing:
    """Reads `stream`; `on_pass` hears how far each read or seek went, in bytes, and ends the work by what it raises."""

    def __init__(self, stream: Readable, on_pass: Callable[[int], object]) -> None:
        self._stream = stream
        self._on_pass = on_pass
        self.passed = 0

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        self._pass(len(block))
        return block

    def seekable(self) -> bool:
        seekable = getattr(self._stream, "seekable", None)
        return bool(seekable and seekable())

    def tell(self) -> int:
        return cast("Seekable", self._stream).tell()

    def seek(self, offset: int, /) -> int:
        before = self.tell()
        position = cast("Seekable", self._stream).seek(offset)
        self._pass(offset - before)
        return position

    def _pass(self, length: int) -> None:
        self.passed += length
        self._on_pass(length)
