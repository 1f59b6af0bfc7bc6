"""What lies in a storage: names, lengths, and fragments of files; asked natively of GridFS, and by Django's verbs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from django.core.files.storage import FileSystemStorage, Storage
from django.utils import timezone

from django_blobstore.storages import gridfs_inventory
from django_blobstore.storages.gridfs import GridFSStorage
from django_blobstore.storages.gridfs_inventory import Batch, Fragment

__all__ = [
    "Batch",
    "Fragment",
    "check_present",
    "delete_fragments",
    "fragment_id",
    "fragments",
    "lengths",
    "modified",
    "names",
]

# Each answer of a remote storage takes its time, and S3 keeps ten connections.
THREADS = 8


def names(storage: Storage, *, after: str = "") -> Iterator[str]:
    """Yield the name of every file, or of those that come after the file `after`, which need not be there any more.

    Of other storages than GridFS, one folder at a time is held in memory.
    """
    if isinstance(storage, GridFSStorage):
        return storage.names(after=after)
    return _walk(storage, "", after)


def lengths(storage: Storage, names: Sequence[str]) -> dict[str, int]:
    """Return the length in bytes of each of `names` that is there. Raises `ConnectionError` if the storage is not."""
    if isinstance(storage, GridFSStorage):
        return gridfs_inventory.lengths(storage, names)
    check_present(storage)
    length = partial(_length, storage)
    if isinstance(storage, FileSystemStorage):
        return _known(zip(names, map(length, names), strict=True))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="inventory") as threads:
        return _known(zip(names, threads.map(length, names), strict=True))


def modified(storage: Storage, name: str) -> datetime | None:
    """Return the aware time at which the file `name` was written last; None if it is gone or the storage cannot say."""
    with suppress(FileNotFoundError, NotImplementedError):
        time = storage.get_modified_time(name)
        return timezone.make_aware(time) if timezone.is_naive(time) else time
    return None


def fragments(storage: Storage, *, place: str = "") -> Iterator[Batch]:
    """Yield, in batches, the chunks whose file is not there: not complete yet, or half deleted. Only GridFS has any.

    It begins at the `place` that an earlier batch gave.
    """
    return gridfs_inventory.fragments(storage, place=place) if isinstance(storage, GridFSStorage) else iter(())


def fragment_id(name: str) -> str:
    """Return the id, as text, of the fragments of a file that the store saved, or began to save, as `name`."""
    return str(gridfs_inventory.named_id(name))


def delete_fragments(storage: Storage, id: Any) -> bool:
    """Delete the fragments `id` unless their file is complete by now; say whether they were."""
    return isinstance(storage, GridFSStorage) and gridfs_inventory.delete_fragments(storage, id)


def check_present(storage: Storage) -> None:
    """Raise `ConnectionError` if the directory of a file storage is not there: it may not be mounted."""
    if isinstance(storage, FileSystemStorage) and not os.path.isdir(storage.location):
        raise ConnectionError(f"The directory {str(storage.location)!r} is not there; mount or restore it.")


def _walk(storage: Storage, folder: str, after: str) -> Iterator[str]:
    """Yield what is in `folder`, after the path `after` in it: the files by name, then what is in folders by name."""
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:
        # Nothing was ever stored, or the folder was deleted meanwhile.
        return
    first, is_deeper, rest = after.partition("/")
    if not is_deeper:
        yield from (f"{folder}{name}" for name in sorted(files) if name > first)
        first = ""
    for name in sorted(folders):
        if name >= first:
            yield from _walk(storage, f"{folder}{name}/", rest if name == first else "")


def _length(storage: Storage, name: str) -> int | None:
    try:
        return storage.size(name)
    except FileNotFoundError:
        return None
    except Exception:
        # Not every storage translates its own error for a file that is not there.
        if storage.exists(name):
            raise
        return None


def _known(pairs: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    return {name: length for name, length in pairs if length is not None}
