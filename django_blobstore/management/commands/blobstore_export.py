"""The operator's way out of the store: `porting.export_objects`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from tarfile import TarError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from django_blobstore.errors import BlobstoreError
from django_blobstore.management.places import add_namespace, namespace_of
from django_blobstore.management.wording import Bar, counted, sized
from django_blobstore.porting import DirectoryExport, Export, ExportReport, TarExport, export_objects

KINDS: dict[str, Callable[[Path], Export]] = {"directory": DirectoryExport, "tar": TarExport}


class Command(BaseCommand):
    help = (
        "Write the objects of a bucket, a user or the global namespace to a directory or a tar file, with a manifest "
        "and sums that `sha384sum -c` reads. A killed export goes on when it is begun again. Fails if any object could "
        "not be read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=KINDS, help="What to write.")
        parser.add_argument("target", type=Path, help="The directory, or the tar file; neither may be there already.")
        add_namespace(parser)
        parser.add_argument("--prefix", default="", help="Only objects whose path starts so.")
        parser.add_argument("--dry-run", action="store_true", help="Count the objects and write nothing.")

    def handle(self, *, verbosity: int, dry_run: bool, **options: Any) -> None:
        bar = Bar(self.stderr, wanted=verbosity > 0)
        try:
            report = self._run(bar, dry_run, options)
        except (ValueError, OSError, BlobstoreError, TarError) as error:
            raise CommandError(str(error)) from error
        except (Error, KeyboardInterrupt) as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"{reason}; what was written until now stays. Begin again to go on.") from error
        finally:
            bar.clear()
        if verbosity:
            self.stdout.write(_told(report, dry_run=dry_run))
        if report.failed:
            raise CommandError(f"{counted(report.failed, 'object')} could not be exported.")

    def _run(self, bar: Bar, dry_run: bool, options: dict[str, Any]) -> ExportReport:
        def tell(path: str, error: Exception) -> None:
            bar.clear()
            self.stderr.write(f"{path!r}: {error}")

        namespace = namespace_of(options["bucket"], options["user"], options["is_global"])
        if namespace is None:
            raise ValueError("Say what to export: --bucket, --user or --global.")
        return export_objects(
            namespace,
            KINDS[options["kind"]](options["target"]),
            prefix=options["prefix"],
            dry_run=dry_run,
            on_failure=tell,
            on_progress=lambda report: bar.show(_progress(report), report.objects, 0),
        )


def _progress(report: ExportReport) -> str:
    return f"{sized(report.bytes + report.bytes_under_way)}, objects"


def _told(report: ExportReport, *, dry_run: bool) -> str:
    resumed = f" ({report.resumed:,} by an earlier run)" if report.resumed else ""
    written = "would be written" if dry_run else "written"
    return (
        f"{counted(report.objects, 'object')} {written}{resumed}, {sized(report.bytes)}.\n"
        f"Contents: {report.contents:,}, {sized(report.content_bytes)}; sharing them saves {sized(report.saved_bytes)} "
        "in the store."
    )
