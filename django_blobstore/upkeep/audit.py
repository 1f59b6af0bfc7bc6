"""How rows and files are compared, in both directions, while others go on changing them.

The path of a file is written by a `PendingFile`, then a `Resource`, then a `PendingFile` again, and never comes back.
Whoever looks for it in this order misses nothing, though each look is a query of its own. A count is compared with its
objects in one statement, which sees one moment. So no finding is due to what others do meanwhile; only those who
store files or take references without rows of ours need the age guard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from django.db import Error
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from django_blobstore import usage
from django_blobstore.catalog import ResourceCatalog, StoredFile
from django_blobstore.conf import conf
from django_blobstore.errors import BlobstoreError, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource, Usage
from django_blobstore.namespaces import Namespace
from django_blobstore.resource_storage import ResourceStorage, is_fresh_path
from django_blobstore.storages import inventory
from django_blobstore.upkeep.findings import Finding, Findings, Kind
from django_blobstore.upkeep.sweep import expunge

T = TypeVar("T")
M = TypeVar("M", bound=Model)

logger = logging.getLogger(__name__)

BATCH = 1000


@dataclass
class AuditReport:
    """How much an audit looked at, and what it found; `unread` says why a storage could not be asked, by its alias."""

    objects: int = 0
    contents: int = 0
    files: int = 0
    findings: Findings = field(default_factory=Findings)
    unread: dict[str, str] = field(default_factory=dict)


def audit(
    *,
    fix: bool = False,
    older_than: timedelta = timedelta(hours=1),
    outside_references: bool = False,
    on_finding: Callable[[Finding], object] | None = None,
    on_progress: Callable[[str, int, int], object] | None = None,
) -> AuditReport:
    """Compare objects with contents, contents with files, files with rows, and chunks with files.

    Nothing is changed unless `fix`: then wrong counts are set right, contents without objects go, files and chunks
    that no row names are deleted, and missing files are marked, to be healed by the next put. What is younger than
    `older_than` (at least the lease) is left alone, and so is any file whose name the store did not make.

    With `outside_references` some references are the caller's own, taken by `ResourceCatalog.put`: no count is then
    lowered. `on_finding` hears of each finding, `on_progress` of the stage, how much of it is done, and of how much.
    Memory does not grow with the store.
    """
    guard = max(older_than, timedelta(seconds=conf.LEASE))
    return _Audit(fix, timezone.now() - guard, outside_references, on_finding, on_progress).run()


class _Audit:
    def __init__(
        self,
        fix: bool,
        before: datetime,
        outside_references: bool,
        on_finding: Callable[[Finding], object] | None,
        on_progress: Callable[[str, int, int], object] | None,
    ) -> None:
        self._fix = fix
        self._before = before
        self._outside_references = outside_references
        self._on_finding = on_finding
        self._on_progress = on_progress
        self._report = AuditReport()
        self._catalog = ResourceCatalog()
        self._objects = ManagedResource.objects.using(self._catalog.using)
        self._resources = Resource.objects.using(self._catalog.using)
        self._pending = PendingFile.objects.using(self._catalog.using)

    def run(self) -> AuditReport:
        self._audit_objects()
        self._audit_contents()
        self._audit_totals()
        for alias in self._aliases():
            self._asking(alias, self._audit_files)
            self._asking(alias, self._audit_fragments)
        return self._report

    def _audit_objects(self) -> None:
        """Find objects whose resource is gone: the database forbids it, unless somebody switched that off."""
        self._report.objects = self._objects.count()
        resources = self._resources.filter(pk=OuterRef("resource_id"))
        for batch in _batches_of_rows(self._objects.filter(~Exists(resources))):
            for managed in batch:
                finding = Finding(Kind.OBJECT_WITHOUT_CONTENT, managed.path, 0, "", str(managed.namespace))
                self._found(finding, partial(self._drop, managed, resources))
        self._progress("objects", self._report.objects, self._report.objects)

    def _drop(self, managed: ManagedResource, resources: QuerySet[Resource]) -> bool:
        rows = self._objects.filter(~Exists(resources), pk=managed.pk, resource_id=managed.resource_id)
        # Django's own delete: there is no count to keep, only the totals.
        QuerySet.delete(rows)
        self._correct(managed.namespace)
        return True

    def _audit_contents(self) -> None:
        total = self._resources.count()
        twice = Exists(self._pending.filter(path=OuterRef("path")))
        for batch in _batches_of_rows(self._resources.with_object_count().annotate(is_pending=twice)):
            for resource in batch:
                self._check_count(resource)
            self._check_names([resource for resource in batch if resource.path])
            self._report.contents += len(batch)
            self._progress("contents", self._report.contents, total)

    def _audit_totals(self) -> None:
        using = self._catalog.using
        total = Bucket.objects.using(using).count()
        for done, namespace in enumerate(self._holders(), 1):
            missing = usage.drift(using, namespace)
            if any(missing):
                detail = ", ".join(f"{column} off by {-more:+d}" for column, more in missing._asdict().items() if more)
                finding = Finding(Kind.TOTALS_WRONG, str(namespace), 0, "", detail)
                self._found(finding, partial(self._correct, namespace))
            self._progress("totals", done, max(done, total))

    def _correct(self, namespace: Namespace) -> bool:
        return any(self._catalog.transact(partial(usage.correct, self._catalog.using, namespace)))

    def _holders(self) -> Iterator[Namespace]:
        """Yield each bucket, and each user who has or had something outside buckets."""
        for key in Bucket.objects.using(self._catalog.using).values_list("pk", flat=True).iterator(BATCH):
            yield Namespace(bucket=key)
        shares = Usage.objects.using(self._catalog.using).filter(bucket=None).values_list("user")
        for (user,) in self._objects.filter(bucket=None).values_list("user").union(shares).iterator(BATCH):
            yield Namespace(user=user)

    def _check_count(self, resource: Any) -> None:
        counted, actual = resource.reference_count, resource.object_count
        if counted == actual:
            return
        if counted > actual and (self._outside_references or resource.created_at >= self._before):
            return
        kind = Kind.COUNT_TOO_LOW if counted < actual else Kind.COUNT_TOO_HIGH
        if not actual:
            kind = Kind.CONTENT_WITHOUT_OBJECT
        detail = f"counts {counted} references, {actual} objects refer to it"
        self._found(_of(resource, kind, detail), partial(self._recount, resource))

    def _recount(self, resource: Resource) -> bool:
        try:
            recount = self._catalog.recount(resource.pk, lower=not self._outside_references)
        except ResourceNotFound:
            return True
        reach("audit.recounted")
        expunge(recount.discarded)
        return True

    def _check_names(self, resources: Sequence[Any]) -> None:
        for resource in resources:
            if resource.is_pending:
                finding = _of(resource, Kind.FILE_NAMED_TWICE, "a pending file names it too")
                self._found(finding, partial(self._keep_resource, resource))
            if resource.damaged_at:
                self._found(_of(resource, Kind.DAMAGED, "it was marked before; put the content again"))
        for alias in {resource.storage for resource in resources}.difference(self._report.unread):
            sound = [resource for resource in resources if resource.storage == alias and resource.is_sound]
            self._asking(alias, partial(self._check_lengths, sound))

    def _keep_resource(self, resource: Resource) -> bool:
        """Forget the pending file, whose deletion would take the file from the resource."""

        def forget() -> bool:
            rows = self._resources.select_for_update().filter(pk=resource.pk, path=resource.path)
            return bool(rows.first() and self._pending.filter(path=resource.path).delete())

        return self._catalog.transact(forget)

    def _check_lengths(self, resources: list[Resource], storage: ResourceStorage) -> None:
        lengths = inventory.lengths(storage.storage, [resource.path for resource in resources])
        suspects = {resource.pk: resource for resource in resources if lengths.get(resource.path) != resource.length}
        # A file goes only after its resource: what still has its row should have had its file.
        there = self._resources.filter(pk__in=suspects).values_list("pk", "path")
        for pk, path in there:
            if path == suspects[pk].path:
                self._found(*self._bad_file(suspects[pk], lengths.get(path)))

    def _bad_file(self, resource: Resource, length: int | None) -> tuple[Finding, Callable[[], bool]]:
        if length is None:
            finding = _of(resource, Kind.FILE_MISSING, "there is no such file")
        else:
            finding = _of(resource, Kind.FILE_OF_OTHER_LENGTH, f"it has {length} bytes instead of {resource.length}")
        return finding, partial(self._mark, resource, length is None)

    def _mark(self, resource: Resource, missing: bool) -> bool:
        """Mark it, which mends nothing: the next put of the content does."""
        self._catalog.mark_damaged(resource, missing=missing)
        return False

    def _aliases(self) -> list[str]:
        """Return every storage alias that a row speaks of, and that of new files."""
        aliases = {conf.STORAGE}
        for rows in (self._resources.exclude(path=""), self._pending):
            aliases.update(rows.order_by().values_list("storage", flat=True).distinct())
        return sorted(aliases.difference(self._report.unread))

    def _audit_files(self, storage: ResourceStorage) -> None:
        alias = storage.alias
        total = self._resources.filter(storage=alias).count() + self._pending.filter(storage=alias).count()
        done = 0
        for names in _batches(inventory.names(storage.storage)):
            self._check_strangers(storage, self._unnamed(names))
            done += len(names)
            self._report.files += len(names)
            self._progress(f"files of {alias}", done, max(done, total))

    def _unnamed(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that no row names, looking in the order in which a path moves."""
        unnamed = set(names)
        for rows in (self._pending, self._resources, self._pending):
            if unnamed:
                unnamed.difference_update(rows.filter(path__in=unnamed).values_list("path", flat=True))
        return sorted(unnamed)

    def _check_strangers(self, storage: ResourceStorage, names: list[str]) -> None:
        # Files deleted meanwhile, with their rows, have no length.
        for name, length in inventory.lengths(storage.storage, names).items() if names else ():
            if not is_fresh_path(name):
                self._found(Finding(Kind.FILE_NOT_OURS, name, length, storage.alias))
            elif self._is_old(inventory.modified(storage.storage, name)):
                file = StoredFile(storage.alias, name)
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

    def _audit_fragments(self, storage: ResourceStorage) -> None:
        for batch in inventory.fragments(storage.storage):
            old = {str(fragment.id): fragment for fragment in batch if self._is_old(fragment.modified_at)}
            named = self._named_fragments(old.keys())
            for id, fragment in old.items():
                if id not in named:
                    finding = Finding(Kind.CHUNKS_WITHOUT_FILE, id, fragment.length, storage.alias)
                    self._found(finding, partial(self._delete_fragments, storage, fragment.id))
            self._progress(f"chunks of {storage.alias}", 0, 0)

    def _named_fragments(self, wanted: Set[str]) -> set[str]:
        """Return those that belong to a file which a row names: it arrives, is being deleted, or can be restored."""
        named: set[str] = set()
        if wanted:
            rows: Iterator[list[Any]] = chain(_batches_of_rows(self._pending), _batches_of_rows(self._resources))
            for paths in ([row.path for row in batch] for batch in rows):
                named.update(wanted & set(map(inventory.fragment_id, paths)))
        return named

    def _delete_fragments(self, storage: ResourceStorage, id: Any) -> bool:
        deleted = inventory.delete_fragments(storage.storage, id)
        reach("audit.chunks_deleted")
        return deleted

    def _is_old(self, modified_at: datetime | None) -> bool:
        return modified_at is not None and modified_at < self._before

    def _asking(self, alias: str, work: Callable[[ResourceStorage], None]) -> None:
        """Do `work` on the storage `alias`; if that fails, note why and ask it no more."""
        if alias in self._report.unread:
            return
        try:
            work(ResourceStorage(alias))
        except (Error, BlobstoreError):
            raise
        except Exception as error:
            # A storage may raise anything.
            logger.exception("Storage %r could not be audited.", alias)
            self._report.unread[alias] = str(error) or type(error).__name__

    def _found(self, finding: Finding, mend: Callable[[], bool] | None = None) -> None:
        if self._fix and mend and mend():
            finding = replace(finding, fixed=True)
        self._report.findings.add(finding)
        if self._on_finding:
            self._on_finding(finding)

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._on_progress:
            self._on_progress(stage, done, total)


def _of(resource: Resource, kind: Kind, detail: str) -> Finding:
    where = f"{resource.path}: " if resource.path else ""
    return Finding(kind, resource.sha384, resource.length, resource.storage, f"{where}{detail}")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch


def _batches_of_rows(rows: QuerySet[M]) -> Iterator[list[M]]:
    """Yield the rows by primary key, each batch by a query of its own."""
    ordered, after = rows.order_by("pk"), Q()
    while batch := list(ordered.filter(after)[:BATCH]):
        yield batch
        after = Q(pk__gt=batch[-1].pk)
