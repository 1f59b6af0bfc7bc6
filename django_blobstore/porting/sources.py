"""Where files to import come from, and what each source knows of them before they are read."""

from __future__ import annotations

import mimetypes
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from django.apps import apps
from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import Storage, storages
from django.db.models import FileField

from django_blobstore.blob_storage import BlobStorage
from django_blobstore.digests import Readable
from django_blobstore.errors import InvalidPath
from django_blobstore.namespaces import Namespace, check_path
from django_blobstore.porting.manifest import MANIFEST, Line
from django_blobstore.storages import inventory, juju
from django_blobstore.storages.gridfs import GridFSStorage

PAGE = 1000


class Measure(NamedTuple):
    """The length of a file in bytes, -1 if unknown, and the aware time at which it was written last, if known."""

    length: int = -1
    modified_at: datetime | None = None


@dataclass(frozen=True)
class Entry:
    """One file to import as `path`; `open` gives its bytes and `measure` what can be known without reading them.

    `sha384` is in hex, "" if unknown, and `length` is -1 then; both are checked. `namespace` is where it belongs, if
    the source knows; `metadata` is None if it says nothing of it. A `fault` is why it cannot be imported.
    """

    path: str
    open: Callable[[], AbstractContextManager[Readable]]
    measure: Callable[[], Measure] = Measure
    length: int = -1
    sha384: str = ""
    content_type: str = ""
    metadata: Mapping[str, Any] | None = None
    namespace: Namespace | None = None
    fault: str = ""


def files_of_directory(directory: Path) -> Iterator[Entry]:
    """Yield the files under `directory`, sorted, named by where they are in it. Links are not followed.

    Raises `OSError` if there is no such directory; of a folder in it that cannot be read there is an entry.
    """
    return _walk(os.fspath(directory), "")


def files_of_storage(alias: str) -> Iterator[Entry]:
    """Yield the files of the storage `alias`, which must be able to list them, by their names."""
    storage = storages[alias]
    if not isinstance(storage, BlobStorage):
        inventory.check_present(storage)
    return (_stored(storage, name, name) for name in inventory.names(storage))


def files_of_field(label: str, alias: str = "", *, target: Namespace | None = None) -> Iterator[Entry]:
    """Yield the files that the rows of ``app.Model.field`` name, from the field's storage or from `alias`.

    Their paths are the names, as BlobStorage has them. Raises `LookupError` or `ValueError` for a `label` that is none,
    and if the files would come from where they go, the namespace `target`.
    """
    file_field = _file_field(label)
    storage = storages[alias] if alias else file_field.storage
    if isinstance(storage, BlobStorage) and target and storage.namespace.bucket_id == target.bucket_id:
        raise ValueError(f"{label} has its files there already; name the storage they were in before with --from.")
    return (_stored(storage, name, name.replace("\\", "/")) for name in _names_in_rows(file_field))


def files_of_juju(alias: str, database: str = "") -> Iterator[Entry]:
    """Yield what the catalog of an old blobstore says is in the GridFSStorage `alias`, for the places it has there.

    The catalog is in the storage's database, or in `database` beside it. Raises `ValueError` for another storage.
    """
    storage = storages[alias]
    if not isinstance(storage, GridFSStorage):
        raise ValueError(f"STORAGES[{alias!r}] is no GridFSStorage.")
    return (_managed_by_juju(storage, place) for place in juju.places(storage, database))


def files_of_export(source: Path) -> Iterator[Entry]:
    """Yield what `blobstore_export` wrote to `source`, a directory or a tar file. Raises `OSError` or `ValueError`."""
    return _exported_to_directory(source) if source.is_dir() else _exported_to_tar(source)


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_within(entry.path, path)
        elif entry.is_file(follow_symlinks=False):
            yield Entry(
                path, partial(_open_itself, entry.path), partial(_measure_file, entry.path), content_type=_type_of(path)
            )
        else:
            yield _unusable(path, "it is not a regular file")


def _walk_within(folder: str, path: str) -> Iterator[Entry]:
    try:
        yield from _walk(folder, f"{path}/")
    except PermissionError as error:
        yield _unusable(path, str(error))


def _open_itself(file: str | Path) -> IO[bytes]:
    # What was a file when it was listed may be a link by now.
    return open(file, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NOFOLLOW", 0)))


def _measure_file(file: str | Path) -> Measure:
    found = os.stat(file, follow_symlinks=False)
    return Measure(found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _stored(storage: Storage, name: str, path: str) -> Entry:
    return Entry(
        path,
        partial(storage.open, name),
        partial(_measure_stored, storage, name),
        sha384=_known_hash(storage, name),
        content_type=_type_of(path),
    )


def _known_hash(storage: Storage, name: str) -> str:
    # What is wrong with the name is told when it is opened.
    with suppress(FileNotFoundError, SuspiciousOperation):
        return storage.sha384(name) if isinstance(storage, BlobStorage) else ""
    return ""


def _measure_stored(storage: Storage, name: str) -> Measure:
    return Measure(storage.size(name), inventory.modified(storage, name))


def _file_field(label: str) -> FileField:
    model, _, name = label.rpartition(".")
    found = apps.get_model(model)._meta.get_field(name)
    if not isinstance(found, FileField):
        raise ValueError(f"{label} is no FileField.")
    return found


def _names_in_rows(file_field: FileField) -> Iterator[str]:
    named = file_field.model._base_manager.exclude(**{file_field.name: ""}).exclude(**{file_field.name: None})
    rows = list(named.order_by("pk").values_list("pk", file_field.name)[:PAGE])
    while rows:
        yield from (name for _, name in rows)
        last = rows[-1][0]
        rows = list(named.filter(pk__gt=last).order_by("pk").values_list("pk", file_field.name)[:PAGE])


def _managed_by_juju(storage: GridFSStorage, place: juju.Place) -> Entry:
    return Entry(
        place.path,
        partial(storage.open, place.file),
        length=place.length,
        sha384=place.sha384,
        content_type=_type_of(place.path),
        namespace=Namespace(bucket=place.bucket, user=place.user),
        fault=place.fault,
    )


def _exported_to_directory(directory: Path) -> Iterator[Entry]:
    with (directory / MANIFEST).open("rb") as manifest:
        for number, text in enumerate(manifest, 1):
            try:
                line = Line.parse(text)
                file = _within(directory, line.file)
            except (ValueError, InvalidPath) as error:
                yield _unusable(f"{MANIFEST}:{number}", str(error))
            else:
                yield _exported(line, partial(_open_itself, file))


def _within(directory: Path, name: str) -> Path:
    """Return the file `name` of an export, which somebody else may have made to point elsewhere."""
    file = (directory / check_path(name)).resolve()
    if not file.is_relative_to(directory.resolve()):
        raise ValueError("its file is outside the export")
    return file


def _exported_to_tar(archive: Path) -> Iterator[Entry]:
    with tempfile.TemporaryFile() as manifest, tarfile.open(archive, "r:") as tar:
        _extract_manifest(archive, manifest)
        for text in manifest:
            line = Line.parse(text)
            member = _find_next(tar, line.file)
            if member.isreg() and member.size == line.length:
                yield _exported(line, partial(_open_at, archive, member.offset_data))
            else:
                yield _unusable(line.path, f"{line.file!r} is not a file of {line.length} bytes in the archive")


def _open_at(archive: Path, offset: int) -> IO[bytes]:
    file = archive.open("rb")
    file.seek(offset)
    return file


def _extract_manifest(archive: Path, manifest: IO[bytes]) -> None:
    with tarfile.open(archive, "r:") as tar:
        source = tar.extractfile(_find_next(tar, MANIFEST))
        if source:
            shutil.copyfileobj(source, manifest)
    manifest.seek(0)


def _find_next(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    while member := next_member(tar):
        if member.name == name:
            return member
    raise ValueError(f"The archive has no {name!r} where its manifest says, or is not an export.")


def next_member(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next member of `tar`, which by itself would keep all of them in memory."""
    member = tar.next()
    tar.members.clear()  # type: ignore[attr-defined]
    return member


def _exported(line: Line, open_file: Callable[[], AbstractContextManager[Readable]]) -> Entry:
    return Entry(
        line.path,
        open_file,
        length=line.length,
        sha384=line.sha384,
        content_type=line.content_type,
        metadata=line.metadata,
        namespace=line.namespace,
    )


def _unusable(path: str, fault: str) -> Entry:
    return Entry(path, cast("Callable[[], AbstractContextManager[Readable]]", tempfile.TemporaryFile), fault=fault)


def _type_of(path: str) -> str:
    return mimetypes.guess_type(path)[0] or ""
