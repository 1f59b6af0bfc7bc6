"""What must hold of a store whenever nobody is at work in it, and once everything under way has ended.

1. Each reference count is the number of objects that refer to the resource.
2. Each object reads back with its SHA-384 and length.
3. Each stored file is named by exactly one row, a resource or a pending file, and each resource has its file.
4. The totals of each bucket, and of each user outside buckets, are those of its objects.
5. Once the leases and grace periods are over, a sweep leaves nothing pending.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from django.db.models import Count
from django.db.models.functions import Now

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, PendingFile, Resource, ResumableUpload, Totals, UploadPart, Usage
from django_blobstore.namespaces import Namespace
from django_blobstore.storages.gridfs_bucket import named_id
from django_blobstore.upkeep import sweep
from tests.stored import Stored


def assert_sound(stored: Stored) -> None:
    """Fail, telling everything that is wrong, unless rules 1 to 4 hold."""
    _assert_none("The store is not sound", _all_wrong(stored))


def assert_settled(stored: Stored) -> None:
    """End every lease and grace period, sweep, and fail unless rules 1 to 5 hold."""
    end_leases_and_graces()
    assert_swept(stored)


def assert_swept(stored: Stored) -> None:
    """Sweep, and fail unless rules 1 to 4 hold and nothing is pending any more."""
    report = sweep()
    wrong = [f"the sweep could not delete {report.failed_files} files"] if report.failed_files else []
    wrong += [f"still pending after the sweep: {_told(row)}" for row in PendingFile.objects.all()]
    wrong += [
        f"still there after the sweep: {row!r}" for row in (*ResumableUpload.objects.all(), *UploadPart.objects.all())
    ]
    _assert_none("The store is not settled", wrong + _all_wrong(stored))


def assert_empty(stored: Stored) -> None:
    """Fail unless there is no object, no resource, no pending file and no stored byte, without any sweep."""
    wrong = [f"object {_name(managed)}" for managed in ManagedResource.objects.all()]
    wrong += [f"{resource!r} with count {resource.reference_count}" for resource in Resource.objects.all()]
    wrong += [f"pending: {_told(row)}" for row in PendingFile.objects.all()]
    wrong += [f"still there: {row!r}" for row in (*ResumableUpload.objects.all(), *UploadPart.objects.all())]
    wrong += [f"stored file {name!r}" for name in sorted(stored.names_everywhere())]
    wrong += wrong_totals()
    _assert_none("Something is left", wrong)


def end_leases_and_graces() -> None:
    """Make every lease, every grace period and every resumable upload end now, as if their time had passed."""
    ResumableUpload.objects.update(expires_at=Now())
    PendingFile.objects.filter(discard=False).update(lease_until=Now())
    PendingFile.objects.filter(discard=True).update(due_at=Now())


def _all_wrong(stored: Stored) -> list[str]:
    return [*wrong_counts(), *unreadable_objects(), *misnamed_files(stored), *wrong_totals()]


def wrong_counts() -> Iterator[str]:
    """Say which resources do not count their references (rule 1)."""
    for resource in Resource.objects.annotate(actual=Count("references")).order_by("pk"):
        if resource.reference_count != resource.actual:
            yield f"{resource!r} counts {resource.reference_count} references but {resource.actual} objects refer to it"


def unreadable_objects() -> Iterator[str]:
    """Say which objects do not read back (rule 2)."""
    for managed in ManagedResource.objects.select_related("resource"):
        try:
            actual, length = _read(managed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the object cannot be read
            yield f"object {_name(managed)} cannot be read: {error!r}"
            continue
        if actual != managed.resource.sha384:
            yield f"object {_name(managed)} has the SHA-384 {actual}, not {managed.resource.sha384}"
        if length != managed.resource.length:
            yield f"object {_name(managed)} has {length} bytes, not {managed.resource.length}"


def misnamed_files(stored: Stored) -> Iterator[str]:
    """Say which files no row names or two rows name, and which resources have no file (rule 3)."""
    names = stored.names_everywhere()
    used = set(Resource.objects.exclude(path="").values_list("path", flat=True))
    pending = set(PendingFile.objects.values_list("path", flat=True))
    yield from (f"file {name!r} is stored and no row names it" for name in sorted(names - used - _fragments(pending)))
    yield from (f"file {path!r} is named by a resource and a pending file" for path in sorted(used & pending))
    yield from (f"file {path!r} is named by a resource and not stored" for path in sorted(used - names))


def wrong_totals() -> Iterator[str]:
    """Say whose totals are not those of the objects there are (rule 4)."""
    kept, actual = defaultdict[Namespace, Counter[str]](Counter), defaultdict[Namespace, Counter[str]](Counter)
    for share in Usage.objects.all():
        for column in Totals._fields:
            kept[share.namespace][column] += getattr(share, column)
    counted = set()
    for managed in ManagedResource.objects.select_related("resource"):
        holder, length = _holder(managed), managed.resource.length
        stored = 0 if (holder, managed.resource_id) in counted else length
        counted.add((holder, managed.resource_id))
        actual[holder].update(object_count=1, logical_bytes=length, stored_bytes=stored)
    for holder in kept.keys() | actual.keys():
        if kept[holder] != actual[holder]:
            yield f"the totals of {holder} are {kept[holder]} and should be {actual[holder]}"


def _holder(managed: ManagedResource) -> Namespace:
    """Return who has the totals in which `managed` counts: its bucket, or its user outside buckets."""
    return Namespace(bucket=str(managed.bucket_id)) if managed.bucket_id else Namespace(user=managed.user)


def _read(managed: ManagedResource) -> tuple[str, int]:
    """Return the SHA-384 and the length of what `get` gives."""
    sha384, length = hashlib.sha384(), 0
    with ManagedStorage().get(managed.namespace, managed.path) as file:
        for block in file.chunks():
            sha384.update(block)
            length += len(block)
    return sha384.hexdigest(), length


def _fragments(paths: set[str]) -> set[str]:
    """Return `paths` and what `Stored.names` calls the remains of uploads to them that were cut short."""
    return paths | {f"chunks without a file: {named_id(path)}" for path in paths}


def _name(managed: ManagedResource) -> str:
    return f"{managed.path!r} ({managed.namespace})"


def _told(row: PendingFile) -> str:
    fate = f"to be deleted at {row.due_at}" if row.discard else f"arriving, lease until {row.lease_until}"
    return f"{row.path!r} for {row.managed_path!r}, {fate}"


def _assert_none(headline: str, wrong: list[str]) -> None:
    assert not wrong, f"{headline}:\n" + "\n".join(f"  - {line}" for line in wrong)
