"""The operator's way to `upkeep.audit`."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_blobstore.management.findings import Teller
from django_blobstore.management.wording import Bar, counted, seconds
from django_blobstore.models import UpkeepRun
from django_blobstore.upkeep import AuditReport, audit


class Command(BaseCommand):
    help = (
        "Compare objects, contents, files and chunks with each other, and say what is wrong. Changes nothing without "
        "--fix. Fails if anything is wrong at the end."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        either = parser.add_mutually_exclusive_group()
        either.add_argument("--dry-run", action="store_true", help="Change nothing; so it is without --fix, too.")
        either.add_argument(
            "--fix", action="store_true", help="Set counts right, delete what no row names, mark what is missing."
        )
        parser.add_argument(
            "--older-than",
            type=seconds,
            default=3600.0,
            metavar="SECONDS",
            help="Leave younger files and contents alone; at least BLOBSTORE['LEASE']. Default: an hour.",
        )
        parser.add_argument(
            "--outside-references",
            action="store_true",
            help="Lower no count, because some references were taken by ResourceCatalog.put and have no object.",
        )
        parser.add_argument(
            "--storage",
            action="append",
            default=[],
            dest="also",
            metavar="ALIAS",
            help="Look at the files in this storage too, though no row may speak of it any more. May be repeated.",
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Write one JSON document.")

    def handle(
        self,
        *,
        fix: bool,
        older_than: float,
        outside_references: bool,
        also: list[str],
        as_json: bool,
        verbosity: int,
        **options: Any,
    ) -> None:
        bar = Bar(self.stderr, wanted=verbosity > 0)
        teller = Teller(self.stdout, bar, as_json=as_json, verbosity=verbosity)
        report = audit(
            fix=fix,
            older_than=timedelta(seconds=older_than),
            outside_references=outside_references,
            also=also,
            origin=UpkeepRun.Origin.COMMAND,
            on_finding=teller.tell,
            on_progress=bar.show,
        )
        looked_at = {"objects": report.objects, "contents": report.contents, "files": report.files}
        summary = {"fix": fix, **looked_at, "unread": report.unread}
        teller.finish(summary, report.findings, _headline(report))
        if wrong := _wrong(report, fix):
            raise CommandError(wrong)


def _headline(report: AuditReport) -> str:
    return (
        f"Looked at {counted(report.objects, 'object')}, {counted(report.contents, 'content')} "
        f"and {counted(report.files, 'file')}."
    )


def _wrong(report: AuditReport, fix: bool) -> str:
    sentences = [f"Storage {alias!r} could not be asked: {reason}" for alias, reason in report.unread.items()]
    if report.findings.left:
        wrong = f"{report.findings.left:,} {'is' if report.findings.left == 1 else 'are'} wrong"
        sentences.append(f"{wrong}{' still' if fix else '; --fix mends what can be mended'}.")
    return "\n".join(sentences)
