"""What is remembered of each run of upkeep, and how much of that is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from django.db import Error, router
from django.utils import timezone

from django_blobstore.models import UpkeepRun, UpkeepRunQuerySet
from django_blobstore.upkeep.findings import SAMPLE, Finding

# Of each kind so many runs are kept, and of those in which nothing happened the last one.
KEPT = 200
SECONDS_BETWEEN_SIGNS = 1.0
# The figure of a sweep that holds what there was after it, which is nothing that it did.
STANDING = "standing"
Origin = UpkeepRun.Origin


class Record:
    """The row of a run, which is written now and then while the run goes on."""

    def __init__(self, run: UpkeepRun) -> None:
        self.run = run
        self._shown_at = time.monotonic()

    def show(self, stage: str, done: int, total: int) -> None:
        """Say how far the run is; what comes too soon after the last time is not written."""
        self.run.stage, self.run.done, self.run.total = stage, done, total
        if time.monotonic() - self._shown_at >= SECONDS_BETWEEN_SIGNS:
            self._shown_at = time.monotonic()
            self.save("stage", "done", "total")

    def tell(self, finding: Finding) -> None:
        """Keep `finding`, unless there were many before it."""
        if len(self.run.findings) < SAMPLE:
            self.run.findings.append({**asdict(finding), "kind": str(finding.kind)})

    def save(self, *columns: str) -> None:
        self.run.progress_at = timezone.now()
        self.run.save(update_fields=[*columns, "progress_at"])

    def end(self, *, error: str = "") -> None:
        """Close the row, and forget runs that nobody will ask for."""
        self.run.ended_at, self.run.error, self.run.lease_until = timezone.now(), error, None
        self.run.is_eventful = bool(error) or _is_eventful(self.run)
        columns = ["stage", "done", "total", "figures", "findings", "is_eventful", "position"]
        self.save(*columns, "ended_at", "error", "lease_until")
        _forget(self.run)


@contextmanager
def recorded(kind: str, origin: str, **options: Any) -> Iterator[Record]:
    """Keep a row of a run for as long as the context lasts; it tells of the error if there is one."""
    record = Record(_rows().create(kind=kind, origin=origin, options=options))
    try:
        yield record
    except BaseException as error:
        with suppress(Error):  # the database itself may be what is wrong
            record.end(error=str(error) or type(error).__name__)
        raise
    record.end()


def _is_eventful(run: UpkeepRun) -> bool:
    figures = (figure for name, figure in run.figures.items() if name != STANDING)
    return run.kind != UpkeepRun.Kind.SWEEP or any(figures)


def _forget(run: UpkeepRun) -> None:
    ended = _rows().filter(kind=run.kind, ended_at__isnull=False)
    if not run.is_eventful:
        ended.filter(is_eventful=False, pk__lt=run.pk).delete()
    oldest = ended.order_by("-pk").values_list("pk", flat=True)[KEPT : KEPT + 1]
    for pk in oldest:
        _rows().filter(kind=run.kind, pk__lte=pk).delete()


def _rows() -> UpkeepRunQuerySet:
    return UpkeepRun.objects.using(router.db_for_write(UpkeepRun))
