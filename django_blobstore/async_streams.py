"""How a thread reads what only an event loop can give."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeAlias

from asgiref.sync import iscoroutinefunction

from django_blobstore.digests import Stream, as_readable

BLOCK_SIZE = 1024 * 1024
PATIENCE = 1.0


class AsyncReadable(Protocol):
    """Anything with ``await read(n) -> bytes``, where only ``b""`` means the end."""

    async def read(self, size: int, /) -> bytes: ...


AsyncStream: TypeAlias = "AsyncReadable | AsyncIterable[bytes]"


class Stopped(Exception):
    """Nobody wants what is read any more."""


class Stoppable:
    """Reads `stream` until `stop` is called."""

    def __init__(self, stream: Stream) -> None:
        self._stream = as_readable(stream)
        self._stopped = False

    def read(self, size: int) -> bytes:
        if self._stopped:
            raise Stopped
        return self._stream.read(size)

    def stop(self) -> None:
        self._stopped = True

    def __getattr__(self, name: str) -> Any:
        """Whoever can go back still can."""
        return getattr(self._stream, name)


class FromLoop:
    """The blocks that the running event loop will give, as a `Readable` of another thread."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._loop = asyncio.get_running_loop()
        self._ahead = b""
        self._stopped = False
        self._pending: Future[bytes] | None = None

    async def peek(self, size: int) -> bytes:
        """Return the next `size` bytes or more, fewer only at the end, and leave them to be read again."""
        self._ahead = await self._collect(size, float("inf"))
        return self._ahead

    def read(self, size: int) -> bytes:
        """Return some of the next bytes, at most `size`; none only at the end. Not for the thread of the loop."""
        if not self._ahead:
            self._pending = asyncio.run_coroutine_threadsafe(self._collect(BLOCK_SIZE, PATIENCE), self._loop)
            if self._stopped:
                self._pending.cancel()
            try:
                self._ahead = self._pending.result()
            except CancelledError as error:
                raise Stopped from error
        block, self._ahead = self._ahead[:size], self._ahead[size:]
        return block

    def stop(self) -> None:
        """Make whoever reads, now or later, fail."""
        self._stopped = True
        if self._pending:
            self._pending.cancel()

    async def _collect(self, size: int, patience: float) -> bytes:
        """Return `size` bytes or more, fewer at the end or after `patience` seconds, in which at least one came."""
        parts, length, deadline = [], 0, time.monotonic() + patience
        while length < size and not (length and time.monotonic() > deadline):
            part = await anext(self._blocks, None)
            if part is None:
                break
            parts.append(part)
            length += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def async_blocks(stream: object) -> AsyncIterator[bytes] | None:
    """Return the blocks of a stream that only an event loop can read, None for others: those with a plain `read`."""
    # Readers can often be iterated too, but by lines.
    read = getattr(stream, "read", None)
    if read is not None:
        return _read_blocks(read) if iscoroutinefunction(read) else None
    return aiter(stream) if isinstance(stream, AsyncIterable) else None


async def _read_blocks(read: Callable[[int], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while block := await read(BLOCK_SIZE):
        yield block
