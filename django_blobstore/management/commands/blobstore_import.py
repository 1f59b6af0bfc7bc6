"""The operator's way into the store: `porting.Importer`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tarfile import TarError
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from django_blobstore.errors import BlobstoreError
from django_blobstore.management.places import add_namespace, namespace_of
from django_blobstore.management.wording import Bar, above_zero, counted, sized
from django_blobstore.namespaces import Namespace
from django_blobstore.porting import (
    Entry,
    Importer,
    ImportReport,
    files_of_directory,
    files_of_export,
    files_of_field,
    files_of_juju,
    files_of_storage,
)

KINDS = ("directory", "storage", "field", "export", "juju")


class Command(BaseCommand):
    help = (
        "Make objects of the files of a directory, a storage, a model's FileField, an export, or an old blobstore of "
        "juju. What is there already with the same content is left alone, so a killed import goes on when it is begun "
        "again. Fails if any file could not be imported."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=KINDS, help="What SOURCE is.")
        parser.add_argument(
            "source", help="A directory; an alias of STORAGES; app.Model.field; a directory or tar of blobstore_export."
        )
        add_namespace(parser)
        parser.add_argument("--prefix", default="", help="What comes before each path, such as photos/.")
        parser.add_argument(
            "--from", dest="alias", default="", metavar="ALIAS", help="The storage with the files of a field."
        )
        parser.add_argument("--catalog", default="", help="The MongoDB database of juju's catalog, if it is another.")
        parser.add_argument("--keep", action="store_true", help="Leave alone what is there with other content.")
        parser.add_argument(
            "--trust-times",
            action="store_true",
            help="Do not read what has the length of the object that is there and was written before it.",
        )
        parser.add_argument(
            "--jobs",
            type=above_zero,
            default=1,
            metavar="NUMBER",
            help="How many files are under way at a time, by as many threads. Default: 1.",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Read, and say what would be shared; change nothing."
        )

    def handle(self, *, verbosity: int, **options: Any) -> None:
        bar = Bar(self.stderr, wanted=verbosity > 0)
        try:
            report = self._run(bar, options)
        except (ValueError, LookupError, FieldDoesNotExist, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        except (Error, OSError, BlobstoreError, TarError, KeyboardInterrupt) as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"{reason}; what was imported until now stays. Begin again to go on.") from error
        finally:
            bar.clear()
        if verbosity:
            self.stdout.write(_told(report, dry_run=options["dry_run"]))
        if report.failed:
            raise CommandError(f"{counted(report.failed, 'file')} could not be imported.")

    def _run(self, bar: Bar, options: dict[str, Any]) -> ImportReport:
        def tell(path: str, error: Exception) -> None:
            bar.clear()
            self.stderr.write(f"{path!r}: {error}")

        namespace = namespace_of(options["bucket"], options["user"], options["is_global"])
        importer = Importer(
            namespace,
            prefix=options["prefix"],
            keep=options["keep"],
            trust_times=options["trust_times"],
            dry_run=options["dry_run"],
            jobs=options["jobs"],
            on_failure=tell,
            on_progress=lambda report: bar.show(_progress(report), report.files, 0),
        )
        return importer.run(_entries(namespace, options))


def _entries(namespace: Namespace | None, options: dict[str, Any]) -> Iterator[Entry]:
    kind, source = options["kind"], options["source"]
    if kind == "directory":
        return files_of_directory(Path(source))
    if kind == "storage":
        return files_of_storage(source)
    if kind == "field":
        return files_of_field(source, options["alias"], target=namespace)
    return files_of_export(Path(source)) if kind == "export" else files_of_juju(source, options["catalog"])


def _progress(report: ImportReport) -> str:
    return f"{sized(report.bytes + report.bytes_under_way)}, files"


def _told(report: ImportReport, *, dry_run: bool) -> str:
    made = "would be made" if dry_run else "made"
    kept = f", {report.kept:,} kept with other content" if report.kept else ""
    return (
        f"{counted(report.files, 'file')}: {counted(report.objects, 'object')} {made}, "
        f"{report.unchanged:,} there already{kept}; {sized(report.bytes)}.\n"
        f"New contents: {report.new_contents:,}. Shared: {report.shared_contents:,}, which saves "
        f"{sized(report.saved_bytes)}."
    )
