"""The operator's way to `moving.move_contents`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.db.models import Exists, OuterRef

from django_blobstore.conf import conf
from django_blobstore.errors import BlobstoreError
from django_blobstore.management.findings import Teller
from django_blobstore.management.wording import Bar, Pace, above_zero, counted, sized
from django_blobstore.models import Bucket, ManagedResource, Resource, ResourceQuerySet, UpkeepRun
from django_blobstore.moving import WORKERS, MoveReport, move_contents
from django_blobstore.namespaces import Namespace

# What a content costs beside its bytes, as a number of bytes that take as long.
BYTES_PER_CONTENT = 100_000


class Command(BaseCommand):
    help = (
        "Move contents from one storage of STORAGES to another while the site runs. A killed move goes on when it is "
        "begun again. Fails if anything that should have gone is left in the source."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", help="The alias in STORAGES that the contents lie in.")
        parser.add_argument("target", help="The alias in STORAGES that they shall lie in.")
        parser.add_argument("--bucket", default="", help="Only contents of this bucket, by its name or UUID.")
        parser.add_argument("--at-least", type=_number, metavar="BYTES", help="Only contents of this length or more.")
        parser.add_argument("--at-most", type=_number, metavar="BYTES", help="Only contents of this length or less.")
        parser.add_argument("--limit", type=above_zero, metavar="NUMBER", help="Stop after so many contents.")
        parser.add_argument(
            "--workers", type=above_zero, default=WORKERS, metavar="NUMBER", help="How many go at a time. Default: 4."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how much there is to be moved.")
        parser.add_argument("--json", action="store_true", dest="as_json", help="Write one JSON document.")

    def handle(self, *, source: str, target: str, as_json: bool, verbosity: int, **options: Any) -> None:
        bar, pace = Bar(self.stderr, wanted=verbosity > 0), Pace()
        try:
            among = _chosen(options)
            teller = Teller(self.stdout, bar, as_json=as_json, verbosity=verbosity)
            report = move_contents(
                source,
                target,
                among=among,
                limit=options["limit"],
                workers=options["workers"],
                dry_run=options["dry_run"],
                origin=UpkeepRun.Origin.COMMAND,
                on_finding=teller.tell,
                on_progress=lambda report: _show(bar, pace, report),
            )
        except (ValueError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        except (Error, BlobstoreError, KeyboardInterrupt) as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"{reason}; what was moved until now stays. Begin again to go on.") from error
        finally:
            bar.clear()
        told = ("total", "total_bytes", "moved", "moved_bytes", "overtaken", "left", "pending_files", "stopped")
        summary = {"source": source, "target": target, "dry_run": options["dry_run"]}
        summary |= {name: getattr(report, name) for name in told}
        teller.finish(summary, report.findings, _headline(report, source, target, options["dry_run"]))
        if not options["dry_run"] and (wrong := _wrong(report, source, target, options["limit"])):
            raise CommandError(wrong)


def _chosen(options: dict[str, Any]) -> ResourceQuerySet:
    contents = Resource.objects.all()
    if options["bucket"]:
        key = str(Namespace(bucket=options["bucket"]).bucket_id)
        if not Bucket.objects.filter(pk=key).exists():
            raise ValueError(f"There is no bucket {options['bucket']!r}.")
        contents = contents.filter(Exists(ManagedResource.objects.filter(bucket_id=key, resource=OuterRef("pk"))))
    lengths = {"length__gte": options["at_least"], "length__lte": options["at_most"]}
    return contents.filter(**{name: length for name, length in lengths.items() if length is not None})


def _show(bar: Bar, pace: Pace, report: MoveReport) -> None:
    copied = report.passed_bytes // 2
    done = copied + report.done * BYTES_PER_CONTENT
    total = report.total_bytes + report.total * BYTES_PER_CONTENT
    bar.show(f"{pace.told(copied, done, total)}, contents", report.done, report.total, work=(done, total))


def _headline(report: MoveReport, source: str, target: str, dry_run: bool) -> str:
    pending = f"{counted(report.pending_files, 'file')} in {source!r} arriving or waiting for a sweep."
    if dry_run:
        todo = f"{counted(report.total, 'content')}, {sized(report.total_bytes)}"
        return f"Would move {todo}, from {source!r} to {target!r}; {pending}"
    overtaken = f" {report.overtaken:,} removed or replaced meanwhile;" if report.overtaken else ""
    done = f"{report.moved:,} of {counted(report.total, 'content')}, {sized(report.moved_bytes)}"
    return f"Moved {done}, from {source!r} to {target!r};{overtaken} {pending}"


def _wrong(report: MoveReport, source: str, target: str, limit: int | None) -> str:
    sentences = []
    if report.stopped:
        sentences.append(f"Stopped, since one content after another could not be moved: {report.stopped}")
    elif report.findings.left:
        sentences.append(f"{counted(report.findings.left, 'content')} could not be moved.")
    if report.left and not limit:
        sentences.append(f"{report.left:,} left in {source!r}; begin again to go on.")
        if source == conf.STORAGE:
            sentences.append(f"New contents go on coming there until BLOBSTORE['STORAGE'] is {target!r}.")
    return "\n".join(sentences)


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ArgumentTypeError("it must be a number of 0 or more")
    return number
