"""Which files and chunks in a storage no row names, and which of those may be deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from django_blobstore.catalog import ResourceCatalog, StoredFile
from django_blobstore.descriptions import UNKEPT
from django_blobstore.failpoints import reach
from django_blobstore.models import PendingFile, Resource
from django_blobstore.resource_storage import ResourceStorage, is_fresh_path
from django_blobstore.storages import inventory
from django_blobstore.uncommitted import is_note
from django_blobstore.upkeep.findings import Finding, Kind
from django_blobstore.upkeep.sweep import expunge

T = TypeVar("T")

BATCH = 1000
BATCH_OF_PATHS = 10_000


class Strangers:
    """Looks for what no row names in one storage, and has each `found` with what would mend it, which is to delete it.

    What was written after `before`, or by others, may not be deleted.
    """

    def __init__(
        self,
        catalog: ResourceCatalog,
        storage: ResourceStorage,
        before: datetime,
        found: Callable[[Finding, Callable[[], bool] | None], object],
    ) -> None:
        self._catalog = catalog
        self._storage = storage
        self._before = before
        self._found = found
        self._resources = Resource.objects.using(catalog.using)
        self._pending = PendingFile.objects.using(catalog.using)

    def among_files(self, place: str) -> Iterator[tuple[str, int]]:
        """Look at the files after `place`, and yield after each batch where the next one begins and how many it had."""
        for names in _batches(inventory.names(self._storage.storage, after=place)):
            self._check_files(self._unnamed(names))
            place = next((name for name in reversed(names) if not UNKEPT.search(name)), place)
            yield place, len(names)

    def among_chunks(self, place: str) -> Iterator[tuple[str, int]]:
        """Look in the same way at chunks without a file, in the order of their ids, which may be anything."""
        for batch in inventory.fragments(self._storage.storage, place=place):
            self._check_fragments(batch.fragments)
            yield batch.place, batch.files

    def _unnamed(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that no row names, looking in the order in which a path moves.

        Whatever storage the row says: two aliases may be of the same files.
        """
        # A file may be called so, in a directory or in GridFS, but no row can say it.
        unspeakable = set(filter(UNKEPT.search, names))
        unnamed = set(names) - unspeakable
        for rows in (self._pending, self._resources, self._pending):
            if unnamed:
                unnamed.difference_update(rows.filter(path__in=unnamed).values_list("path", flat=True))
        return sorted(unnamed | unspeakable)

    def _check_files(self, names: list[str]) -> None:
        # Files deleted meanwhile, with their rows, have no length.
        for name, length in inventory.lengths(self._storage.storage, names).items() if names else ():
            if is_note(name):
                continue
            if not is_fresh_path(name):
                self._found(Finding(Kind.FILE_NOT_OURS, _escaped(name), length, self._storage.alias), None)
            elif self._is_old(inventory.modified(self._storage.storage, name)):
                file = StoredFile(self._storage.alias, name)
                self._found(Finding(Kind.FILE_WITHOUT_ROW, name, length, file.storage), partial(self._delete, file))

    def _delete(self, file: StoredFile) -> bool:
        if not self._catalog.transact(partial(self._adopt, file)):
            return False
        reach("audit.adopted")
        expunge([file])
        return True

    def _adopt(self, file: StoredFile) -> bool:
        """Name the file by a row that lets it be deleted, unless a row names it by now."""
        due = {"storage": file.storage, "discard": True, "due_at": Now()}
        row, is_ours = self._pending.get_or_create(path=file.path, defaults=due)
        if is_ours and self._resources.filter(path=file.path).exists():
            row.delete()
            return False
        return is_ours

    def _check_fragments(self, batch: Sequence[inventory.Fragment]) -> None:
        old = {str(fragment.id): fragment for fragment in batch if self._is_old(fragment.modified_at)}
        named = self._named_fragments(old.keys())
        for id, fragment in old.items():
            if id not in named:
                finding = Finding(Kind.CHUNKS_WITHOUT_FILE, id, fragment.length, self._storage.alias)
                self._found(finding, partial(self._delete_fragments, fragment.id))

    def _named_fragments(self, wanted: Set[str]) -> set[str]:
        """Return those that belong to a file which a row names: it arrives, is being deleted, or can be restored."""
        named: set[str] = set()
        if wanted:
            for paths in chain(_batches_of_paths(self._pending), _batches_of_paths(self._resources)):
                named.update(wanted & set(map(inventory.fragment_id, paths)))
        return named

    def _delete_fragments(self, id: Any) -> bool:
        deleted = inventory.delete_fragments(self._storage.storage, id)
        reach("audit.chunks_deleted")
        return deleted

    def _is_old(self, modified_at: datetime | None) -> bool:
        return modified_at is not None and modified_at < self._before


def _escaped(name: str) -> str:
    return name.encode(errors="backslashreplace").decode().replace("\0", r"\x00")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _batches_of_paths(rows: QuerySet[Any]) -> Iterator[list[str]]:
    """Yield the paths of the rows, which an index has in order, each batch by a query of its own."""
    paths, after = rows.exclude(path="").order_by("path").values_list("path", flat=True), Q()
    while batch := list(paths.filter(after)[:BATCH_OF_PATHS]):
        yield batch
        after = Q(path__gt=batch[-1])
