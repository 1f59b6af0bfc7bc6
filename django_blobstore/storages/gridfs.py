"""How Django's storage verbs map onto a GridFS bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from io import UnsupportedOperation
from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files import File
from django.utils import timezone
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri
from storages.base import BaseStorage

from django_blobstore.storages.gridfs_bucket import Bucket, GridFSFile, bucket_for, named_id
from django_blobstore.storages.gridfs_reader import Reader, read_directly, read_ranges
from django_blobstore.storages.gridfs_writer import NewFile, Readable, Upload
from django_blobstore.storages.stored_file import StoredFile

# Puts are faster than with the 255 KiB of GridFS drivers, ranges not much slower; for ranges alone less is better.
CHUNK_SIZE = 512 * 1024
MAX_CHUNK_SIZE = 4 * 2**20


@deconstructible(path="django_blobstore.storages.GridFSStorage")
class GridFSStorage(BaseStorage):  # type: ignore[misc]
    """Keeps files in MongoDB GridFS, readable and writable by any other GridFS driver too.

    Options: `uri`; `database` (unset: the one in the uri, or "blobstore"); `namespace`, the prefix of the two
    collections; `chunk_size` in bytes, which a file keeps when the option changes; `base_url` for `url`;
    `allow_overwrite` as FileSystemStorage has it; `client_options`, more keywords for pymongo's MongoClient. Everything
    is written with majority, and read from the primary. Files are found by name; of several revisions the newest
    counts.

    An absent file is a FileNotFoundError and a damaged one a CorruptFile. A server that cannot be reached or has no
    primary is a ConnectionError, one that takes too long a TimeoutError, and a full one an OSError with ENOSPC;
    whatever else it refuses is pymongo's error.
    """

    uri: str
    database: str
    namespace: str
    chunk_size: int
    base_url: str | None
    allow_overwrite: bool
    client_options: Mapping[str, Any]

    def __init__(self, **options: Any) -> None:
        for unknown in options.keys() - self.get_default_settings().keys():
            raise ImproperlyConfigured(_unknown_option(unknown, self.get_default_settings()))
        super().__init__(**options)
        if not isinstance(self.chunk_size, int) or not 0 < self.chunk_size <= MAX_CHUNK_SIZE:
            raise ImproperlyConfigured(
                f"GridFSStorage option 'chunk_size' is a number of bytes from 1 to {MAX_CHUNK_SIZE}, "
                f"not {self.chunk_size!r}."
            )

    def get_default_settings(self) -> dict[str, Any]:
        return {
            "uri": "mongodb://localhost:27017/",
            "database": "",
            "namespace": "fs",
            "chunk_size": CHUNK_SIZE,
            "base_url": None,
            "allow_overwrite": False,
            "client_options": {},
        }

    def exists(self, name: str) -> bool:
        return self._bucket.has(name)

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        if self.allow_overwrite:
            return not (max_length and len(name) > max_length)
        return bool(super().is_name_available(name, max_length=max_length))

    def size(self, name: str) -> int:
        return self._bucket.latest(name).length

    def url(self, name: str) -> str:
        if self.base_url is None:
            raise ValueError("This file is not accessible via a URL: its GridFSStorage has no 'base_url'.")
        return urljoin(self.base_url.rstrip("/") + "/", filepath_to_uri(name).lstrip("/"))

    def get_created_time(self, name: str) -> datetime:
        return self.get_modified_time(name)

    def get_modified_time(self, name: str) -> datetime:
        """Return when the newest revision was uploaded; a file never changes after."""
        uploaded_at = self._bucket.latest(name).uploaded_at
        if uploaded_at is None:
            raise NotImplementedError(f"The files document of {name!r} has no uploadDate.")
        return uploaded_at if settings.USE_TZ else timezone.make_naive(uploaded_at, timezone.get_default_timezone())

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        return self._bucket.list_folder(path.strip("/") + "/" if path.strip("/") else "")

    def names(self, *, after: str = "") -> Iterator[str]:
        """Yield every stored name that comes after `after` once, sorted by UTF-8 bytes."""
        return self._bucket.names(after)

    def delete(self, name: str) -> None:
        if not name:
            raise ValueError("The name must be given to delete().")
        self.delete_many([name])

    def delete_many(self, names: Iterable[str]) -> None:
        """Delete all of `names` in batches, with all revisions; absent ones are fine."""
        self._bucket.delete_names(names)

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on, fewer at the end of the file; fetches only the chunks they touch."""
        return next(self.read_ranges(name, [(start, length)]))

    def read_ranges(self, name: str, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """Yield the bytes of each (start, length), clipped at the end of the file; one range is held whole."""
        return read_ranges(self._bucket, self._bucket.latest(name), ranges)

    def save_named(self, name: str, content: Readable) -> str:
        """Save what `content` still gives under exactly `name`, faster and with less left behind than `save`.

        For callers who record `name` before they call and until they know the outcome, and use it only once: a file
        may become visible just before it is whole, and deleting `name` removes whatever an upload left, complete or
        not. After ConnectionError and TimeoutError something may be left, or may still come: delete it some minutes
        later. Raises FileExistsError if `name` was saved in this way before.
        """
        with self._upload(name, named=True) as upload:
            upload.copy(content)
        return name

    def open_named(self, name: str, length: int, start: int = 0) -> StoredFile:
        """Open what `save_named` saved, of `length` bytes; one query brings the first chunks from `start` on."""
        file = GridFSFile(named_id(name), name, length, self.chunk_size)
        return StoredFile(name, partial(self._reader, name), read_directly(self._bucket, file, start))

    def ensure_indexes(self) -> None:
        """Create the indexes of the bucket where they are missing, as the first write of each process does."""
        self._bucket.ensure_indexes()

    def problems(self) -> list[str]:
        """Return what makes this storage slow, unsafe or unreachable, one sentence each."""
        return self._bucket.problems()

    @property
    def _bucket(self) -> Bucket:
        return bucket_for(self.uri, self.database, self.namespace, self.client_options)

    def _open(self, name: str, mode: str = "rb") -> File:  # type: ignore[type-arg]
        if mode == "rb":
            return StoredFile(name, partial(self._reader, name))
        if mode == "wb":
            return NewFile(self._upload(name, replace=True))
        raise ValueError(f"GridFSStorage opens files with 'rb' or 'wb', not with {mode!r}.")

    def _reader(self, name: str) -> Reader:
        return Reader(self._bucket, self._bucket.latest(name))

    def _save(self, name: str, content: Any) -> str:
        with suppress(AttributeError, UnsupportedOperation):
            content.seek(0)
        with self._upload(name, replace=self.allow_overwrite) as upload:
            upload.copy(content)
        return name if self.allow_overwrite else self._settle_name(name, upload.id)

    def _settle_name(self, name: str, file_id: Any) -> str:
        """Rename the file if another one took `name` between Django's look and our commit."""
        while self._bucket.has(name, besides=file_id):
            name = self.get_available_name(name)
            self._bucket.rename(file_id, name)
        return name

    def _upload(self, name: str, *, replace: bool = False, named: bool = False) -> Upload:
        return Upload(self._bucket, name, chunk_size=self.chunk_size, replace=replace, named=named)


def _unknown_option(unknown: str, known: Iterable[str]) -> str:
    close = get_close_matches(unknown, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(sorted(known))}."
    return f"GridFSStorage has no option {unknown!r}. {hint}"
