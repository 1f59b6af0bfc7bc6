"""The rows of contents: the only module that changes a reference count, or says in which file the bytes are.

Each function is one step of a transaction of its caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from django.db.models.functions import Now
from django.utils import timezone

from django_blobstore import rows
from django_blobstore.catalog.changes import Content, Recount, Returned, StoredFile
from django_blobstore.conf import conf
from django_blobstore.errors import AlreadyUploaded, CatalogBusy, LeaseLost, LengthMismatch, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import ManagedResource, PendingFile, Resource
from django_blobstore.rows import RESOURCES
from django_blobstore.signals import resource_damaged, resource_freed, tell
from django_blobstore.transactions import ATTEMPTS

_PENDING_FILE = PendingFile._meta.db_table
_RESOURCE = Resource._meta.db_table


def count_up(using: str, content: Content, scope: str, file: StoredFile | None) -> Resource:
    """Insert the resource with the count 1, or add one to its count, in one statement."""
    file = file or StoredFile("", "")
    # Django's bulk_create(update_conflicts=True) can set a column, but not add to it. Whole columns
    # are returned because SQLite 3.40 answers "damaged_at IS NOT NULL" wrongly after RETURNING.
    row = rows.fetch(
        using,
        f"INSERT INTO {_RESOURCE} (scope, sha384, sha256, length, path, storage, reference_count, created_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, 1, %s)"
        f" ON CONFLICT (scope, sha384) DO UPDATE SET reference_count = {_RESOURCE}.reference_count + 1"
        f" RETURNING {RESOURCES.sql}",
        [scope, content.sha384, content.sha256, content.length, file.path, file.storage, timezone.now()],
    )
    resource = RESOURCES.model_from(using, cast("Sequence[Any]", row))
    if resource.length != content.length:
        raise LengthMismatch(resource.length, content.length)
    return resource


def count_down(using: str, id: int, discarded: list[StoredFile]) -> Returned:
    """Take one from the count, or delete the row at one and discard its file."""
    for _ in range(ATTEMPTS):
        sql = f"DELETE FROM {_RESOURCE} WHERE id = %s AND reference_count = 1"
        if row := rows.fetch(using, f"{sql} RETURNING path, length, storage, sha384", [id]):
            path, length, storage, sha384 = row
            _discard(using, StoredFile(storage, path), length, discarded)
            about = {"sha384": sha384, "length": length, "storage": storage, "path": path}
            tell(resource_freed, Resource, using, **about)
            return Returned(True, path, length)
        sql = (
            f"UPDATE {_RESOURCE} SET reference_count = reference_count - 1"
            " WHERE id = %s AND reference_count > 1 RETURNING path, length"
        )
        if row := rows.fetch(using, sql, [id]):
            return Returned(False, *row)
        if not Resource.objects.using(using).filter(pk=id).exists():
            raise ResourceNotFound(id)
    raise CatalogBusy(ATTEMPTS)


def recount(using: str, id: int, lower: bool) -> Recount:
    """Do what `ResourceCatalog.recount` says."""
    resource = Resource.objects.using(using).select_for_update().filter(pk=id).first()
    if resource is None:
        raise ResourceNotFound(id)
    # Whoever counts holds the lock until its object is written, so none is between the two.
    actual = ManagedResource.objects.using(using).filter(resource_id=id).count()
    recount = Recount(resource.reference_count, actual if lower else max(actual, resource.reference_count))
    if recount.before != recount.after:
        sql = f"UPDATE {_RESOURCE} SET reference_count = %s WHERE id = %s RETURNING id"
        rows.fetch(using, sql, [max(recount.after, 1), id])
        reach("recount.counted")
    if not recount.after:
        count_down(using, id, recount.discarded)
    return recount


def settle(using: str, resource: Resource, file: StoredFile, discarded: list[StoredFile]) -> None:
    """Make `file` the resource's own if it has no sound one, else discard it."""
    if resource.is_sound and resource.path != file.path:
        PendingFile.objects.using(using).filter(path=file.path).give_up()
        discarded.append(file)
        return
    if resource.path != file.path:
        _heal(using, resource, file, discarded)
    _take(using, file)


def record_upload(using: str, id: int, file: StoredFile) -> None:
    """Do what `ResourceCatalog.upload_complete` says."""
    resources = Resource.objects.using(using).filter(pk=id)
    if not resources.filter(path="").update(path=file.path, storage=file.storage):
        resource = resources.first()
        if resource is None:
            raise ResourceNotFound(id)
        raise AlreadyUploaded(id, resource.path)
    pending = PendingFile.objects.using(using).filter(path=file.path)
    # One statement asks and deletes: a sweep may give the file up at any moment.
    pending.filter(discard=False).delete()
    if pending.exists():
        raise LeaseLost(file.path)


def relocate(using: str, resource: Resource, file: StoredFile) -> list[StoredFile]:
    """Do what `ResourceCatalog.relocate` says."""
    there = Resource.objects.using(using).filter(pk=resource.pk, path=resource.path)
    sound = {"verified_at": timezone.now(), "damaged_at": None, "missing": False}
    if not there.update(path=file.path, storage=file.storage, **sound):
        raise ResourceNotFound(resource.sha384, "it was removed, or has another file by now")
    reach("relocate.switched")
    discarded: list[StoredFile] = []
    _discard(using, StoredFile(resource.storage, resource.path), resource.length, discarded)
    _take(using, file)
    reach("relocate.discarded")
    return discarded


def mark_damaged(using: str, resource: Resource, *, missing: bool = False) -> bool:
    """Do what `ResourceCatalog.mark_damaged` says."""
    same = Resource.objects.using(using).filter(pk=resource.pk, path=resource.path)
    now = timezone.now()
    if same.exclude(damaged_at__isnull=False, missing=missing).update(damaged_at=now, missing=missing):
        resource.damaged_at, resource.missing = now, missing
        reach("damage.marked")
        tell(resource_damaged, Resource, using, resource=resource, missing=missing)
    return bool(same.update(verified_at=now))


def mark_verified(using: str, resource: Resource) -> bool:
    """Do what `ResourceCatalog.mark_verified` says."""
    same = Resource.objects.using(using).filter(pk=resource.pk, path=resource.path)
    if resource.damaged_at is None:
        same = same.filter(damaged_at=None)
    else:
        # SQLite compares times as text, and those of its own clock end at the millisecond.
        same = same.filter(damaged_at__lt=resource.damaged_at + timedelta(milliseconds=1))
    return bool(same.update(verified_at=timezone.now(), damaged_at=None, missing=False))


def _heal(using: str, resource: Resource, file: StoredFile, discarded: list[StoredFile]) -> None:
    _discard(using, StoredFile(resource.storage, resource.path), resource.length, discarded)
    resource.path, resource.storage = file.path, file.storage
    resource.verified_at, resource.damaged_at, resource.missing = None, None, False
    marks = ["verified_at", "damaged_at", "missing"]
    resource.save(using=using, update_fields=["path", "storage", *marks])


def _discard(using: str, file: StoredFile, length: int, discarded: list[StoredFile]) -> None:
    if not file.path:
        return
    grace = timedelta(seconds=conf.DELETION_GRACE)
    PendingFile.objects.using(using).create(
        path=file.path, storage=file.storage, length=length, discard=True, due_at=Now() + grace
    )
    if not grace:
        discarded.append(file)


def _take(using: str, file: StoredFile) -> None:
    """Delete the row of the arriving `file`, which a resource names from now on."""
    # It must still be there: a sweep that found the lease expired may have deleted the file.
    sql = f"DELETE FROM {_PENDING_FILE} WHERE path = %s AND NOT discard RETURNING path"
    if rows.fetch(using, sql, [file.path]) is None:
        raise LeaseLost(file.path)
