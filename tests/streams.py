"""Streams as callers hand them in: slow, blocked, broken, short of breath, or too long to hold in memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping

MIB = 1024 * 1024
BLOCK = hashlib.shake_128(b"a block").digest(MIB)


class Stream:
    """`content`, read once. When `n` bytes were read and more are asked for, ``actions[n]`` is called first, once.

    A read gives `at_most` bytes, and stops before each action.
    """

    def __init__(
        self, content: bytes, actions: Mapping[int, Callable[[], object]] | None = None, *, at_most: int = 2**62
    ) -> None:
        self.content = content
        self.actions = dict(actions or {})
        self.at_most = at_most
        self.position = 0

    def read(self, size: int) -> bytes:
        if self.position in self.actions:
            self.actions.pop(self.position)()
        stops = [at for at in self.actions if at > self.position]
        end = min(self.position + min(size, self.at_most), *stops, len(self.content))
        block = self.content[self.position : end]
        self.position = end
        return block


class SeekableStream(io.BytesIO):
    """`content`, which calls `action` once, when it is read for the first time."""

    def __init__(self, content: bytes, action: Callable[[], object]) -> None:
        super().__init__(content)
        self.action: Callable[[], object] | None = action

    def read(self, size: int | None = -1) -> bytes:
        action, self.action = self.action, None
        if action:
            action()
        return super().read(size)


class Generated:
    """A content of `mebibytes` MiB that is never in memory as a whole; equal numbers give equal contents."""

    def __init__(self, mebibytes: int) -> None:
        self.blocks = iter(range(mebibytes))
        self.rest = b""

    def read(self, size: int) -> bytes:
        while not self.rest:
            number = next(self.blocks, None)
            if number is None:
                return b""
            self.rest = number.to_bytes(8) + BLOCK[8:]
        block, self.rest = self.rest[:size], self.rest[size:]
        return block


def sha384(content: bytes) -> str:
    return hashlib.sha384(content).hexdigest()


def content_of(length: int, label: int = 0) -> bytes:
    """Return `length` bytes that no other label gives."""
    return hashlib.shake_128(f"{label}".encode()).digest(length)
