"""How objects of django-storages' S3Storage are read: by ranged GETs, since its `open` downloads the whole object."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, cast

from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as NoConnection
from storages.utils import clean_name

from django_blobstore.storages.stored_file import StorageTimeout, StorageUnreachable, StoredFile

# Fewer than the connections boto3 keeps, so that others get one too.
THREADS = 8
DELETE_BATCH = 1000
ATTEMPTS = 5


@contextmanager
def told_as_os_errors() -> Iterator[None]:
    """Raise StorageTimeout or StorageUnreachable for an S3 that is too slow or away."""
    try:
        yield
    except (ReadTimeoutError, ConnectTimeoutError) as error:
        raise StorageTimeout(f"S3 did not answer in time: {error}") from error
    except (NoConnection, HTTPClientError) as error:
        raise StorageUnreachable(f"S3 cannot be reached: {error}") from error


class S3Object:
    """One object of the S3Storage `storage`, which may be used by several threads."""

    def __init__(self, storage: Any, name: str) -> None:
        self.name = name
        self._client = storage.connection.meta.client
        self._address = {"Bucket": storage.bucket_name, "Key": _key(storage, name), **_parameters(storage, name)}

    def get(self, **conditions: str) -> Mapping[str, Any]:
        """Return the answer to a GET. Raises FileNotFoundError."""
        try:
            return cast("Mapping[str, Any]", self._client.get_object(**self._address, **conditions))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise FileNotFoundError(
                    f"No file {self._address['Key']!r} is stored in the S3 bucket {self._address['Bucket']!r}."
                ) from error
            raise

    def read_range(self, wanted: tuple[int, int]) -> bytes:
        """Return the bytes of (start, length), clipped at the end of the object."""
        start, length = wanted
        # S3 knows no empty range, but the object must exist all the same.
        span = f"bytes={start}-{start + max(length, 1) - 1}"
        try:
            with closing(self.get(Range=span)["Body"]) as body:
                return cast("bytes", body.read())[:length]
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvalidRange":
                return b""
            raise


class S3Reader(io.BufferedIOBase):
    """The bytes of one object, streamed from wherever the last `seek` went; not to be shared between threads.

    It goes on where it stopped when a connection breaks, if the object is still the same.
    """

    mode = "rb"

    def __init__(self, stored: S3Object) -> None:
        answer = stored.get()
        self.name = stored.name
        self.size: int = answer["ContentLength"]
        self._stored = stored
        self._etag: str = answer["ETag"]
        self._body: Any = answer["Body"]
        self._body_position = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if target < 0:
            raise ValueError(f"Cannot seek to {target}, before the start of {self.name!r}.")
        self._position = target
        return target

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end of the object, or all the rest."""
        if self.closed:
            raise ValueError(f"The file {self.name!r} is closed.")
        rest = max(0, self.size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while wanted:
            pieces.append(self._piece(wanted))
            wanted -= len(pieces[-1])
        return b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def close(self) -> None:
        self._body.close()
        super().close()

    def _piece(self, size: int) -> bytes:
        failure: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                if failure or self._body_position != self._position:
                    self._request()
                piece = self._read_body(size)
            except (NoConnection, HTTPClientError, IncompleteReadError) as error:
                failure = error
            else:
                self._position = self._body_position = self._position + len(piece)
                return piece
        raise StorageUnreachable(
            f"Reading {self.name!r} broke off at byte {self._position} of {self.size} {ATTEMPTS} times in a row."
        ) from failure

    def _read_body(self, size: int) -> bytes:
        piece: bytes = self._body.read(size)
        if not piece:
            raise IncompleteReadError(actual_bytes=0, expected_bytes=size)
        return piece

    def _request(self) -> None:
        self._body.close()
        self._body = self._stored.get(Range=f"bytes={self._position}-", IfMatch=self._etag)["Body"]
        self._body_position = self._position


@told_as_os_errors()
def open_for_reading(storage: Any, name: str) -> StoredFile:
    """Open the object for reading in bounded memory: seekable. Raises FileNotFoundError."""
    reopen: Callable[[], S3Reader] = partial(S3Reader, S3Object(storage, name))
    return StoredFile(name, reopen)


def read_ranges(storage: Any, name: str, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (start, length) by GETs in parallel, since each of them takes its time."""
    read = S3Object(storage, name).read_range
    remaining = iter(ranges)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="s3-ranges") as threads, told_as_os_errors():
        while batch := list(islice(remaining, THREADS)):
            yield from threads.map(read, batch)


@told_as_os_errors()
def delete_many(storage: Any, names: Iterable[str]) -> None:
    """Delete the objects `names`, a thousand per request; absent ones are fine."""
    client = storage.connection.meta.client
    remaining = iter(names)
    while batch := list(islice(remaining, DELETE_BATCH)):
        objects = [{"Key": _key(storage, name)} for name in batch]
        answer = client.delete_objects(Bucket=storage.bucket_name, Delete={"Objects": objects, "Quiet": True})
        for refused in answer.get("Errors", ()):
            raise PermissionError(f"S3 did not delete {refused['Key']!r}: {refused['Code']}, {refused['Message']}")


@told_as_os_errors()
def save(storage: Any, name: str, content: Any) -> str:
    """Save as the storage does."""
    return cast("str", storage.save(name, content))


def signs_urls(storage: Any) -> bool:
    """Tell whether URLs carry a signature of S3's; a domain in front of it has another or none."""
    return bool(storage.querystring_auth and not storage.custom_domain)


def signed_url(storage: Any, name: str, headers: Mapping[str, str], *, seconds: int) -> str | None:
    """Return a URL of the object that is good for so many `seconds`; None if a URL cannot say all that S3 must know."""
    parameters = _parameters(storage, name)
    if not signs_urls(storage) or "SSECustomerKey" in parameters:
        return None
    for header in ("Content-Type", "Content-Disposition", "Cache-Control"):
        parameters[f"Response{header.replace('-', '')}"] = headers[header]
    return cast("str", storage.url(name, parameters=parameters, expire=seconds))


def _key(storage: Any, name: str) -> str:
    return cast("str", storage._normalize_name(clean_name(name)))


def _parameters(storage: Any, name: str) -> dict[str, Any]:
    """Return what a download must repeat of the upload's parameters: the customer's key, and who pays."""
    wanted = {"SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5", "RequestPayer", "VersionId"}
    parameters: Mapping[str, Any] = storage.get_object_parameters(name)
    return {key: value for key, value in parameters.items() if key in wanted}
