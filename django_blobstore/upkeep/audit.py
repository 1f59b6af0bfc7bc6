"""How rows and files are compared, in both directions, while others go on changing them.

The path of a file is written by a `PendingFile`, then a `Resource`, then a `PendingFile` again, and never comes back.
Whoever looks for it in this order misses nothing, though each look is a query of its own. A count is compared with its
objects in one statement, which sees one moment. So no finding is due to what others do meanwhile; only those who
store files or take references without rows of ours need the age guard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

from django.db import Error
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.utils import timezone

from django_blobstore import usage
from django_blobstore.catalog import ResourceCatalog
from django_blobstore.conf import conf
from django_blobstore.errors import BlobstoreError, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource, UpkeepRun, Usage
from django_blobstore.namespaces import Namespace
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.storages import inventory
from django_blobstore.tracing import traced
from django_blobstore.upkeep.findings import Finding, Findings, Kind
from django_blobstore.upkeep.runs import Origin, Record, recorded
from django_blobstore.upkeep.strangers import Strangers
from django_blobstore.upkeep.sweep import expunge

M = TypeVar("M", bound=Model)

logger = logging.getLogger(__name__)

BATCH = 1000
STAGES = ("objects", "contents", "totals", "files", "chunks")


@dataclass
class AuditReport:
    """How much an audit looked at, and what it found; `unread` says why a storage could not be asked, by its alias."""

    objects: int = 0
    contents: int = 0
    files: int = 0
    findings: Findings = field(default_factory=Findings)
    unread: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return what the row of the run keeps."""
        looked_at = {"objects": self.objects, "contents": self.contents, "files": self.files}
        return {**looked_at, **self.findings.figures(), "unread": self.unread}

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> AuditReport:
        """Return the report whose figures these are, without the findings themselves."""
        looked_at = {name: figures.get(name, 0) for name in ("objects", "contents", "files")}
        return cls(**looked_at, findings=Findings.of(figures.get("kinds", {})), unread=dict(figures.get("unread", {})))


class Position(NamedTuple):
    """Where an audit is: in which stage, of which storage, and after what."""

    stage: str = STAGES[0]
    alias: str = ""
    after: Any = None

    @property
    def order(self) -> tuple[int, str, int]:
        """What sorts positions as an audit comes to them: the last two stages are those of one storage each time."""
        number = STAGES.index(self.stage)
        return min(number, STAGES.index("files")), self.alias, number


@traced
def audit(
    *,
    fix: bool = False,
    older_than: timedelta = timedelta(hours=1),
    outside_references: bool = False,
    also: Collection[str] = (),
    origin: str = Origin.TASK,
    on_finding: Callable[[Finding], object] | None = None,
    on_progress: Callable[[str, int, int], object] | None = None,
) -> AuditReport:
    """Compare objects with contents, contents with files, files with rows, and chunks with files.

    Nothing is changed unless `fix`: then wrong counts are set right, contents without objects go, files and chunks
    that no row names are deleted, and missing files are marked, to be healed by the next put. What is younger than
    `older_than` (at least the lease) is left alone, and so is any file whose name the store did not make.

    With `outside_references` some references are the caller's own, taken by `ResourceCatalog.put`: no count is then
    lowered. The storages looked at are those that rows speak of, that of new files, and those whose aliases are in
    `also`. `on_finding` hears of each finding, `on_progress` of the stage, how much of it is done, and of how much.
    Memory does not grow with the store. `origin` says in the row of the run who began it.
    """
    report = AuditReport()
    with recorded(UpkeepRun.Kind.AUDIT, origin) as record:
        for _ in auditing(
            report,
            record,
            fix=fix,
            older_than=older_than,
            outside_references=outside_references,
            also=also,
            on_finding=on_finding,
            on_progress=on_progress,
        ):
            record.run.figures = report.figures()
        record.run.figures = report.figures()
    return report


def auditing(
    report: AuditReport,
    record: Record,
    *,
    fix: bool = False,
    older_than: timedelta = timedelta(hours=1),
    outside_references: bool = False,
    also: Collection[str] = (),
    on_finding: Callable[[Finding], object] | None = None,
    on_progress: Callable[[str, int, int], object] | None = None,
    position: Position | None = None,
) -> Iterator[Position]:
    """Audit, and yield after each batch the `position` from which, with the same report, another call goes on."""

    def tell(finding: Finding) -> None:
        record.tell(finding)
        if on_finding:
            on_finding(finding)

    def show(stage: str, done: int, total: int) -> None:
        record.show(stage, done, total)
        if on_progress:
            on_progress(stage, done, total)

    before = timezone.now() - max(older_than, timedelta(seconds=conf.LEASE))
    return _Audit(report, fix, before, outside_references, also, tell, show).run(position or Position())


class _Audit:
    def __init__(
        self,
        report: AuditReport,
        fix: bool,
        before: datetime,
        outside_references: bool,
        also: Collection[str],
        on_finding: Callable[[Finding], object],
        on_progress: Callable[[str, int, int], object],
    ) -> None:
        self._report = report
        self._fix = fix
        self._before = before
        self._outside_references = outside_references
        self._also = also
        self._on_finding = on_finding
        self._progress = on_progress
        self._catalog = ResourceCatalog()
        self._objects = ManagedResource.objects.using(self._catalog.using)
        self._resources = Resource.objects.using(self._catalog.using)
        self._pending = PendingFile.objects.using(self._catalog.using)

    def run(self, position: Position) -> Iterator[Position]:
        work: dict[str, Callable[[str, Any], Iterator[Any]]] = {
            "objects": self._audit_objects,
            "contents": self._audit_contents,
            "totals": self._audit_totals,
            "files": self._audit_files,
            "chunks": self._audit_fragments,
        }
        for here in self._positions():
            if here.order >= position.order:
                begin = position.after if here.order == position.order else None
                for after in work[here.stage](here.alias, begin):
                    yield here._replace(after=after)

    def _positions(self) -> Iterator[Position]:
        yield from (Position(stage) for stage in STAGES[:3])
        yield from (Position(stage, alias) for alias in self._aliases() for stage in STAGES[3:])

    def _audit_objects(self, alias: str, is_done: bool | None) -> Iterator[bool]:
        """Find objects whose resource is gone: the database forbids it, unless somebody switched that off."""
        if is_done:
            return
        self._report.objects = self._objects.count()
        resources = self._resources.filter(pk=OuterRef("resource_id"))
        for batch in _batches_of_rows(self._objects.filter(~Exists(resources))):
            for managed in batch:
                finding = Finding(Kind.OBJECT_WITHOUT_CONTENT, managed.path, 0, "", str(managed.namespace))
                self._found(finding, partial(self._drop, managed, resources))
        self._progress("objects", self._report.objects, self._report.objects)
        yield True

    def _drop(self, managed: ManagedResource, resources: QuerySet[Resource]) -> bool:
        rows = self._objects.filter(~Exists(resources), pk=managed.pk, resource_id=managed.resource_id)
        # Django's own delete: there is no count to keep, only the totals.
        QuerySet.delete(rows)
        self._correct(managed.namespace)
        return True

    def _audit_contents(self, alias: str, after: int | None) -> Iterator[int]:
        total = self._resources.count()
        twice = Exists(self._pending.filter(path=OuterRef("path")))
        rows = self._resources.with_object_count().annotate(is_pending=twice)
        for batch in _batches_of_rows(rows if after is None else rows.filter(pk__gt=after)):
            for resource in batch:
                self._check_count(resource)
            self._check_names([resource for resource in batch if resource.path])
            self._report.contents += len(batch)
            self._progress("contents", self._report.contents, total)
            yield batch[-1].pk

    def _audit_totals(self, alias: str, after: Sequence[Any] | None) -> Iterator[Sequence[Any]]:
        using = self._catalog.using
        total = Bucket.objects.using(using).count()
        bucket, user, first = after or ("", None, 0)
        for done, namespace in enumerate(self._holders(bucket, user), first + 1):
            missing = usage.drift(using, namespace)
            if any(missing):
                detail = ", ".join(f"{column} off by {-more:+d}" for column, more in missing._asdict().items() if more)
                finding = Finding(Kind.TOTALS_WRONG, str(namespace), 0, "", detail)
                self._found(finding, partial(self._correct, namespace))
            self._progress("totals", done, max(done, total))
            yield str(namespace.bucket_id or ""), None if namespace.bucket_id else namespace.user, done

    def _correct(self, namespace: Namespace) -> bool:
        return any(self._catalog.transact(partial(usage.correct, self._catalog.using, namespace)))

    def _holders(self, bucket: str, user: str | None) -> Iterator[Namespace]:
        """Yield each bucket after `bucket`, and each user after `user` who has or had something outside buckets."""
        if user is None:
            buckets = Bucket.objects.using(self._catalog.using).order_by("pk")
            later = buckets.filter(pk__gt=bucket) if bucket else buckets
            for key in later.values_list("pk", flat=True).iterator(BATCH):
                yield Namespace(bucket=key)
        shares = Usage.objects.using(self._catalog.using).filter(bucket=None)
        users = [rows.values_list("user") for rows in (self._objects.filter(bucket=None), shares)]
        if user is not None:
            users = [rows.filter(user__gt=user) for rows in users]
        for (name,) in users[0].order_by().union(users[1]).order_by("user").iterator(BATCH):
            yield Namespace(user=name)

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
            with self._asking(alias):
                self._check_lengths(sound, ResourceStorage(alias))

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
        """Return every storage alias that a row speaks of, that of new files, and what else was asked for."""
        aliases = {conf.STORAGE, *self._also}
        for rows in (self._resources.exclude(path=""), self._pending):
            aliases.update(rows.order_by().values_list("storage", flat=True).distinct())
        return sorted(aliases)

    def _audit_files(self, alias: str, after: Sequence[Any] | None) -> Iterator[Sequence[Any]]:
        total = self._count_files(alias)
        begin, done = after or ("", 0)
        with self._asking(alias):
            for place, number in self._strangers(alias).among_files(begin):
                done += number
                self._report.files += number
                self._progress(f"files of {alias}", done, max(done, total))
                yield place, done

    def _audit_fragments(self, alias: str, after: Sequence[Any] | None) -> Iterator[Sequence[Any]]:
        if alias in self._report.unread:
            return
        total = self._count_files(alias)
        begin, done = after or ("", 0)
        with self._asking(alias):
            for place, number in self._strangers(alias).among_chunks(begin):
                done += number
                self._progress(f"chunks of {alias}", done, max(done, total))
                yield place, done

    def _strangers(self, alias: str) -> Strangers:
        return Strangers(self._catalog, ResourceStorage(alias), self._before, self._found)

    def _count_files(self, alias: str) -> int:
        return self._resources.filter(storage=alias).count() + self._pending.filter(storage=alias).count()

    @contextmanager
    def _asking(self, alias: str) -> Iterator[None]:
        """Ask the storage `alias`; if that fails, note why. It is asked no more then."""
        try:
            yield
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
        self._on_finding(finding)


def _of(resource: Resource, kind: Kind, detail: str) -> Finding:
    where = f"{resource.path}: " if resource.path else ""
    return Finding(kind, resource.sha384, resource.length, resource.storage, f"{where}{detail}")


def _batches_of_rows(rows: QuerySet[M]) -> Iterator[list[M]]:
    """Yield the rows by primary key, each batch by a query of its own."""
    ordered, after = rows.order_by("pk"), Q()
    while batch := list(ordered.filter(after)[:BATCH]):
        yield batch
        after = Q(pk__gt=batch[-1].pk)
