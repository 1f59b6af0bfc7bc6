"""The operator's way to `upkeep.scrub`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_blobstore.management.findings import Teller
from django_blobstore.management.wording import Bar, counted, seconds, sized
from django_blobstore.models import UpkeepRun
from django_blobstore.upkeep import ScrubReport, scrub


class Command(BaseCommand):
    help = (
        "Read stored bytes again and compare them with their hash, the least recently compared first; mark what is "
        "damaged or missing. Fails if anything is damaged, missing, or could not be read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--percent", type=_percent, default=100.0, help="How much of all contents to read. Default: 100."
        )
        parser.add_argument(
            "--max-duration",
            type=seconds,
            metavar="SECONDS",
            help="Begin no further content after SECONDS; the next scrub goes on there.",
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Write one JSON document.")

    def handle(
        self, *, percent: float, max_duration: float | None, as_json: bool, verbosity: int, **options: Any
    ) -> None:
        bar = Bar(self.stderr, wanted=verbosity > 0)
        teller = Teller(self.stdout, bar, as_json=as_json, verbosity=verbosity)
        report = scrub(
            percent=percent,
            max_duration=None if max_duration is None else timedelta(seconds=max_duration),
            origin=UpkeepRun.Origin.COMMAND,
            on_finding=teller.tell,
            on_progress=lambda report: bar.show(_progress(report), report.compared, report.total),
        )
        told = ("total", "compared", "compared_bytes", "unmarked", "damaged", "missing", "unread")
        teller.finish({name: getattr(report, name) for name in told}, report.findings, _headline(report))
        if report.findings.left:
            raise CommandError(
                f"{counted(report.damaged, 'content')} damaged, {report.missing:,} missing, {report.unread:,} unread."
            )


def _progress(report: ScrubReport) -> str:
    return sized(report.compared_bytes + report.bytes_under_way)


def _headline(report: ScrubReport) -> str:
    unmarked = f"; {counted(report.unmarked, 'wrong mark')} taken away" if report.unmarked else ""
    return (
        f"Compared {report.compared:,} of {counted(report.total, 'content')}, {sized(report.compared_bytes)}{unmarked}."
    )


def _percent(text: str) -> float:
    percent = float(text)
    if not 0 < percent <= 100:
        raise ArgumentTypeError("it must be above 0 and at most 100")
    return percent
