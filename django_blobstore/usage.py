"""How much each namespace holds: totals that the transaction which changes a namespace changes with it.

The totals of a namespace are the sum of several rows. Each thread adds to one of them, so that those who put into the
same bucket seldom wait for each other; the figures of a single row mean nothing and may be negative.
"""

from __future__ import annotations

from threading import get_native_id
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import F

from django_blobstore.errors import QuotaExceeded
from django_blobstore.models import Bucket, ManagedResource, Resource, Totals, Usage
from django_blobstore.namespaces import Namespace
from django_blobstore.rows import fetch, holder_condition

STRIPES = 8


class Held(NamedTuple):
    """A content that an object refers to: the primary key of its resource, and its length in bytes."""

    id: int
    length: int


NOTHING = Held(0, 0)


def record(using: str, managed: ManagedResource, *, gained: Held = NOTHING, lost: Held = NOTHING) -> bool:
    """Add to the totals what `managed` gained and take off what it lost; say whether they are kept yet (see `begin`).

    To be called with both resources locked, and before the new reference of `managed` is written. Raises
    `QuotaExceeded` if the bucket grows beyond its quota.
    """
    condition, key = holder_condition(using, managed.namespace)
    # A content is stored for the namespace unless another object there refers to it too.
    stored = f"CASE WHEN EXISTS (SELECT 1 FROM {_OBJECTS} WHERE resource_id = %s AND {condition} AND id <> %s)"
    stored += " THEN 0 ELSE %s END"
    own = managed.pk or 0
    parameters: list[Any] = [bool(gained.id) - bool(lost.id), gained.length - lost.length]
    parameters += [gained.id, key, own, gained.length, lost.id, key, own, lost.length, key, _stripe(using)]
    row = fetch(
        using,
        f"UPDATE {_USAGE} SET object_count = object_count + %s, logical_bytes = logical_bytes + %s,"
        f" stored_bytes = stored_bytes + {stored} - {stored} WHERE {condition} AND stripe = %s"
        f" RETURNING (SELECT quota_bytes FROM {_BUCKETS} WHERE uuid = bucket_id)",
        parameters,
    )
    if row and row[0] is not None and gained.length > lost.length:
        _check_quota(using, managed.namespace)
    return row is not None


def _check_quota(using: str, namespace: Namespace) -> None:
    # Whoever waits for this lock sees what the other one put, once that is committed.
    bucket = Bucket.objects.using(using).select_for_update(no_key=True).get(pk=str(namespace.bucket_id))
    length = Usage.objects.using(using).within(namespace).totals().logical_bytes
    if bucket.quota_bytes is not None and length > bucket.quota_bytes:
        raise QuotaExceeded(bucket, bucket.quota_bytes, length)


def begin(using: str, namespace: Namespace) -> None:
    """Make the row in which this thread keeps its share of the totals of `namespace`, whose bucket must be there."""
    user = "" if namespace.bucket_id else namespace.user
    row = Usage(bucket_id=namespace.bucket_id, user=user, stripe=_stripe(using))
    Usage.objects.using(using).bulk_create([row], ignore_conflicts=True)


def drift(using: str, namespace: Namespace) -> Totals:
    """Return what is missing from the totals of `namespace`: nothing, unless rows were changed past the catalog.

    One statement sees one moment, and whoever changes objects changes the totals in the same transaction; so it is
    the same whatever others do, and can be added later.
    """
    condition, key = holder_condition(using, namespace)
    own = f"FROM {_OBJECTS} WHERE {condition}"
    kept = f"FROM {_USAGE} WHERE {condition}"
    row = fetch(
        using,
        f"SELECT (SELECT COUNT(*) {own}) - (SELECT COALESCE(SUM(object_count), 0) {kept}),"
        f" (SELECT COALESCE(SUM(length), 0) FROM {_OBJECTS} JOIN {_RESOURCES} ON {_RESOURCES}.id = resource_id"
        f" WHERE {condition}) - (SELECT COALESCE(SUM(logical_bytes), 0) {kept}),"
        f" (SELECT COALESCE(SUM(length), 0) FROM {_RESOURCES} WHERE id IN (SELECT resource_id {own}))"
        f" - (SELECT COALESCE(SUM(stored_bytes), 0) {kept})",
        [key] * 6,
    )
    return Totals(*map(int, row or ()))


def correct(using: str, namespace: Namespace) -> Totals:
    """Make the totals of `namespace` right, inside a transaction of the caller; return what was missing."""
    begin(using, namespace)
    shares = Usage.objects.using(using).within(namespace)
    # Locked, so that nobody else corrects the same at the same time.
    locked = list(shares.select_for_update())
    missing = drift(using, namespace)
    more = {column: F(column) + difference for column, difference in missing._asdict().items()}
    shares.filter(pk=locked[0].pk).update(**more)
    return missing


def _stripe(using: str) -> int:
    """Return which share is ours. Whoever changes many objects in one transaction has one that no put waits for."""
    return STRIPES if len(connections[using].atomic_blocks) > 1 else get_native_id() % STRIPES


_BUCKETS = Bucket._meta.db_table
_OBJECTS = ManagedResource._meta.db_table
_RESOURCES = Resource._meta.db_table
_USAGE = Usage._meta.db_table
