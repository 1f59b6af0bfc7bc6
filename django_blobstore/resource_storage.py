"""Bytes under storage paths, over any Django storage."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.files.base import File
from django.core.files.storage import InvalidStorageError, Storage, storages

from django_blobstore.conf import conf
from django_blobstore.digests import HashingReader, Stream
from django_blobstore.errors import BlobstoreError
from django_blobstore.storages import hooks, inventory

# Django's File takes no type arguments when it runs.
if TYPE_CHECKING:
    BytesFile: TypeAlias = File[bytes]
else:
    BytesFile = File

BLOCK_SIZE = 1024 * 1024

_FRESH_PATH = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{30}")


class StorageRenamed(BlobstoreError):
    """The storage kept a file under another name than the one given."""

    def __init__(self, path: str, actual: str) -> None:
        super().__init__(f"The storage keeps {path!r} as {actual!r}; use one that keeps names as they are given.")
        self.path = path
        self.actual = actual


class StorageNotConfigured(ConnectionError, InvalidStorageError):
    """STORAGES has no `alias`: what is stored there cannot be reached, and is not lost."""

    def __init__(self, alias: str) -> None:
        super().__init__(
            f"STORAGES has no alias {alias!r}; define it as it was. To take it out, first bring what is stored there "
            "elsewhere (blobstore_move)."
        )
        self.alias = alias


class ResourceStorage:
    """Keeps bytes under paths in the Django storage with the alias `alias` of STORAGES.

    The alias defaults to ``BLOBSTORE["STORAGE"]``. Nothing here knows of hashes kept, counts or the catalog.
    """

    def __init__(self, alias: str | None = None) -> None:
        self.alias = alias or conf.STORAGE

    @property
    def storage(self) -> Storage:
        """The storage as Django makes it. Raises `StorageNotConfigured`."""
        if self.alias not in storages.backends:
            raise StorageNotConfigured(self.alias)
        return storages[self.alias]

    def get(self, path: str, length: int | None = None, *, start: int = 0) -> File[bytes]:
        """Open the file at `path` for reading: seekable, in bounded memory.

        Its `length` in bytes, if the caller knows it, and where reading will `start` may spare round trips. Raises
        `FileNotFoundError`.
        """
        return hooks.open_for_reading(self.storage, path, length, start)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return up to `length` bytes from the offset `start`, fetching little more than those. Raises as `get`."""
        return hooks.read_range(self.storage, path, start, length)

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each ``(start, length)``, in as few round trips as the storage can. Raises as `get`."""
        return hooks.read_ranges(self.storage, path, ranges)

    def put(self, path: str, stream: Stream, length: int = -1) -> str:
        """Store `stream` at `path` and return its SHA-384 in hex.

        `length` bytes are read, or all there are if it is negative. Raises `LengthMismatch` if there are fewer.
        Whatever fails, no bytes stay.
        """
        reader = HashingReader(stream, length, algorithms=["sha384"])
        try:
            self.write(path, reader)
            reader.check({})
        except BaseException:
            self.remove(path)
            raise
        return reader.sha384

    def write(self, path: str, stream: HashingReader | io.BytesIO) -> None:
        """Store all of `stream` at the unused path `path`; after an error the caller removes what is there."""
        actual = hooks.save(self.storage, path, ArrivingFile(stream, path))
        if actual != path:
            self.storage.delete(actual)
            raise StorageRenamed(path, actual)

    def remove(self, path: str) -> None:
        """Delete the file at `path`; it need not exist."""
        self.storage.delete(path)

    def remove_many(self, paths: Sequence[str]) -> None:
        """Delete the files at `paths`, in as few round trips as the storage can; they need not exist."""
        hooks.delete_many(self.storage, paths)

    def check_present(self) -> None:
        """Raise `ConnectionError` if not only a file is missing, but the whole directory: it may not be mounted."""
        inventory.check_present(self.storage)


class ArrivingFile(BytesFile):
    """A stream that can be read once, as the `File` that storages expect."""

    DEFAULT_CHUNK_SIZE = BLOCK_SIZE

    def __init__(self, stream: HashingReader | io.BytesIO, name: str) -> None:
        super().__init__(stream, name)  # type: ignore[arg-type]
        self.stream = stream

    def read(self, size: int | None = None) -> bytes:
        if size is None or size < 0:
            return b"".join(self.chunks())
        return self.stream.read(size)

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        while block := self.stream.read(chunk_size or BLOCK_SIZE):
            yield block

    def multiple_chunks(self, chunk_size: int | None = None) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation("An arriving stream is read once, from its start to its end.")

    def close(self) -> None:
        """Leave the caller's stream open."""

    @property
    def closed(self) -> bool:
        return False


def fresh_path() -> str:
    """Return a storage path never used before. It says nothing of the content, and folders stay small."""
    name = uuid.uuid4().hex
    return f"{name[:2]}/{name}"


def is_fresh_path(path: str) -> bool:
    """Tell whether `path` is one that `fresh_path` can have returned."""
    return bool(_FRESH_PATH.fullmatch(path))
