"""What the catalog asks of a storage beyond Django's verbs, and who answers it natively: ours, S3, or nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, TypeGuard, cast

from django.core.files import File
from django.core.files.storage import FileSystemStorage, Storage

from django_blobstore.failpoints import reach
from django_blobstore.storages.stored_file import DamagedFile, StorageTimeout, StorageUnreachable

__all__ = [
    "DamagedFile",
    "Unanswered",
    "delete_many",
    "keeps_files",
    "open_for_reading",
    "read_range",
    "read_ranges",
    "save",
    "signed_url",
    "signs_urls",
]

# After these it is not known what the storage did, or will still do.
Unanswered = (StorageUnreachable, StorageTimeout)


def open_for_reading(storage: Storage, name: str, length: int | None = None, start: int = 0) -> File[bytes]:
    """Open the file `name`. Its `length` in bytes, if known, and where reading will `start` may spare queries.

    Raises FileNotFoundError.
    """
    if length is not None and hasattr(storage, "open_named"):
        return cast("File[bytes]", storage.open_named(name, length, start))
    s3 = _s3(storage)
    return cast("File[bytes]", s3.open_for_reading(storage, name)) if s3 else storage.open(name, "rb")


def save(storage: Storage, name: str, content: File[bytes]) -> str:
    """Save `content` under `name`, never used before and recorded by the caller; return the name it got."""
    if hasattr(storage, "save_named"):
        return cast("str", storage.save_named(name, content))
    s3 = _s3(storage)
    return cast("str", s3.save(storage, name, content)) if s3 else storage.save(name, content)


def delete_many(storage: Storage, names: Iterable[str]) -> None:
    """Delete the files `names`, whether they exist or not."""
    if hasattr(storage, "delete_many"):
        storage.delete_many(names)
    elif s3 := _s3(storage):
        s3.delete_many(storage, names)
    else:
        _delete_one_by_one(storage, names)


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
    if s3 := _s3(storage):
        return cast("Iterator[bytes]", s3.read_ranges(storage, name, wanted))
    return _read_opened_ranges(storage, name, wanted)


def keeps_files(storage: Storage) -> TypeGuard[FileSystemStorage]:
    """Tell whether what is stored lies in files, as it is, where ``storage.path`` says."""
    # Django's InMemoryStorage has paths too.
    return isinstance(storage, FileSystemStorage)


def signs_urls(storage: Storage) -> bool:
    """Tell whether whoever has a URL of `signed_url` gets the file from the storage without our help."""
    s3 = _s3(storage)
    return bool(s3 and s3.signs_urls(storage))


def signed_url(storage: Storage, name: str, headers: Mapping[str, str], *, seconds: int) -> str | None:
    """Return a URL at which the storage itself serves the file for so many `seconds`, or None.

    It serves it under the Content-Type, Content-Disposition and Cache-Control of `headers`.
    """
    s3 = _s3(storage)
    return cast("str | None", s3.signed_url(storage, name, headers, seconds=seconds)) if s3 else None


def _delete_one_by_one(storage: Storage, names: Iterable[str]) -> None:
    for name in names:
        storage.delete(name)
        reach("storage.file_deleted")


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


def _s3(storage: Storage) -> ModuleType | None:
    """Return who knows S3Storage, if `storage` is one. It is told by its name, because importing it needs boto3."""
    kinds = {(cls.__module__, cls.__name__) for cls in type(storage).__mro__}
    # The offsets of one that compresses are not those of the content.
    if ("storages.backends.s3", "S3Storage") in kinds and not cast("Any", storage).gzip:
        return import_module("django_blobstore.storages.s3")
    return None
