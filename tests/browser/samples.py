"""What is stored while pages are looked at, and which pages there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now
from django.urls import reverse

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    PutRequest,
    Resource,
    UpkeepRun,
)
from django_blobstore.upkeep import audit, measure, scrub, sweep
from example_project.samples import samples


def fill() -> None:
    """Store what the demo shows, and one row of everything else that there are pages for."""
    store = ManagedStorage()
    for sample in samples():
        store.put(Namespace(bucket=sample.bucket), sample.path, sample.content, content_type=sample.content_type)
    store.put(Namespace(user="7"), "drafts/letter.txt", b"Dear reader,\n", content_type="text/plain")
    _past()
    _one_of_each_trouble()


def _past() -> None:
    """Let the store have grown for some weeks, and upkeep have looked at it."""
    measure()
    for row in list(Measurement.objects.all()):
        for number in range(1, 40):
            share = (1 - number / 50) ** 2
            row.pk, row.day = None, row.day - timedelta(days=2)
            row.logical_bytes, row.stored_bytes = int(row.logical_bytes * share), int(row.stored_bytes * share)
            row.save()
    audit()
    sweep()


def _one_of_each_trouble() -> None:
    known = Resource.objects.order_by("pk").first()
    assert known
    ManagedStorage().put_request(Namespace(bucket="photos"), "claimed.raw", known.sha384, requester="1")
    scrub()
    Resource.objects.filter(pk=known.pk).update(damaged_at=Now())
    alias = ManagedStorage().resource_storage.alias
    late = Now() - timedelta(days=1)
    PendingFile.objects.create(path="arriving", storage=alias, lease_until=Now() + timedelta(days=1))
    PendingFile.objects.create(path="given-up", storage=alias, lease_until=late)
    PendingFile.objects.create(path="due", storage=alias, discard=True, due_at=late)


def admin_url(model: type[Any], page: str, *args: Any) -> str:
    """Return the path of the admin's `page` of `model`, such as "changelist"."""
    return reverse(f"admin:django_blobstore_{model._meta.model_name}_{page}", args=args)


def _bucket() -> Bucket:
    return Bucket.objects.get(name="photos")


def _shown() -> ManagedResource:
    return ManagedResource.objects.get(bucket=_bucket(), path="2026/sunrise.png")


def _of_user() -> ManagedResource:
    return ManagedResource.objects.get(path="drafts/letter.txt")


def _browse(query: str = "", page: str = "browse") -> str:
    return f"{admin_url(ManagedResource, page)}?bucket={_bucket().pk}{query}"


# Every page of the admin that has something of ours, by a name for it.
PAGES: dict[str, Callable[[], str]] = {
    "index": lambda: reverse("admin:index"),
    "app": lambda: reverse("admin:app_list", args=["django_blobstore"]),
    "buckets": lambda: admin_url(Bucket, "changelist"),
    "bucket": lambda: admin_url(Bucket, "change", _bucket().pk),
    "new bucket": lambda: admin_url(Bucket, "add"),
    "delete bucket": lambda: admin_url(Bucket, "delete", _bucket().pk),
    "objects": lambda: admin_url(ManagedResource, "changelist"),
    "objects of a bucket": lambda: f"{admin_url(ManagedResource, 'changelist')}?bucket__uuid__exact={_bucket().pk}",
    "browser": lambda: _browse(),
    "folder": lambda: _browse("&folder=2026/"),
    "search": lambda: _browse("&q=sun"),
    "nothing found": lambda: _browse("&q=nothing"),
    "namespace of a user": lambda: f"{admin_url(ManagedResource, 'browse')}?user=7",
    "outside buckets": lambda: admin_url(ManagedResource, "browse"),
    "delete folder": lambda: _browse("&folder=2026/", page="remove"),
    "object": lambda: admin_url(ManagedResource, "change", _shown().pk),
    **{
        f"{name} object": lambda name=name: admin_url(ManagedResource, name, _shown().pk)
        for name in ("move", "copy", "replace")
    },
    "object of text": lambda: admin_url(ManagedResource, "change", _of_user().pk),
    "history of an object": lambda: admin_url(ManagedResource, "history", _shown().pk),
    "delete object": lambda: admin_url(ManagedResource, "delete", _shown().pk),
    "resources": lambda: admin_url(Resource, "changelist"),
    "resource": lambda: admin_url(Resource, "change", _shown().resource_id),
    "put requests": lambda: admin_url(PutRequest, "changelist"),
    "put request": lambda: admin_url(PutRequest, "change", PutRequest.objects.values_list("pk", flat=True).first()),
    "pending files": lambda: admin_url(PendingFile, "changelist"),
    "dashboard": lambda: admin_url(Measurement, "changelist"),
    "dashboard of a bucket": lambda: admin_url(Measurement, "bucket", _bucket().pk),
    "upkeep runs": lambda: admin_url(UpkeepRun, "changelist"),
    "upkeep run": lambda: admin_url(UpkeepRun, "change", UpkeepRun.objects.get(kind="audit").pk),
    "pending file": lambda: admin_url(PendingFile, "change", "arriving"),
}
