"""Fill a bucket with as many objects as a large project has, to see how the store does with them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_blobstore.management.wording import Bar, counted, sized
from django_blobstore.models import Bucket
from example_project.loading import BucketNotEmpty, load_bucket


class Command(BaseCommand):
    help = "Make a bucket of many objects in folders, which share fewer contents, as if each of them had been put."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", default="large", help="the bucket, empty or new (default: %(default)s)")
        parser.add_argument("--objects", type=int, default=1_000_000, help="how many objects (default: %(default)s)")
        parser.add_argument("--contents", type=int, default=100_000, help="how many contents (default: %(default)s)")

    def handle(self, *, name: str, objects: int, contents: int, **options: Any) -> None:
        if not 0 < contents <= objects:
            raise CommandError("--contents must be at least 1 and at most --objects: each content has an object.")
        bar = Bar(self.stderr)
        try:
            bucket = load_bucket(name, objects=objects, contents=contents, on_progress=bar.show)
        except BucketNotEmpty as error:
            raise CommandError(str(error)) from error
        finally:
            bar.clear()
        made: Any = Bucket.objects.with_usage().get(pk=bucket.pk)
        self.stdout.write(
            f"The bucket {bucket} ({bucket.pk}) has {counted(made.object_count, 'object')} of "
            f"{sized(made.logical_bytes)}, stored as {sized(made.stored_bytes)}."
        )
