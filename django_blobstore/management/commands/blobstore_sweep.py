"""The operator's way to `upkeep.sweep`: once, or every so many seconds."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import InterfaceError, OperationalError, close_old_connections

from django_blobstore.management.wording import Bar, counted, seconds, sized
from django_blobstore.models import UpkeepRun
from django_blobstore.upkeep import SweepReport, sweep


class Command(BaseCommand):
    help = "Delete what nothing needs any more: abandoned and expired uploads, unreferenced files, old put requests."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be deleted.")
        parser.add_argument(
            "--every", type=seconds, metavar="SECONDS", help="Go on, with a pause of SECONDS, until SIGINT or SIGTERM."
        )

    def handle(self, *, dry_run: bool, every: float | None, verbosity: int, **options: Any) -> None:
        bar = Bar(self.stderr, wanted=verbosity > 0)

        def show_progress(report: SweepReport) -> None:
            done = report.deleted_files + report.failed_files
            bar.show("files", done, max(done, report.total_files))

        def round_of_sweep() -> SweepReport:
            report = sweep(dry_run=dry_run, origin=UpkeepRun.Origin.COMMAND, on_progress=show_progress)
            bar.clear()
            if verbosity > 1 or (verbosity and (every is None or report != SweepReport())):
                self.stdout.write(_summary(report, dry_run))
            return report

        report = self._repeat(round_of_sweep, every) if every else round_of_sweep()
        if report.failed_files:
            raise CommandError(
                f"{counted(report.failed_files, 'file')} could not be deleted; a later sweep tries again."
            )

    def _repeat(self, round_of_sweep: Callable[[], SweepReport], every: float) -> SweepReport:
        """Sweep until a signal asks to stop, letting a round under way finish; return the last report."""
        asked_to_stop: SimpleQueue[int] = SimpleQueue()  # may be put to from a signal handler, an Event may not be set
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: asked_to_stop.put(number))
        report = SweepReport()
        while True:
            try:
                report = round_of_sweep()
            except (OperationalError, InterfaceError) as error:
                self.stderr.write(f"The catalog cannot be reached, the next round tries again: {error}")
            close_old_connections()
            with suppress(Empty):
                asked_to_stop.get(timeout=every)
                return report


def _summary(report: SweepReport, dry_run: bool) -> str:
    return (
        f"{'Would delete' if dry_run else 'Deleted'} {counted(report.deleted_files, 'file')}, "
        f"{sized(report.deleted_bytes)}; "
        f"{counted(report.abandoned_uploads, 'abandoned upload')}, {report.expired_uploads} expired; "
        f"{counted(report.forgotten_requests, 'old put request')}."
    )
