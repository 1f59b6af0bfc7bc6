"""What the catalog asks of a storage beyond Django's verbs, and who answers it natively: ours, S3, or nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, cast

from django.core.files import File
from django.core.files.storage import Storage
from storages.utils import clean_name

from django_blobstore.failpoints import reach

# As many as boto3 keeps connections for, less a margin for others.
S3_THREADS = 8


def open_for_reading(storage: Storage, name: str, length: int | None = None) -> File[bytes]:
    """Open the file `name`; its `length` in bytes, if known, may spare a query. Raises FileNotFoundError."""
    if length is not None and hasattr(storage, "open_named"):
        return cast("File[bytes]", storage.open_named(name, length))
    return storage.open(name, "rb")


def save(storage: Storage, name: str, content: File[bytes]) -> str:
    """Save `content` under `name`, never used before and recorded by the caller; return the name it got."""
    if hasattr(storage, "save_named"):
        return cast("str", storage.save_named(name, content))
    return storage.save(name, content)


def delete_many(storage: Storage, names: Iterable[str]) -> None:
    """Delete the files `names`, whether they exist or not."""
    if hasattr(storage, "delete_many"):
        storage.delete_many(names)
        return
    for name in names:
        storage.delete(name)
        reach("storage.file_deleted")


def read_range(storage: Storage, name: str, start: int, length: int) -> bytes:
    """Return `length` bytes from the offset `start`, fewer at the end of the file. Raises FileNotFoundError."""
    return next(read_ranges(storage, name, [(start, length)]))


def read_ranges(storage: Storage, name: str, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each (start, length), clipped at the end of the file. Raises FileNotFoundError.

    Little more than the ranges is fetched where the storage can; one range at least is held in memory.
    """
    wanted = [_checked(*one) for one in ranges]
    if hasattr(storage, "read_ranges"):
        return cast("Iterator[bytes]", storage.read_ranges(name, wanted))
    if _is_s3(storage):
        return _read_s3_ranges(storage, name, wanted)
    return _read_opened_ranges(storage, name, wanted)


def _checked(start: int, length: int) -> tuple[int, int]:
    if start < 0 or length < 0:
        raise ValueError(f"A range is a start and a length of 0 or more, not {(start, length)}.")
    return start, length


def _read_opened_ranges(storage: Storage, name: str, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    with storage.open(name, "rb") as file:
        for start, length in ranges:
            file.seek(start)
            yield b"".join(_pieces(file, length))


def _pieces(file: File[bytes], length: int) -> Iterator[bytes]:
    """Yield `length` bytes in pieces: one `read` may return fewer than there are."""
    while length and (piece := file.read(length)):
        yield piece
        length -= len(piece)


def _is_s3(storage: Storage) -> bool:
    """Tell S3Storage by name, since importing it needs boto3; one that compresses has no offsets to ask for."""
    names = {(cls.__module__, cls.__name__) for cls in type(storage).__mro__}
    return ("storages.backends.s3", "S3Storage") in names and not cast("Any", storage).gzip


def _read_s3_ranges(storage: Any, name: str, ranges: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield ranges by GETs in parallel: `open` would download the whole object, and each GET takes its time."""
    key = storage._normalize_name(clean_name(name))
    read = partial(
        _get_from_s3, storage.connection.meta.client, storage.bucket_name, key, _s3_parameters(storage, name)
    )
    remaining = iter(ranges)
    with ThreadPoolExecutor(S3_THREADS, thread_name_prefix="s3-ranges") as threads:
        while batch := list(islice(remaining, S3_THREADS)):
            yield from threads.map(read, batch)


def _s3_parameters(storage: Any, name: str) -> dict[str, Any]:
    """Return what a download must repeat of the upload's parameters: the customer's key, and who pays."""
    wanted = {"SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5", "RequestPayer", "VersionId"}
    parameters: Mapping[str, Any] = storage.get_object_parameters(name)
    return {key: value for key, value in parameters.items() if key in wanted}


def _get_from_s3(client: Any, bucket: str, key: str, parameters: dict[str, Any], wanted: tuple[int, int]) -> bytes:
    start, length = wanted
    # S3 knows no empty range, but the object must exist all the same.
    span = f"bytes={start}-{start + max(length, 1) - 1}"
    try:
        body = client.get_object(Bucket=bucket, Key=key, Range=span, **parameters)["Body"]
        with body:
            return cast("bytes", body.read())[:length]
    except client.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "InvalidRange":
            return b""
        if code in ("NoSuchKey", "404"):
            raise FileNotFoundError(f"No file {key!r} is stored in the S3 bucket {bucket!r}.") from error
        raise
