"""How bytes become chunks: batches in flight, the order of inserts, and what is undone when an upload fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import IO, Any, Protocol, Self, cast

from bson import Int64, ObjectId
from django.core.files import File
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from django_blobstore.failpoints import reach
from django_blobstore.storages.gridfs_bucket import Bucket, Document, GridFSFile, named_id, retried
from django_blobstore.storages.gridfs_errors import told_as_os_errors
from django_blobstore.storages.stored_file import StorageTimeout, StorageUnreachable

FIRST_BATCH_BYTES = 2**19
# A little less than 4 MiB: pymongo's buffer for a message is a power of two.
BATCH_BYTES = 4 * 2**20 - 2**13
BATCH_CHUNKS = 1024
BATCHES_IN_FLIGHT = 2
READ_BYTES = 2**20
DUPLICATE_KEY = 11000


class Readable(Protocol):
    """Anything that gives at most `n` bytes at a time, and nothing only at its end."""

    def read(self, n: int, /) -> Any: ...


class Upload:
    """One file on its way into a bucket; a context manager that commits, or aborts when left by an exception.

    The chunks go in batches, the first of 512 KiB and each of the next twice as large, up to 4 MiB; two of them at a
    time in threads of their own, while the caller brings more. The files document follows when all chunks are
    acknowledged, so that nobody sees a file that is not whole.

    `replace` makes the file the only revision of its name. `named` is for a caller who keeps a record of the name from
    before the upload until after it, and never uses the name twice: the files document may travel with the last batch
    (faster, unless other uploads keep the processors busy already), and deleting the name removes whatever a dead
    process left. A second upload raises FileExistsError.
    """

    def __init__(
        self, bucket: Bucket, name: str, *, chunk_size: int, replace: bool = False, named: bool = False
    ) -> None:
        self.name = name
        self.id = named_id(name) if named else ObjectId()
        self.closed = False
        self._bucket = bucket
        self._chunk_size = chunk_size
        self._replace = replace
        self._named = named
        self._batch_chunks = self._fitting(FIRST_BATCH_BYTES)
        self._length = 0
        self._tail = bytearray()
        self._full: list[bytes] = []
        self._next_n = 0
        self._in_flight: deque[Future[None]] = deque()
        self._uploaded_at: datetime | None = None
        self._occupied = False
        # Of the chunks sent before the first batch was acknowledged. Until then another upload may own the id.
        self._early_ids: list[ObjectId] = []
        self._is_owner = False

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        return self._length

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        """Do nothing: a file becomes visible as a whole."""

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return not self.closed

    def write(self, data: bytes | str) -> int:
        """Take all of `data` (text as UTF-8) and return its length in bytes; waits while two batches are in flight."""
        if self.closed:
            raise ValueError(f"The upload of {self.name!r} is closed.")
        content = data.encode() if isinstance(data, str) else bytes(data)
        with self._undone_on_error():
            for chunk in self._split(content):
                self._full.append(chunk)
                if len(self._full) == self._batch_chunks:
                    self._send()
                    self._batch_chunks = min(2 * self._batch_chunks, self._fitting(BATCH_BYTES))
        self._length += len(content)
        return len(content)

    def copy(self, source: Readable) -> None:
        """Write what `source` gives until it gives nothing; a short read is not its end."""
        while data := source.read(min(self._batch_chunks, self._fitting(READ_BYTES)) * self._chunk_size):
            self.write(data)

    def commit(self) -> GridFSFile:
        """Complete the file, or undo it and raise."""
        with self._undone_on_error():
            self._finish()
        self._close()
        if self._replace:
            self._bucket.delete_older(self.name)
        return GridFSFile(self.id, self.name, self._length, self._chunk_size, self._uploaded_at)

    def close(self) -> None:
        """Commit, unless that was done or the upload aborted."""
        if not self.closed:
            self.commit()

    def abort(self, error: BaseException | None = None) -> None:
        """Delete what was stored of this file; if even that fails, say so in a note on `error`.

        Without an answer from the server it is left to the caller who keeps a record of the name: chunks that are
        still on their way would come after the delete.
        """
        wait(self._in_flight)
        self._close()
        if self._named and isinstance(error, (StorageUnreachable, StorageTimeout)):
            return
        try:
            self._delete()
        except (OSError, PyMongoError) as failure:
            if error is None:
                raise
            error.add_note(f"The chunks of {self.name!r} (files_id {self.id}) could not be deleted either: {failure}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.closed:
            return
        if kind is None:
            self.commit()
        else:
            self.abort(error)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            with told_as_os_errors():
                yield
        except BaseException as error:
            self.abort(error)
            raise

    def _split(self, content: bytes) -> Iterator[bytes]:
        """Yield whole chunks; keep what is left over for the next call."""
        start = 0
        if self._tail:
            start = self._chunk_size - len(self._tail)
            self._tail += content[:start]
            if len(self._tail) < self._chunk_size:
                return
            yield bytes(self._tail)
            self._tail.clear()
        end = len(content) - (len(content) - start) % self._chunk_size
        for position in range(start, end, self._chunk_size):
            yield content[position : position + self._chunk_size]
        self._tail += content[end:]

    def _fitting(self, size: int) -> int:
        """Return how many chunks `size` bytes are; one at least."""
        return min(BATCH_CHUNKS, max(1, size // self._chunk_size))

    def _send(self) -> None:
        """Start inserting the chunks at hand, once fewer than two batches are in flight."""
        if len(self._in_flight) == BATCHES_IN_FLIGHT:
            self._in_flight.popleft().result()
            self._is_owner = True
            self._early_ids.clear()
        self._bucket.ensure_indexes()
        self._in_flight.append(self._bucket.threads.submit(self._insert, *self._take()))

    def _take(self) -> tuple[int, list[bytes]]:
        batch = self._next_n, self._full
        self._next_n += len(self._full)
        self._full = []
        return batch

    def _finish(self) -> None:
        self._bucket.ensure_indexes()
        if self._tail:
            self._full.append(bytes(self._tail))
            self._tail.clear()
        with self._bucket.finishing() as is_only_one:
            if self._named and is_only_one:
                self._send()
            else:
                self._insert(*self._take())
                self._settle()
            self._insert_files_document()
            self._settle()

    def _settle(self) -> None:
        while self._in_flight:
            self._in_flight.popleft().result()

    def _insert(self, first: int, batch: list[bytes]) -> None:
        if not batch:
            return
        reach("gridfs.batch_taken")
        chunks: list[Document] = [
            {"_id": ObjectId(), "files_id": self.id, "n": n, "data": data} for n, data in enumerate(batch, first)
        ]
        if not self._is_owner:
            self._early_ids += [chunk["_id"] for chunk in chunks]
        try:
            if len(chunks) == 1:
                self._bucket.chunks.insert_one(chunks[0])
            else:
                self._bucket.chunks.insert_many(chunks)
        except (DuplicateKeyError, BulkWriteError) as error:
            if not _is_duplicate(error):
                raise
            # Whoever has chunk 0 owns the others.
            self._occupied = self._occupied or first == 0
            raise FileExistsError(f"A file named {self.name!r} was uploaded before.") from error
        reach("gridfs.batch_inserted")

    def _insert_files_document(self) -> None:
        self._uploaded_at = self._upload_time()
        document: Document = {
            "_id": self.id,
            "filename": self.name,
            "length": Int64(self._length),
            "chunkSize": self._chunk_size,
            "uploadDate": self._uploaded_at,
        }
        try:
            self._bucket.files.insert_one(document)
        except DuplicateKeyError as error:
            self._uploaded_at = None
            raise FileExistsError(f"A file named {self.name!r} was uploaded before.") from error
        reach("gridfs.file_inserted")

    def _upload_time(self) -> datetime:
        """Return the present in ms; for a replacement always after its predecessor, whoever's clock is wrong."""
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        if self._replace and self._bucket.has(self.name):
            previous = self._bucket.latest(self.name).uploaded_at
            return max(now, previous + timedelta(milliseconds=1)) if previous else now
        return now

    @told_as_os_errors()
    def _delete(self) -> None:
        if self._next_n:
            # What another upload has stored by this id is not ours to delete.
            ours_only = {"_id": {"$in": self._early_ids}} if self._occupied else {}
            retried(lambda: self._bucket.chunks.delete_many({"files_id": self.id, **ours_only}))
            reach("gridfs.chunks_withdrawn")
        if self._uploaded_at:
            ours = {"_id": self.id, "uploadDate": self._uploaded_at}
            retried(lambda: self._bucket.files.delete_one(ours))

    def _close(self) -> None:
        self.closed = True
        self._full = []
        self._tail.clear()


class NewFile(File):  # type: ignore[type-arg]
    """A file opened with "wb": `close` commits it; leaving a `with` block by an exception discards it."""

    mode = "wb"

    def __init__(self, upload: Upload) -> None:
        super().__init__(cast("IO[bytes]", upload), upload.name)
        self._upload = upload

    def open(self, *_: Any, **__: Any) -> Self:
        raise ValueError(f"{self.name!r} is open for writing; close it and open it from its storage again.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._upload.__exit__(kind, error, traceback)


def _is_duplicate(error: DuplicateKeyError | BulkWriteError) -> bool:
    details = error.details or {}
    return isinstance(error, DuplicateKeyError) or any(
        refused.get("code") == DUPLICATE_KEY for refused in details.get("writeErrors", ())
    )
