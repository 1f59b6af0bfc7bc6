"""Fill the example project: an administrator, three buckets and the samples that are not there yet."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db.models import Sum
from django.template.defaultfilters import filesizeformat

from django_blobstore.errors import ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from example_project.samples import Sample, samples


class Command(BaseCommand):
    help = "Create the administrator, the buckets and the sample objects; what is there already stays as it is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="admin", help="the administrator (default: %(default)s)")
        parser.add_argument("--password", required=True, help="the administrator's password, if new")

    def handle(self, *args: Any, **options: Any) -> None:
        admin = User.objects.filter(username=options["username"]).first() or User.objects.create_superuser(
            options["username"], password=options["password"]
        )
        storage = ManagedStorage()
        todo = list(samples())
        for number, sample in enumerate(todo, start=1):
            self._show_progress(f"Samples {number}/{len(todo)}")
            _put_if_missing(storage, _namespace(sample, admin), sample)
        self._show_progress("")
        self.stdout.write(savings())

    def _show_progress(self, text: str) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"\r\033[K{text}", style_func=str, ending="")
            self.stderr.flush()


def savings() -> str:
    """Say how many bytes objects have, and how many are stored."""
    spoken_of = ManagedResource.objects.aggregate(length=Sum("resource__length"))["length"] or 0
    stored = Resource.objects.aggregate(length=Sum("length"))["length"] or 0
    return (
        f"{ManagedResource.objects.count()} objects of {filesizeformat(spoken_of)}, "
        f"stored as {Resource.objects.count()} contents of {filesizeformat(stored)}: "
        f"{1 - stored / (spoken_of or 1):.0%} saved"
    )


def _namespace(sample: Sample, owner: User) -> Namespace:
    if not sample.bucket:
        return Namespace()
    bucket, _ = Bucket.objects.get_or_create(name=sample.bucket, defaults={"owner": owner})
    return Namespace(bucket=bucket.uuid)


def _put_if_missing(storage: ManagedStorage, namespace: Namespace, sample: Sample) -> None:
    try:
        storage.stat(namespace, sample.path)
    except ResourceNotFound:
        storage.put(namespace, sample.path, sample.content, content_type=sample.content_type)
