"""How stored bytes are read again and compared with their hash, those least recently compared first."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import Error
from django.db.models import Max, Q
from django.utils import timezone

from django_blobstore.catalog import ResourceCatalog
from django_blobstore.digests import HashingReader
from django_blobstore.errors import BlobstoreError
from django_blobstore.failpoints import reach
from django_blobstore.models import Resource, ResourceQuerySet, UpkeepRun
from django_blobstore.resource_storage import BLOCK_SIZE, ResourceStorage
from django_blobstore.storages.hooks import DamagedFile
from django_blobstore.tracing import traced
from django_blobstore.upkeep.findings import Finding, Findings, Kind
from django_blobstore.upkeep.runs import Origin, recorded

logger = logging.getLogger(__name__)

BATCH = 100
# A storage that did not answer this often in a row is not asked again by the same scrub.
PATIENCE = 3


@dataclass
class ScrubReport:
    """What a scrub read; `total` is how many contents it was to compare, `unmarked` how many were wrongly marked.

    Of the content that is being read `bytes_under_way` have been.
    """

    total: int = 0
    compared: int = 0
    compared_bytes: int = 0
    unmarked: int = 0
    bytes_under_way: int = 0
    findings: Findings = field(default_factory=Findings)

    @property
    def damaged(self) -> int:
        """How many contents have other bytes than they should."""
        return self.findings.count(Kind.FILE_OF_OTHER_HASH, Kind.FILE_OF_OTHER_LENGTH)

    @property
    def missing(self) -> int:
        """How many contents have no file."""
        return self.findings.count(Kind.FILE_MISSING)

    @property
    def unread(self) -> int:
        """How many contents their storage would not give out, which says nothing of them."""
        return self.findings.count(Kind.UNREAD)

    def figures(self) -> dict[str, Any]:
        """Return what the row of the run keeps."""
        told = ("total", "compared", "compared_bytes", "unmarked", "damaged", "missing", "unread")
        return {name: getattr(self, name) for name in told}


@traced
def scrub(
    *,
    percent: float = 100,
    max_duration: timedelta | None = None,
    origin: str = Origin.TASK,
    on_finding: Callable[[Finding], object] | None = None,
    on_progress: Callable[[ScrubReport], object] | None = None,
) -> ScrubReport:
    """Read `percent` of the contents, the least recently compared first, and mark what is damaged or missing.

    A later scrub goes on where this one stopped, was killed, or reached `max_duration`; a file once begun is read to
    its end. A wrong mark is taken away. `on_finding` hears of each content that is not sound, `on_progress` is called
    with the report so far, while bytes pass and after each content. `origin` says in the row of the run who began it.
    """
    with recorded(UpkeepRun.Kind.SCRUB, origin) as record:

        def tell(finding: Finding) -> None:
            record.tell(finding)
            if on_finding:
                on_finding(finding)

        def show(report: ScrubReport) -> None:
            record.run.figures = report.figures()
            record.show("contents", report.compared, report.total)
            if on_progress:
                on_progress(report)

        report = _Scrub(percent, max_duration, tell, show).run()
        record.run.figures = report.figures()
    return report


def verify(resource: Resource, *, on_read: Callable[[int], object] | None = None) -> Finding | None:
    """Read the bytes of `resource`, mark what comes out, and return what is wrong with them, if anything.

    None, too, if it was removed or got other bytes meanwhile. `on_read` hears how many bytes each read gave; what it
    raises ends the reading, and nothing is marked.
    """
    examination = _Examination(resource)
    with closing(examination.reads()) as reads:
        for length in reads:
            if on_read:
                on_read(length)
    finding = examination.finding
    reach("scrub.read")
    catalog = ResourceCatalog()
    if finding is None:
        catalog.mark_verified(resource)
    elif finding.kind is not Kind.UNREAD and not catalog.mark_damaged(resource, missing=_is_missing(finding)):
        finding = None
    reach("scrub.marked")
    return finding


class _Scrub:
    def __init__(
        self,
        percent: float,
        max_duration: timedelta | None,
        on_finding: Callable[[Finding], object] | None,
        on_progress: Callable[[ScrubReport], object] | None,
    ) -> None:
        resources = Resource.objects.using(ResourceCatalog().using).exclude(path="")
        self._resources: ResourceQuerySet = resources
        self._deadline = math.inf if max_duration is None else time.monotonic() + max_duration.total_seconds()
        self._report = ScrubReport(total=math.ceil(resources.count() * percent / 100))
        self._on_finding = on_finding
        self._on_progress = on_progress
        self._failures: dict[str, int] = {}

    def run(self) -> ScrubReport:
        for resource in self._oldest_first():
            if self._report.compared >= self._report.total or time.monotonic() >= self._deadline:
                break
            self._take(resource)
            self._show()
        return self._report

    def _oldest_first(self) -> Iterator[Resource]:
        """Yield what was there when we began: never compared first, then by age; nothing that we did ourselves."""
        began = timezone.now()
        newest = self._resources.aggregate(pk=Max("pk"))["pk"] or 0
        never = self._resources.filter(verified_at=None, pk__lte=newest).order_by("pk")
        after = Q()
        while batch := list(never.filter(after)[:BATCH]):
            yield from batch
            after = Q(pk__gt=batch[-1].pk)
        before = self._resources.filter(verified_at__lt=began).order_by("verified_at", "pk")
        after = Q()
        while batch := list(before.filter(after)[:BATCH]):
            yield from batch
            at, pk = batch[-1].verified_at, batch[-1].pk
            after = Q(verified_at__gte=at) & (Q(verified_at__gt=at) | Q(pk__gt=pk))

    def _take(self, resource: Resource) -> None:
        if self._failures.get(resource.storage, 0) >= PATIENCE:
            finding: Finding | None = _finding(resource, Kind.UNREAD, "its storage did not answer before")
        else:
            was_marked = resource.damaged_at is not None
            finding = self._verify(resource)
            self._report.unmarked += was_marked and finding is None
        if finding and finding.kind is Kind.UNREAD:
            self._failures[resource.storage] = self._failures.get(resource.storage, 0) + 1
        else:
            self._failures[resource.storage] = 0
            self._report.compared += 1
            self._report.compared_bytes += resource.length
        if finding:
            self._report.findings.add(finding)
            if self._on_finding:
                self._on_finding(finding)

    def _verify(self, resource: Resource) -> Finding | None:
        try:
            return verify(resource, on_read=self._pass)
        finally:
            # From here on they are among the bytes of what was compared, or nowhere.
            self._report.bytes_under_way = 0

    def _pass(self, length: int) -> None:
        self._report.bytes_under_way += length
        self._show()

    def _show(self) -> None:
        if self._on_progress:
            self._on_progress(self._report)


class _Examination:
    """One reading of the bytes of `resource`; at its end `finding` says what is wrong with them."""

    def __init__(self, resource: Resource) -> None:
        self.finding: Finding | None = None
        self._resource = resource
        self._storage = ResourceStorage(resource.storage)

    def reads(self) -> Generator[int]:
        """Yield how many bytes each read gave. What is raised between two reads is no fault of the storage."""
        resource = self._resource
        try:
            with self._storage.get(resource.path) as file:
                reader = HashingReader(file, algorithms=["sha384"])
                while block := reader.read(BLOCK_SIZE):
                    yield len(block)
        except DamagedFile as error:
            self.finding = _finding(resource, Kind.FILE_OF_OTHER_LENGTH, str(error))
        except (Error, BlobstoreError):
            raise
        except FileNotFoundError as error:
            self.finding = _absent(self._storage, resource, error)
        except Exception as error:
            logger.exception("Resource %s could not be read from storage %r.", resource.pk, resource.storage)
            self.finding = _finding(resource, Kind.UNREAD, str(error) or type(error).__name__)
        else:
            self.finding = _difference(resource, reader)


def _difference(resource: Resource, reader: HashingReader) -> Finding | None:
    if reader.length != resource.length:
        return _finding(resource, Kind.FILE_OF_OTHER_LENGTH, f"it has {reader.length} bytes")
    if reader.sha384 != resource.sha384:
        return _finding(resource, Kind.FILE_OF_OTHER_HASH, f"its bytes have the SHA-384 {reader.sha384}")
    return None


def _absent(storage: ResourceStorage, resource: Resource, error: FileNotFoundError) -> Finding:
    try:
        storage.check_present()
    except ConnectionError as absent:
        return _finding(resource, Kind.UNREAD, str(absent))
    return _finding(resource, Kind.FILE_MISSING, str(error))


def _is_missing(finding: Finding) -> bool:
    return finding.kind is Kind.FILE_MISSING


def _finding(resource: Resource, kind: Kind, detail: str) -> Finding:
    return Finding(kind, resource.sha384, resource.length, resource.storage, f"{resource.path}: {detail}")
