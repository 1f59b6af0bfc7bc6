"""How contents change their storage while the site runs: copied, verified, switched, and only then deleted.

The catalog is all the memory there is: what lies in the source is to be moved still. A copy under way is named by a
`PendingFile` with a lease, as an upload is, and no lock is held while bytes flow. So a move may be killed anywhere and
begun again, and several at once only do some of the work twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, NoReturn, TypeVar

from django.core.files.storage import storages
from django.db import Error
from django.db.models import Count, Max, Sum

from django_blobstore import uncommitted
from django_blobstore.arrival import Arrival
from django_blobstore.blob_storage import BlobStorage
from django_blobstore.catalog import ResourceCatalog, StoredFile
from django_blobstore.crew import Crew
from django_blobstore.digests import HashingReader
from django_blobstore.errors import BlobstoreError, CatalogBusy, ContentError, LeaseLost, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import PendingFile, Resource, ResourceQuerySet, UpkeepRun
from django_blobstore.passing import Passing
from django_blobstore.resource_storage import ResourceStorage, StorageRenamed
from django_blobstore.tracing import traced
from django_blobstore.upkeep import Finding, Findings, Kind, expunge_quietly, verify
from django_blobstore.upkeep.runs import Origin, Record, recorded

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 500
WORKERS = 4
# So many contents in a row that cannot be copied mean that it is not their fault.
PATIENCE = 3


@dataclass
class MoveReport:
    """What a move came to. `total` contents with `total_bytes` were to be moved when it began.

    Of these `overtaken` were removed, or got another file, before it came to them; `findings` tells what could not be
    moved. Each byte passes twice, copied and read back: `passed_bytes` have. `left` is how many contents there are in
    the source at the end that should have gone, and `pending_files` how many files there arrive, or wait to be deleted.
    `stopped` says why the rest was not tried, if it was not.
    """

    total: int = 0
    total_bytes: int = 0
    moved: int = 0
    moved_bytes: int = 0
    passed_bytes: int = 0
    overtaken: int = 0
    left: int = 0
    pending_files: int = 0
    stopped: str = ""
    findings: Findings = field(default_factory=Findings)

    @property
    def done(self) -> int:
        """How many contents it has come to."""
        return self.moved + self.overtaken + self.findings.count(*Kind)

    def figures(self) -> dict[str, Any]:
        """Return what the row of the run keeps."""
        told = ("moved", "moved_bytes", "overtaken")
        return {name: getattr(self, name) for name in told} | self.findings.figures() | {"in_source": self.left}


@traced
def move_contents(
    source: str,
    target: str,
    *,
    among: ResourceQuerySet | None = None,
    limit: int | None = None,
    workers: int = WORKERS,
    dry_run: bool = False,
    origin: str = Origin.TASK,
    on_finding: Callable[[Finding], object] | None = None,
    on_progress: Callable[[MoveReport], object] | None = None,
) -> MoveReport:
    """Move the contents in the storage with the alias `source` to that with the alias `target`, `workers` at a time.

    Only those `among` are moved, if that is given, and at most `limit`; what comes to the source meanwhile is not. Each
    is read back and compared before it is switched; the old file is deleted after `DELETION_GRACE` by a sweep. What is
    damaged or missing is marked and stays where it is. `on_finding` hears of each content that could not be moved,
    `on_progress` is called with the report so far, while bytes pass and after each; both by one thread at a time. With
    `dry_run` the contents are counted and nothing is changed. `origin` says in the row of the run who began it. Raises
    `ValueError` if the aliases will not do.
    """
    _check_aliases(source, target)
    contents = Resource.objects.all() if among is None else among
    contents = contents.using(ResourceCatalog().using).filter(storage=source).exclude(path="").order_by("pk")
    totals = contents[:limit].aggregate(contents=Count("pk"), bytes=Sum("length"), last=Max("pk"))
    report = MoveReport(totals["contents"], totals["bytes"] or 0)
    if dry_run:
        _count_left(report, contents, source)
        return report
    with recorded(UpkeepRun.Kind.MOVE, origin, source=source, target=target) as record:
        if report.total:
            waiting = _waiting(contents.filter(pk__lte=totals["last"]))
            _Move(report, waiting, target, record, on_finding, on_progress).run(workers)
        uncommitted.clear(contents.db, source)
        _count_left(report, contents, source)
        record.run.figures = report.figures()
    return report


def _count_left(report: MoveReport, contents: ResourceQuerySet, source: str) -> None:
    report.left = contents.count()
    report.pending_files = PendingFile.objects.using(contents.db).filter(storage=source).count()


def _check_aliases(source: str, target: str) -> None:
    for alias in (source, target):
        if alias not in storages.backends:
            known = ", ".join(map(repr, storages.backends))
            raise ValueError(f"STORAGES has no alias {alias!r}; there are {known}.")
    if source == target:
        raise ValueError(f"Source and target are both {source!r}; name two storages.")
    if isinstance(storages[target], BlobStorage):
        raise ValueError(f"STORAGES[{target!r}] is a BlobStorage, which keeps no bytes; name the storage behind it.")


def _waiting(contents: ResourceQuerySet) -> Iterator[Resource]:
    after = 0
    while batch := list(contents.filter(pk__gt=after)[:BATCH]):
        yield from batch
        after = batch[-1].pk


class _Unmoved(Exception):
    """A content stays where it is."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


class _BadCopy(BlobstoreError):
    """The target gives out other bytes than it was given."""


class _Unreadable(Exception):
    """The source did not give out the bytes; the cause is its error."""


class _Original:
    """The bytes to be copied, whose errors can be told from those of the storage that they are written to."""

    def __init__(self, resource: Resource) -> None:
        source = ResourceStorage(resource.storage)
        self._file = self._tried(partial(source.get, resource.path, resource.length))

    def read(self, size: int, /) -> bytes:
        block: bytes = self._tried(partial(self._file.read, size))
        return block

    def close(self) -> None:
        self._file.close()

    def _tried(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except (Error, BlobstoreError):
            raise
        except Exception as error:
            # A storage may raise anything.
            raise _Unreadable from error


class _Move:
    def __init__(
        self,
        report: MoveReport,
        waiting: Iterator[Resource],
        target: str,
        record: Record,
        on_finding: Callable[[Finding], object] | None,
        on_progress: Callable[[MoveReport], object] | None,
    ) -> None:
        self._report = report
        self._waiting = waiting
        self._target = ResourceStorage(target)
        self._record = record
        self._on_finding = on_finding
        self._on_progress = on_progress
        self._catalog = ResourceCatalog()
        self._failures = 0
        self._crew = Crew()
        self._lock = Lock()

    def run(self, workers: int) -> None:
        self._crew.run(self._work, workers, name="blobstore-move")

    def _work(self) -> None:
        while resource := self._take():
            self._move_or_tell(resource)

    def _take(self) -> Resource | None:
        with self._lock:
            return None if self._crew.is_over else next(self._waiting, None)

    def _move_or_tell(self, resource: Resource) -> None:
        try:
            self._move(resource)
        except ResourceNotFound:
            with self._lock:
                self._report.overtaken += 1
                self._show()
        except _Unmoved as obstacle:
            with self._lock:
                self._note(obstacle.finding)
                self._show()
        else:
            with self._lock:
                self._failures = 0
                self._report.moved += 1
                self._report.moved_bytes += resource.length
                self._show()

    def _note(self, finding: Finding) -> None:
        self._report.findings.add(finding)
        self._record.tell(finding)
        if self._on_finding:
            self._on_finding(finding)
        self._failures = self._failures + 1 if finding.kind in (Kind.NOT_COPIED, Kind.UNREAD) else 0
        if self._failures == PATIENCE:
            self._report.stopped = finding.detail
            self._crew.end()

    def _show(self) -> None:
        self._record.run.figures = self._report.figures()
        self._record.show("contents", self._report.done, self._report.total)
        if self._on_progress:
            self._on_progress(self._report)

    def _move(self, resource: Resource) -> None:
        """Move it. Raises `ResourceNotFound` if it is not there any more, and `_Unmoved`."""
        try:
            self._copy_and_switch(resource)
        except (ContentError, _Unreadable) as error:
            self._examine(resource, error)
        except (LeaseLost, CatalogBusy, StorageRenamed, _BadCopy) as error:
            raise self._unmoved(resource, Kind.NOT_COPIED, error) from error
        except (Error, BlobstoreError):
            raise
        except Exception as error:
            logger.exception("Resource %s could not be copied to storage %r.", resource.pk, self._target.alias)
            raise self._unmoved(resource, Kind.NOT_COPIED, error) from error

    def _copy_and_switch(self, resource: Resource) -> None:
        self._require(resource)
        with Arrival(self._catalog.using, self._target.alias) as arrival:
            go_on = partial(self._go_on, arrival)
            with closing(_Original(resource)) as original:
                reader = HashingReader(Passing(original, go_on), resource.length, algorithms=["sha384"])
                arrival.write(self._target, reader)
            reader.check({"sha384": resource.sha384})
            reach("moving.copied")
            self._read_back(resource, arrival.file, go_on)
            reach("moving.verified")
            discarded = self._catalog.relocate(resource, arrival.file)
        reach("moving.switched")
        if discarded:
            expunge_quietly(discarded)

    def _require(self, resource: Resource) -> None:
        """Raise `ResourceNotFound` unless it has the file still that it had when it was looked up."""
        if not Resource.objects.using(self._catalog.using).filter(pk=resource.pk, path=resource.path).exists():
            raise ResourceNotFound(resource.sha384, "it was removed, or has another file by now")

    def _go_on(self, arrival: Arrival, length: int) -> None:
        self._crew.go_on()
        arrival.renew()
        with self._lock:
            self._report.passed_bytes += length
            self._show()

    def _show_sign(self, length: int) -> None:
        self._crew.go_on()
        with self._lock:
            self._show()

    def _read_back(self, resource: Resource, file: StoredFile, go_on: Callable[[int], object]) -> None:
        with self._target.get(file.path) as copy:
            reader = HashingReader(Passing(copy, go_on), algorithms=["sha384"])
            reader.drain()
        if (reader.length, reader.sha384) != (resource.length, resource.sha384):
            raise _BadCopy(f"the copy has {reader.length} bytes with the SHA-384 {reader.sha384}")

    def _examine(self, resource: Resource, error: Exception) -> NoReturn:
        """Say why it could not be read, and mark it if it is damaged or missing."""
        finding = verify(resource, on_read=self._show_sign)
        if finding:
            raise _Unmoved(finding) from error
        self._require(resource)
        raise self._unmoved(resource, Kind.UNREAD, error.__cause__ or error) from error

    def _unmoved(self, resource: Resource, kind: Kind, error: BaseException) -> _Unmoved:
        detail = str(error) or type(error).__name__
        return _Unmoved(Finding(kind, resource.sha384, resource.length, resource.storage, f"{resource.path}: {detail}"))
