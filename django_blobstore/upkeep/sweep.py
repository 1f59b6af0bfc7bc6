"""How files are deleted that nothing needs any more, and which they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import groupby
from operator import attrgetter

from django.core.files.storage import InvalidStorageError
from django.db import Error, router
from django.db.models import Count, Sum
from django.db.models.functions import Coalesce, Now

from django_blobstore import uncommitted
from django_blobstore.catalog import StoredFile
from django_blobstore.errors import CatalogBusy
from django_blobstore.failpoints import reach
from django_blobstore.models import (
    PendingFile,
    PendingFileQuerySet,
    PutRequest,
    PutRequestQuerySet,
    Resource,
    ResumableUpload,
    UpkeepRun,
)
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.tracing import traced
from django_blobstore.transactions import transact
from django_blobstore.upkeep.measure import measuring_what_is_due
from django_blobstore.upkeep.runs import STANDING, Origin, Record, recorded

logger = logging.getLogger(__name__)

BATCH = 200
RETRY_AFTER = timedelta(minutes=1)


@dataclass
class SweepReport:
    """What a sweep did, or with `dry_run` would do; `total_files` is how many were due when it began.

    `rolled_back_files` were written in transactions that came to nothing, and are among the `deleted_files`.
    """

    total_files: int = 0
    abandoned_uploads: int = 0
    deleted_files: int = 0
    deleted_bytes: int = 0
    failed_files: int = 0
    forgotten_requests: int = 0
    expired_uploads: int = 0
    rolled_back_files: int = 0


@traced
def sweep(
    *,
    dry_run: bool = False,
    origin: str = Origin.TASK,
    on_progress: Callable[[SweepReport], object] | None = None,
) -> SweepReport:
    """Delete what nothing needs any more: abandoned and expired uploads, files past their grace, old put requests.

    Safe to run at any time, several at once, and to kill: every file keeps its row until it is gone. A file that its
    storage refuses to delete is logged and tried again by a later sweep. `on_progress` is called after each batch of
    files with the report so far. Every hour it also writes down what the dashboard tells. `origin` says in the row of
    the run who began it.
    """
    if dry_run:
        return _foresee()
    report = SweepReport()
    with recorded(UpkeepRun.Kind.SWEEP, origin) as record:
        told = 0
        for _ in sweeping(report, record):
            done = report.deleted_files + report.failed_files
            # Not of measurements, by which it pauses too.
            if on_progress and done != told:
                on_progress(report)
            told = done
    return report


def sweeping(report: SweepReport, record: Record) -> Iterator[None]:
    """Sweep, and pause after each batch of files and each measurement.

    It goes on from the report of a sweep that did not come to its end.
    """
    pending = PendingFile.objects.using(router.db_for_write(PendingFile))
    uploads = ResumableUpload.objects.using(router.db_for_write(ResumableUpload)).expired()
    # Before the files of their parts count as abandoned ones.
    while ended := transact(uploads.db, uploads[:BATCH].end):
        report.expired_uploads += ended
    reach("sweep.uploads_ended")
    report.abandoned_uploads += pending.abandoned().give_up()
    reach("sweep.given_up")
    report.total_files = report.total_files or pending.due().count()
    record.run.figures = asdict(report)
    # As many batches as there were at first: what was refused may become due again before the end.
    for _ in range(report.deleted_files + report.failed_files, report.total_files, BATCH):
        _sweep_batch(list(pending.due().order_by("due_at")[:BATCH]), report)
        record.run.figures = asdict(report)
        record.show("files", report.deleted_files + report.failed_files, report.total_files)
        yield
    rolled_back = uncommitted.clear(pending.db)
    report.rolled_back_files += rolled_back
    report.deleted_files += rolled_back
    requests = PutRequest.objects.using(router.db_for_write(PutRequest))
    report.forgotten_requests += requests.forgettable().delete()[0]
    record.run.figures = {**asdict(report), STANDING: _standing(pending, requests)}
    yield from _measuring()


def expunge(files: Sequence[StoredFile]) -> list[StoredFile]:
    """Delete discarded `files`, first the bytes, then the rows; return those that their storage refused to delete."""
    failed: list[StoredFile] = []
    for alias, group in groupby(sorted(files, key=attrgetter("storage")), key=attrgetter("storage")):
        failed += _remove(alias, list(group))
    reach("expunge.deleted")
    gone = [file.path for file in files if file not in failed]
    PendingFile.objects.using(router.db_for_write(PendingFile)).filter(path__in=gone, discard=True).delete()
    reach("expunge.forgotten")
    return failed


def expunge_quietly(files: Sequence[StoredFile]) -> None:
    """Expunge `files` that were discarded by a commit just now; what fails is left to a sweep."""
    try:
        for start in range(0, len(files), BATCH):
            expunge(files[start : start + BATCH])
    except Error:
        logger.warning("Not all of %d files could be deleted right after the commit; a sweep does it.", len(files))


def _foresee() -> SweepReport:
    pending = PendingFile.objects.using(router.db_for_write(PendingFile))
    requests = PutRequest.objects.using(router.db_for_write(PutRequest))
    uploads = ResumableUpload.objects.using(router.db_for_write(ResumableUpload)).expired()
    files = pending.overdue() | pending.of_parts(uploads)
    totals = files.aggregate(files=Count("*"), bytes=Sum(Coalesce("length", "offset")))
    abandoned, forgettable = pending.abandoned().count(), requests.forgettable().count()
    report = SweepReport(totals["files"], abandoned, totals["files"], totals["bytes"] or 0, 0, forgettable)
    report.expired_uploads = uploads.count()
    report.rolled_back_files = uncommitted.clear(pending.db, dry_run=True)
    report.deleted_files += report.rolled_back_files
    return report


def _standing(pending: PendingFileQuerySet, requests: PutRequestQuerySet) -> dict[str, int]:
    """Count what is under way now that the sweep is over, and what is damaged, for the dashboard."""
    kept = {state: getattr(pending, state)().count() for state in ("arriving", "abandoned", "waiting", "due")}
    states = {"open": requests.answerable(), "expired": requests.expired()}
    states |= {str(state): requests.filter(state=state) for state in (PutRequest.State.USED, PutRequest.State.FAILED)}
    kept |= {f"requests_{state}": rows.count() for state, rows in states.items()}
    damaged = Resource.objects.using(pending.db).damaged()
    return {**kept, "damaged": damaged.filter(missing=False).count(), "missing": damaged.missing().count()}


def _measuring() -> Iterator[None]:
    try:
        yield from measuring_what_is_due()
    except (Error, CatalogBusy):
        # What a sweep is there for is done.
        logger.exception("What the dashboard tells could not be measured; a later sweep tries again.")


def _sweep_batch(batch: list[PendingFile], report: SweepReport) -> None:
    failed = expunge([StoredFile(row.storage, row.path) for row in batch])
    refused = {file.path for file in failed}
    if refused:
        rows = PendingFile.objects.using(router.db_for_write(PendingFile)).filter(path__in=refused)
        rows.update(due_at=Now() + RETRY_AFTER)
    report.failed_files += len(refused)
    report.deleted_files += len(batch) - len(refused)
    report.deleted_bytes += sum(row.length or row.offset for row in batch if row.path not in refused)


def _remove(alias: str, files: list[StoredFile]) -> list[StoredFile]:
    """Delete files of one storage and return those that stayed."""
    try:
        ResourceStorage(alias).remove_many([file.path for file in files])
    except InvalidStorageError:
        logger.exception("Storage alias %r is not in STORAGES; its %d files wait for it.", alias, len(files))
        return files
    except (ConnectionError, TimeoutError):
        logger.exception("Storage %r does not answer; %d of its files wait for a later sweep.", alias, len(files))
        return files
    except Exception:
        # A storage may raise anything. One file at a time tells which of them is the trouble.
        if len(files) > 1:
            return [left for file in files for left in _remove(alias, [file])]
        logger.exception("Storage %r did not delete %r; a later sweep tries again.", alias, files[0].path)
        return files
    return []
