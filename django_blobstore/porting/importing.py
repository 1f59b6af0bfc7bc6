"""How files become objects one by one, what is left alone because it is there already, and what may go wrong."""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Condition, Lock
from typing import TypeAlias

from django.core.exceptions import SuspiciousOperation
from django.db import router

from django_blobstore.crew import Crew, Interrupted
from django_blobstore.digests import HashingReader, clean_hash
from django_blobstore.errors import BlobstoreError, ConditionFailed, InvalidPath
from django_blobstore.listing import find_all
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.namespaces import Namespace, check_path
from django_blobstore.passing import Passing
from django_blobstore.porting.seen import ForeseenObjects, SeenContents
from django_blobstore.porting.sources import Entry
from django_blobstore.rows import is_stored

# How many files are looked up at a time.
BATCH = 500

Place: TypeAlias = tuple[Namespace, str]


@dataclass
class ImportReport:
    """What an import came to. `bytes` are those of all files there and new; `saved_bytes` needed no room of their own.

    Of `files`, `objects` were made or replaced, `unchanged` were there already, `kept` are there with other content,
    and `failed` could not be imported. The objects made have `new_contents` and `shared_contents`. Of files that are
    being read `bytes_under_way` have been.
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
    bytes_under_way: int = 0


class Importer:
    """Makes objects of files in `namespace`, unless they say themselves where they belong.

    `prefix` comes before their paths. To `keep` leaves alone what is there with other content, and to `trust_times`
    takes an object for the same as a file of the same length that was written before it. A `dry_run` reads what it
    needs to say what would be shared, and changes nothing. Of more than one of `jobs` each is a thread with database
    connections of its own; `on_failure` and `on_progress` are called by one at a time.
    """

    def __init__(
        self,
        namespace: Namespace | None,
        *,
        prefix: str = "",
        keep: bool = False,
        trust_times: bool = False,
        dry_run: bool = False,
        jobs: int = 1,
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
        self._jobs = jobs
        self._on_failure = on_failure
        self._on_progress = on_progress
        self._seen = SeenContents()
        self._foreseen = ForeseenObjects()
        self._crew = Crew()
        # One at a time takes an entry; one at a time has the report, what was found, and which places are taken.
        self._taking = Lock()
        self._own = Condition()
        self._found: dict[Place, ManagedResource] = {}
        self._taken: set[Place] = set()

    def run(self, entries: Iterable[Entry]) -> ImportReport:
        """Import `entries`; what is wrong with one is told to `on_failure` and stops no other.

        Raises `ConnectionError`, `TimeoutError`, or `OSError` with ENOSPC, if a storage cannot go on, and `ValueError`
        if an entry belongs nowhere.
        """
        work = partial(self._work, self._looked_up(iter(entries)))
        if self._jobs == 1:
            work()
        else:
            self._crew.run(work, self._jobs, name="blobstore-import")
        return self.report

    def _looked_up(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Yield `entries`, having found the objects that are at their places."""
        while batch := list(islice(entries, BATCH)):
            with self._own:
                # Nobody can note an object meanwhile that it found too late, and that was made too late to be found.
                self._found = self._find(batch)
            yield from batch

    def _work(self, waiting: Iterator[Entry]) -> None:
        while taken := self._take(waiting):
            try:
                self._import_or_tell(*taken)
            finally:
                self._give_back(taken[0])

    def _take(self, waiting: Iterator[Entry]) -> tuple[Entry, ManagedResource | None] | None:
        """Return the next entry and what is at its place, once nobody is busy with another one for that place."""
        # Nobody looks further on before this one knows what is there.
        with self._taking:
            entry = None if self._crew.is_over else next(waiting, None)
            if entry is None:
                return None
            place = self._place_of(entry)
            with self._own:
                self._own.wait_for(lambda: place not in self._taken)
                self._taken.add(place)
                return entry, self._there(place)

    def _there(self, place: Place) -> ManagedResource | None:
        foreseen = self._foreseen.find(*place) if self._dry_run else None
        return foreseen or self._found.get(place)

    def _give_back(self, entry: Entry) -> None:
        with self._own:
            self._taken.remove(self._place_of(entry))
            self._own.notify_all()

    def _find(self, batch: list[Entry]) -> dict[Place, ManagedResource]:
        """Return the objects that are at the places of `batch`."""
        places: dict[Namespace, set[str]] = {}
        for namespace, path in map(self._place_of, batch):
            places.setdefault(namespace, set()).add(path)
        return {
            (namespace, path): managed
            for namespace, paths in places.items()
            for path, managed in find_all(namespace, filter(_is_clean, paths)).items()
        }

    def _place_of(self, entry: Entry) -> Place:
        namespace = self._namespace or entry.namespace
        if namespace is None:
            raise ValueError("The source does not say where its files belong: name a bucket or a user.")
        return namespace, (self._prefix + entry.path).removeprefix("/")

    def _import_or_tell(self, entry: Entry, there: ManagedResource | None) -> None:
        try:
            self._import(entry, there)
        except ConditionFailed:
            self._count(kept=1)
        except Interrupted:
            raise
        except (BlobstoreError, OSError, SuspiciousOperation, tarfile.TarError) as error:
            if _is_general(error):
                raise
            self._count(failed=1)
            with self._own:
                self._on_failure(entry.path, error)
        self._count(files=1)
        self._show()

    def _import(self, entry: Entry, there: ManagedResource | None) -> None:
        if entry.fault:
            raise OSError(entry.fault)
        place = self._place_of(entry)
        check_path(place[1])
        if there and self._is_same(entry, there):
            self._describe(entry, there)
        elif there and self._keep:
            self._count(kept=1)
        elif self._dry_run:
            self._foresee(entry, place)
        else:
            self._put(entry, place)

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
        return self._read(entry).sha384 == there.resource.sha384

    def _describe(self, entry: Entry, there: ManagedResource) -> None:
        """Have the object that is `there` be described as in the source, if that says anything."""
        said = (entry.content_type, entry.metadata)
        if not self._dry_run and entry.metadata is not None and said != (there.content_type, there.metadata):
            self._store.describe(there.namespace, there.path, content_type=said[0], metadata=said[1])
        self._count(unchanged=1, bytes=there.resource.length)

    def _foresee(self, entry: Entry, place: Place) -> None:
        """Count what a put would come to."""
        sha384, length = (clean_hash(entry.sha384), entry.length) if entry.length >= 0 and entry.sha384 else ("", -1)
        if not sha384:
            reader = self._read(entry)
            sha384, length = reader.sha384, reader.length
        stored = is_stored(router.db_for_read(Resource), self._store.scope_of(place[0]), sha384)
        with self._own:
            is_new = self._seen.add(sha384)
            self._foreseen.add(*place, sha384, length)
        self._count_object(length, is_new=is_new and not stored)

    def _put(self, entry: Entry, place: Place) -> None:
        with self._opened(entry) as stream:
            managed = self._store.put(
                *place,
                stream,
                entry.length,
                check_hash=entry.sha384,
                content_type=entry.content_type,
                metadata=entry.metadata,
                condition=_require_free if self._keep else None,
            )
        with self._own:
            self._found[place] = managed
        self._count_object(managed.resource.length, is_new=managed.resource.reference_count == 1)

    def _read(self, entry: Entry) -> HashingReader:
        with self._opened(entry) as stream:
            reader = HashingReader(stream, algorithms=["sha384"])
            reader.drain()
        return reader

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[Passing]:
        with entry.open() as stream:
            passing = Passing(stream, self._pass)
            try:
                yield passing
            finally:
                # From here on they are among the bytes of the object, or nowhere.
                with self._own:
                    self.report.bytes_under_way -= passing.passed

    def _pass(self, length: int) -> None:
        self._count(bytes_under_way=length)
        self._show()
        self._crew.go_on()

    def _count_object(self, length: int, *, is_new: bool) -> None:
        if is_new:
            self._count(objects=1, bytes=length, new_contents=1)
        else:
            self._count(objects=1, bytes=length, shared_contents=1, saved_bytes=length)

    def _count(self, **more: int) -> None:
        with self._own:
            for name, number in more.items():
                setattr(self.report, name, getattr(self.report, name) + number)

    def _show(self) -> None:
        with self._own:
            self._on_progress(self.report)


def _require_free(found: ManagedResource | None) -> None:
    if found:
        raise ConditionFailed(found.path)


def _is_clean(path: str) -> bool:
    try:
        return bool(check_path(path))
    except InvalidPath:
        return False


def _is_general(error: Exception) -> bool:
    """Whether the next file would fail as well."""
    return isinstance(error, (ConnectionError, TimeoutError)) or getattr(error, "errno", None) == errno.ENOSPC
