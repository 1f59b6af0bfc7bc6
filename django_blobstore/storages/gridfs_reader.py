"""How chunks become bytes: which are asked for at a time, by which cursor, and what happens when it breaks."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from time import sleep
from typing import Any

from pymongo import ASCENDING, CursorType
from pymongo.errors import InvalidOperation, PyMongoError
from pymongo.synchronous.cursor import Cursor

from django_blobstore.storages.gridfs_bucket import Bucket, CorruptFile, Document, GridFSFile, retried
from django_blobstore.storages.gridfs_errors import can_resume, told_as_os_errors
from django_blobstore.storages.stored_file import StorageUnreachable

WINDOW_BYTES = 2**20
WINDOW_CHUNKS = 1024
GROUP_BYTES = 4 * 2**20
ATTEMPTS = 5
PAUSE = 0.2


class Reader(io.BufferedIOBase):
    """The bytes of one file, seekable; not to be shared between threads.

    A file read from its start is streamed by an exhaust cursor after its first MiB. A reader that stops within it, or
    that was ever moved by `seek`, asks for a few chunks at a time instead: closing an exhaust cursor early costs its
    connection. `chunks` are all those of the file, if they are at hand.
    """

    mode = "rb"

    def __init__(self, bucket: Bucket, file: GridFSFile, *, chunks: list[bytes] | None = None) -> None:
        self.stored = file
        self.name = file.name
        self.size = file.length
        self._bucket = bucket
        self._position = 0
        self._moved = False
        self._n = -1
        self._chunk = b""
        self._coming: Generator[bytes, None, None] | None = None
        if chunks:
            self._coming = (chunk for chunk in chunks)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check_open()
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if target < 0:
            raise ValueError(f"Cannot seek to {target}, before the start of {self.name!r}.")
        if target != self._position:
            self._moved = target != 0
        self._position = target
        return target

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end of the file, or all the rest."""
        self._check_open()
        rest = max(0, self.size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while wanted:
            pieces.append(self.read1(wanted))
            wanted -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes of one chunk: the largest piece there is without copying."""
        self._check_open()
        piece = self.peek(size)
        if 0 <= size < len(piece):
            piece = piece[:size]
        self._position += len(piece)
        return piece

    def peek(self, size: int = 0, /) -> bytes:
        """Return the rest of the present chunk without moving; `size` only says how much will be read soon."""
        self._check_open()
        if self._position >= self.size:
            return b""
        n, offset = divmod(self._position, self.stored.chunk_size)
        if n != self._n:
            self._fetch(n, size)
        return self._chunk[offset:]

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._drop()
        self._chunk = b""
        super().close()

    def _fetch(self, n: int, size: int) -> None:
        """Make `n` the present chunk: the next of those already asked for, or the first of a new request."""
        if self._coming is None or n != self._n + 1:
            self._drop()
            soon = max(1, len(touched_chunks(self.stored, self._position, max(size, 0))))
            whole = n == 0 and not self._moved
            self._coming = chunks_from(self._bucket, self.stored, n, soon=soon, whole=whole)
        # After an error it gives nothing more: whoever tries again makes a new request.
        coming, self._coming = self._coming, None
        chunk = next(coming)
        if n == self.stored.chunk_count - 1:
            next(coming, None)
        else:
            self._coming = coming
        self._chunk, self._n = chunk, n

    def _drop(self) -> None:
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(f"The file {self.name!r} is closed.")


def read_directly(bucket: Bucket, file: GridFSFile, start: int) -> Reader | None:
    """Return a reader of `file` that has its chunks from `start` on, the first few, without a files document.

    None if there are no chunks, or they are not as the length and chunk size of `file` ask for. One chunk tells: all
    but the last have the size of a chunk, and the last one has none after it.
    """
    if not 0 <= start < file.length:
        return None
    try:
        with told_as_os_errors():
            return _small_file(bucket, file) if _is_small(file) else _large_file(bucket, file, start)
    except CorruptFile:
        return None


def _is_small(file: GridFSFile) -> bool:
    return file.length <= WINDOW_BYTES and file.chunk_count <= WINDOW_CHUNKS


def _small_file(bucket: Bucket, file: GridFSFile) -> Reader | None:
    """Return a reader that has the whole file, by one query."""
    found = retried(partial(_all_chunks, bucket, file))
    if len(found) != file.chunk_count:
        return None
    return Reader(bucket, file, chunks=[file.check_chunk(n, chunk) for n, chunk in enumerate(found)])


def _large_file(bucket: Bucket, file: GridFSFile, start: int) -> Reader:
    reader = Reader(bucket, file)
    reader.seek(start)
    reader.peek(1)
    reader.seek(0)
    return reader


def chunks_from(
    bucket: Bucket, file: GridFSFile, n: int, *, soon: int = 1, whole: bool = False
) -> Generator[bytes, None, None]:
    """Yield the chunks of `file` from number `n` on, each checked.

    `soon` of them are asked for first, then twice as many each time, up to one MiB; if the `whole` file is to be read,
    one MiB first and then a stream. After a broken connection it goes on where it stopped; ConnectionError is raised
    when that brings nothing five times in a row.
    """
    failures = 0
    source = _requests(bucket, file, n, soon, stream=whole)
    try:
        while n < file.chunk_count:
            try:
                data = file.check_chunk(n, next(source, None))
            except PyMongoError as error:
                if not can_resume(error):
                    raise
                failures += 1
                _pause(file, n, failures, error)
                source = _requests(bucket, file, n, soon, stream=whole)
                continue
            yield data
            failures = 0
            n += 1
        _check_end(file, source)
    finally:
        source.close()


def read_ranges(bucket: Bucket, file: GridFSFile, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (start, length), clipped at the end of `file`, by few queries of at most 4 MiB of chunks.

    Only what one range holds may be more than that.
    """
    for group in _grouped(file, ranges):
        numbers = sorted({n for wanted in group for n in touched_chunks(file, *wanted)})
        with told_as_os_errors():
            chunks = retried(partial(_chunks_by_number, bucket, file, numbers))
        for wanted in group:
            yield b"".join(_cut(file, n, chunks[n], wanted) for n in touched_chunks(file, *wanted))


def _requests(bucket: Bucket, file: GridFSFile, n: int, soon: int, *, stream: bool) -> Generator[Document, None, None]:
    """Yield chunk documents from number `n` on, some per query: no cursor is left open between them."""
    most = _fitting(file, WINDOW_BYTES)
    window = most if stream else min(soon, most)
    while n < file.chunk_count:
        # One more than there should be at the end, to notice it.
        limit = window + (n + window >= file.chunk_count)
        yield from _find(bucket, file, n).limit(limit).batch_size(limit).to_list()
        n += window
        window = min(2 * window, most)
        if stream and bucket.streams and n < file.chunk_count:
            try:
                with _find(bucket, file, n, batch_size=most, cursor_type=CursorType.EXHAUST) as cursor:
                    yield from cursor
                return
            except InvalidOperation:  # Before 7.1 mongos has no exhaust cursors.
                bucket.streams = False


def _find(bucket: Bucket, file: GridFSFile, n: int, **options: Any) -> Cursor[Document]:
    """Return a cursor over the chunks from number `n` on, whole: to leave out their ids has the server copy them."""
    return bucket.chunks.find({"files_id": {"$eq": file.id}, "n": {"$gte": n}}, **options).sort("n", ASCENDING)


def _all_chunks(bucket: Bucket, file: GridFSFile) -> list[Document]:
    """Return the chunks of `file`, and one more if there are too many; a bare command spares what a cursor costs."""
    limit = file.chunk_count + 1
    answer = bucket.database.command(
        {
            "find": bucket.chunks.name,
            "filter": {"files_id": file.id},
            "sort": {"n": ASCENDING},
            "limit": limit,
            "batchSize": limit,
            "singleBatch": True,
        }
    )
    found: list[Document] = answer["cursor"]["firstBatch"]
    return found


def _fitting(file: GridFSFile, size: int) -> int:
    """Return how many chunks of `file` are about `size` bytes; one at least."""
    return min(WINDOW_CHUNKS, -(-size // file.chunk_size))


def _pause(file: GridFSFile, n: int, failures: int, error: Exception) -> None:
    if failures == ATTEMPTS:
        position = n * file.chunk_size
        raise StorageUnreachable(
            f"Reading {file.name!r} broke off at byte {position} of {file.length} {ATTEMPTS} times in a row."
        ) from error
    sleep(PAUSE * (failures - 1))


def _check_end(file: GridFSFile, source: Iterator[Document]) -> None:
    """Let the cursor see its end, so that its connection is free again, and find a chunk that should not be there."""
    try:
        surplus = next(source, None)
    except PyMongoError as error:
        if not can_resume(error):
            raise
    else:
        if surplus is not None:
            raise CorruptFile(file.name, file.chunk_count, "should not be there")


def _grouped(file: GridFSFile, ranges: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield consecutive ranges together, as long as their chunks fit in one group."""
    group: list[tuple[int, int]] = []
    numbers: set[int] = set()
    for wanted in ranges:
        touched = set(touched_chunks(file, *wanted))
        if group and len(numbers | touched) * file.chunk_size > GROUP_BYTES:
            yield group
            group, numbers = [], set()
        group.append(wanted)
        numbers |= touched
    if group:
        yield group


def touched_chunks(file: GridFSFile, start: int, length: int) -> range:
    """Return the numbers of the chunks of `file` that hold any of the `length` bytes from `start` on."""
    if start < 0 or length < 0:
        raise ValueError(f"A range is a start and a length of 0 or more, not {(start, length)}.")
    end = min(start + length, file.length)
    return range(start // file.chunk_size, -(-end // file.chunk_size)) if start < end else range(0)


def _chunks_by_number(bucket: Bucket, file: GridFSFile, numbers: list[int]) -> dict[int, bytes]:
    if not numbers:
        return {}
    query = {"files_id": {"$eq": file.id}, "n": {"$in": numbers}}
    found = {chunk["n"]: chunk for chunk in bucket.chunks.find(query)}
    return {n: file.check_chunk(n, found.get(n)) for n in numbers}


def _cut(file: GridFSFile, n: int, data: bytes, wanted: tuple[int, int]) -> bytes:
    start, length = wanted
    origin = n * file.chunk_size
    return data[max(0, start - origin) : start + length - origin]
