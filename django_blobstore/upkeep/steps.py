"""How upkeep is done a few seconds at a time, so that no request which does a part of it takes long.

Each step begins where the one before ended, as the row of the run says. One that is killed is done again, but for the
long content that it was reading: the next one passes that over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, cast

from django.db import router
from django.db.models import Max, Q
from django.utils import timezone

from django_blobstore.models import Resource, ResourceQuerySet, UpkeepRun, UpkeepRunQuerySet
from django_blobstore.upkeep.audit import AuditReport, Position, auditing
from django_blobstore.upkeep.findings import Finding, Kind
from django_blobstore.upkeep.measure import PARTS, measuring
from django_blobstore.upkeep.runs import STANDING, Record
from django_blobstore.upkeep.scrub import PATIENCE, verify
from django_blobstore.upkeep.sweep import SweepReport, sweeping

logger = logging.getLogger(__name__)

STEP_SECONDS = 2.0
# After so long without a sign of life the step at work counts as dead.
LEASE = timedelta(minutes=1)
BATCH = 100
# Contents up to this length are read between two looks at the row.
SMALL = 1 << 20


def begin(kind: str, *, user: Any = None, **options: Any) -> UpkeepRun:
    """Make a run to be done in steps, and return it.

    `options` are, of a verification, `resources` (a list of primary keys) or `damaged`, and of an audit `fix`.
    """
    known = user if getattr(user, "pk", None) else None
    return _rows().create(kind=kind, origin=UpkeepRun.Origin.ADMIN, user=known, options=options)


def advance(run: UpkeepRun, *, seconds: float = STEP_SECONDS) -> bool:
    """Work on `run` for about so many `seconds`; False, and nothing is done, if it has ended or a step is at work.

    An error ends the run, and is told in its row and in the log.
    """
    if not _take(run):
        return False
    record, deadline = _Step(run), time.monotonic() + seconds
    try:
        for _ in _WORK[run.kind](record):
            if time.monotonic() >= deadline:
                record.pause()
                return True
        record.end()
    except _Overtaken:
        return False
    except Exception as error:
        logger.exception("Upkeep run %s ended by an error.", run.pk)
        record.end(error=str(error) or type(error).__name__)
    return True


class _Overtaken(Exception):
    """Another step has taken the run, because this one showed no sign of life for too long."""


class _Step(Record):
    """The row of a run as one step goes."""

    def __init__(self, run: UpkeepRun) -> None:
        super().__init__(run)
        self._lease: datetime | None = run.lease_until

    def save(self, *columns: str) -> None:
        """Write the row, and extend the lease, if the run is ours still."""
        ours = _rows().filter(pk=self.run.pk, lease_until=self._lease)
        values = {column: getattr(self.run, column) for column in columns}
        if "lease_until" not in columns:
            values["lease_until"] = timezone.now() + LEASE
        values["progress_at"] = timezone.now()
        if not ours.update(**values):
            raise _Overtaken
        self.run.lease_until, self.run.progress_at = values["lease_until"], values["progress_at"]
        self._lease = self.run.lease_until

    def keep(self, position: Any, **figures: Any) -> None:
        """Note where the next step begins."""
        self.run.position = position
        self.run.figures = {**self.run.figures, **figures}

    def count(self, figure: str, more: int = 1) -> None:
        self.run.figures[figure] = self.run.figures.get(figure, 0) + more

    def write(self) -> None:
        self.save("stage", "done", "total", "figures", "findings", "position")

    def pause(self) -> None:
        self.run.lease_until = None
        self.save("stage", "done", "total", "figures", "findings", "position", "lease_until")


def _take(run: UpkeepRun) -> bool:
    """Make the run ours, as its row is now, unless a step is at work."""
    now = timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    if not _rows().filter(free, pk=run.pk, ended_at=None).update(lease_until=now + LEASE):
        return False
    run.refresh_from_db()
    return run.lease_until == now + LEASE


def _sweep(step: _Step) -> Iterator[None]:
    done = {name: figure for name, figure in step.run.figures.items() if name != STANDING}
    yield from sweeping(SweepReport(**done), step)


def _audit(step: _Step) -> Iterator[None]:
    run = step.run
    report = AuditReport.of(run.figures)
    begin_at = Position(*run.position) if run.position else None
    for position in auditing(report, step, fix=bool(run.options.get("fix")), position=begin_at):
        step.keep(position, **report.figures())
        yield
    step.keep(run.position, **report.figures())


def _verify(step: _Step) -> Iterator[None]:
    """Compare contents by primary key, from the one after `position`."""
    resources = _chosen(step.run)
    if step.run.position is None:
        step.keep([0, resources.aggregate(last=Max("pk"))["last"] or 0])
        step.run.total = resources.count()
    failures: dict[str, int] = {}
    after, last = cast("list[int]", step.run.position)
    while batch := list(resources.filter(pk__gt=after, pk__lte=last).order_by("pk")[:BATCH]):
        for resource in batch:
            after = resource.pk
            step.keep([after, last])
            if resource.length > SMALL:
                step.write()
            _compare(step, resource, failures)
            yield


def _chosen(run: UpkeepRun) -> ResourceQuerySet:
    resources: ResourceQuerySet = Resource.objects.using(router.db_for_write(Resource)).exclude(path="")
    if run.options.get("damaged"):
        return resources.damaged()
    chosen = run.options.get("resources")
    return resources if chosen is None else resources.filter(pk__in=chosen)


def _compare(step: _Step, resource: Resource, failures: dict[str, int]) -> None:
    """Verify `resource` unless its storage did not answer so often in a row, and count what came out."""
    finding: Finding | None = None
    is_unread = failures.get(resource.storage, 0) >= PATIENCE
    if not is_unread:
        finding = verify(resource, on_read=lambda _: step.show("contents", step.run.done, step.run.total))
        is_unread = finding is not None and finding.kind is Kind.UNREAD
    failures[resource.storage] = failures.get(resource.storage, 0) + 1 if is_unread else 0
    if finding:
        step.tell(finding)
    step.count("unread" if is_unread else "compared")
    step.count("compared_bytes", 0 if is_unread else resource.length)
    if finding and not is_unread:
        step.count("missing" if finding.kind is Kind.FILE_MISSING else "damaged")
    step.show("contents", step.run.done + 1, step.run.total)


def _measure(step: _Step) -> Iterator[None]:
    step.show("measure", step.run.position or 0, PARTS)
    for done in measuring(step.run.position or 0):
        step.keep(done)
        step.show("measure", done, PARTS)
        yield


def _rows() -> UpkeepRunQuerySet:
    return UpkeepRun.objects.using(router.db_for_write(UpkeepRun))


_WORK: dict[str, Callable[[_Step], Iterator[None]]] = {
    UpkeepRun.Kind.SWEEP: _sweep,
    UpkeepRun.Kind.AUDIT: _audit,
    UpkeepRun.Kind.SCRUB: _verify,
    UpkeepRun.Kind.VERIFY: _verify,
    UpkeepRun.Kind.MEASURE: _measure,
}
