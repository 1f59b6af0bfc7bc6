"""How files become objects one by one, what is left alone because it is there already, and what may go wrong."""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from django.core.exceptions import SuspiciousOperation
from django.db import router

from django_blobstore.digests import HashingReader, clean_hash
from django_blobstore.errors import BlobstoreError, ConditionFailed, InvalidPath
from django_blobstore.listing import find_all
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.namespaces import Namespace, clean_path
from django_blobstore.porting.seen import SeenContents
from django_blobstore.porting.sources import Entry
from django_blobstore.rows import is_stored

# How many files are looked up at a time.
BATCH = 500


@dataclass
class ImportReport:
    """What an import came to. `bytes` are those of all files there and new; `saved_bytes` needed no room of their own.

    Of `files`, `objects` were made or replaced, `unchanged` were there already, `kept` are there with other content,
    and `failed` could not be imported. The objects made have `new_contents` and `shared_contents`.
    """

    files: int = 0
    objects: int = 0
    unchanged: int = 0
    kept: int = 0
    failed: int = 0
    bytes: int = 0
    new_contents: int = 0
    shared_contents: int = 0
    saved_bytes: int = 0

    def count(self, length: int, *, is_new: bool) -> None:
        """Count an object that was made, with a content of `length` bytes."""
        self.objects += 1
        self.bytes += length
        if is_new:
            self.new_contents += 1
        else:
            self.shared_contents += 1
            self.saved_bytes += length


class Importer:
    """Makes objects of files in `namespace`, unless they say themselves where they belong.

    `prefix` comes before their paths. To `keep` leaves alone what is there with other content, and to `trust_times`
    takes an object for the same as a file of the same length that was written before it. A `dry_run` reads what it
    needs to say what would be shared, and changes nothing.
    """

    def __init__(
        self,
        namespace: Namespace | None,
        *,
        prefix: str = "",
        keep: bool = False,
        trust_times: bool = False,
        dry_run: bool = False,
        on_failure: Callable[[str, Exception], object],
        on_progress: Callable[[ImportReport], object],
    ) -> None:
        self.report = ImportReport()
        self._store = ManagedStorage()
        self._namespace = namespace
        self._prefix = prefix
        self._keep = keep
        self._trust_times = trust_times
        self._dry_run = dry_run
        self._on_failure = on_failure
        self._on_progress = on_progress
        self._seen = SeenContents()

    def run(self, entries: Iterable[Entry]) -> ImportReport:
        """Import `entries`; what is wrong with one is told to `on_failure` and stops no other.

        Raises `ConnectionError`, `TimeoutError`, or `OSError` with ENOSPC, if a storage cannot go on, and `ValueError`
        if an entry belongs nowhere.
        """
        remaining = iter(entries)
        while batch := list(islice(remaining, BATCH)):
            found = self._find(batch)
            for entry in batch:
                self._import_or_tell(entry, found)
                self.report.files += 1
                self._on_progress(self.report)
        return self.report

    def _find(self, batch: list[Entry]) -> dict[tuple[Namespace, str], ManagedResource]:
        """Return the objects that are at the places of `batch`."""
        places: dict[Namespace, set[str]] = {}
        for entry in batch:
            places.setdefault(self._namespace_of(entry), set()).add((self._prefix + entry.path).removeprefix("/"))
        return {
            (namespace, path): managed
            for namespace, paths in places.items()
            for path, managed in find_all(namespace, filter(_is_clean, paths)).items()
        }

    def _namespace_of(self, entry: Entry) -> Namespace:
        namespace = self._namespace or entry.namespace
        if namespace is None:
            raise ValueError("The source does not say where its files belong: name a bucket or a user.")
        return namespace

    def _import_or_tell(self, entry: Entry, found: dict[tuple[Namespace, str], ManagedResource]) -> None:
        try:
            self._import(entry, found)
        except ConditionFailed:
            self.report.kept += 1
        except (BlobstoreError, OSError, SuspiciousOperation, tarfile.TarError) as error:
            if _is_general(error):
                raise
            self.report.failed += 1
            self._on_failure(entry.path, error)

    def _import(self, entry: Entry, found: dict[tuple[Namespace, str], ManagedResource]) -> None:
        if entry.fault:
            raise OSError(entry.fault)
        namespace, path = self._namespace_of(entry), clean_path(self._prefix + entry.path)
        there = found.get((namespace, path))
        if there and self._is_same(entry, there):
            self._describe(entry, there)
        elif there and self._keep:
            self.report.kept += 1
        elif self._dry_run:
            self._foresee(entry, namespace)
        else:
            found[namespace, path] = self._put(entry, namespace, path)

    def _is_same(self, entry: Entry, there: ManagedResource) -> bool:
        if not there.resource.is_sound:
            return False
        if entry.sha384:
            return clean_hash(entry.sha384) == there.resource.sha384
        length, modified_at = entry.measure()
        if length >= 0 and length != there.resource.length:
            return False
        if self._trust_times and length >= 0 and modified_at and modified_at < there.modified_at:
            return True
        return _read(entry).sha384 == there.resource.sha384

    def _describe(self, entry: Entry, there: ManagedResource) -> None:
        """Have the object that is `there` be described as in the source, if that says anything."""
        said = (entry.content_type, entry.metadata)
        if not self._dry_run and entry.metadata is not None and said != (there.content_type, there.metadata):
            self._store.describe(there.namespace, there.path, content_type=said[0], metadata=said[1])
        self.report.unchanged += 1
        self.report.bytes += there.resource.length

    def _foresee(self, entry: Entry, namespace: Namespace) -> None:
        """Count what a put would come to."""
        sha384, length = (clean_hash(entry.sha384), entry.length) if entry.length >= 0 and entry.sha384 else ("", -1)
        if not sha384:
            reader = _read(entry)
            sha384, length = reader.sha384, reader.length
        stored = is_stored(router.db_for_read(Resource), self._store.scope_of(namespace), sha384)
        self.report.count(length, is_new=self._seen.add(sha384) and not stored)

    def _put(self, entry: Entry, namespace: Namespace, path: str) -> ManagedResource:
        with entry.open() as stream:
            managed = self._store.put(
                namespace,
                path,
                stream,
                entry.length,
                check_hash=entry.sha384,
                content_type=entry.content_type,
                metadata=entry.metadata,
                condition=_require_free if self._keep else None,
            )
        self.report.count(managed.resource.length, is_new=managed.resource.reference_count == 1)
        return managed


def _read(entry: Entry) -> HashingReader:
    with entry.open() as stream:
        reader = HashingReader(stream, algorithms=["sha384"])
        reader.drain()
    return reader


def _require_free(found: ManagedResource | None) -> None:
    if found:
        raise ConditionFailed(found.path)


def _is_clean(path: str) -> bool:
    try:
        return clean_path(path) == path
    except InvalidPath:
        return False


def _is_general(error: Exception) -> bool:
    """Whether the next file would fail as well."""
    return isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) == errno.ENOSPC
