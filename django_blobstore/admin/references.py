"""The places that refer to a content, page by page, as far as the person who looks may see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Q

from django_blobstore.access import LOOKED_AT, may
from django_blobstore.admin.keyset import after, before
from django_blobstore.admin.places import seen_inside, sees_every_place
from django_blobstore.conf import conf
from django_blobstore.models import Bucket, ManagedResource, ManagedResourceQuerySet, Resource

if TYPE_CHECKING:
    from django.contrib.auth.models import User

INSIDE, OUTSIDE = "inside", "outside"
PER_PAGE = 100
# How many references are looked at for buckets that only a backend of object permissions lets the person see, and at
# most how many are counted of those that they may see.
EXAMINED = 10_000


@dataclass(frozen=True)
class References:
    """A page of the objects that refer to a content.

    `next_after` names the place where the next page begins, and `former_after` that of the page before; each is "" if
    there is no such page, or if it begins where the objects do.
    """

    objects: list[ManagedResource]
    next_after: str
    former_after: str
    count: int
    is_all: bool

    @classmethod
    def seen_by(cls, user: User, resource: Resource, place: str) -> References:
        visible = _visible(user, resource)
        side, last = _parsed(place)
        found = list(_from(visible, side, last))
        objects = found[:PER_PAGE]
        is_all = sees_every_place(user)
        count = resource.reference_count if is_all else len(visible.order_by().values_list("pk")[:EXAMINED])
        next_after = _place_of(objects[-1]) if len(found) > PER_PAGE else ""
        return cls(objects, next_after, _former(visible, side, last), count, is_all)


def _visible(user: User, resource: Resource) -> ManagedResourceQuerySet:
    references = ManagedResource.objects.filter(resource=resource)
    if sees_every_place(user):
        return references
    own = Q(bucket__owner=user.pk) | Q(bucket=None, user=str(user.pk))
    return references.filter(own | Q(bucket__in=_granted(user, references)))


def _granted(user: User, references: ManagedResourceQuerySet) -> list[UUID]:
    """Return the buckets whose objects the person may see; without `GRANTED_BUCKETS`, among the first references."""
    if conf.GRANTED_BUCKETS:
        return list(seen_inside(user))
    keys = list(dict.fromkeys(references.exclude(bucket=None).values_list("bucket_id", flat=True)[:EXAMINED]))
    keys = keys[:LOOKED_AT]
    return [bucket.pk for bucket in Bucket.objects.filter(pk__in=keys) if may(user, "view", "managedresource", bucket)]


def _parsed(place: str) -> tuple[str, ManagedResource | None]:
    side, _dot, key = place.partition(".")
    return side, ManagedResource.objects.filter(pk=key).first() if key.isdecimal() else None


def _from(references: ManagedResourceQuerySet, side: str, last: ManagedResource | None) -> Iterator[ManagedResource]:
    """Yield a page and one more: first those in buckets, then those outside, as the index has them."""
    left = PER_PAGE + 1
    if side != OUTSIDE:
        inside = after(references.exclude(bucket=None), last, "bucket_id", "user", "pk").prefetch_related("bucket")
        found = list(inside[:left])
        yield from found
        left, last = left - len(found), None
    if left:
        yield from after(references.filter(bucket=None), last, "user", "pk")[:left]


def _former(references: ManagedResourceQuerySet, side: str, last: ManagedResource | None) -> str:
    """Return the place where the page that ends with `last` begins, or "" if that is the first one."""
    if last is None:
        return ""
    found: list[ManagedResource] = []
    if side == OUTSIDE:
        found, last = list(before(references.filter(bucket=None), last, "user", "pk")[:PER_PAGE]), None
    left = PER_PAGE - len(found)
    if left:
        found += before(references.exclude(bucket=None), last, "bucket_id", "user", "pk")[:left]
    return _place_of(found[-1]) if len(found) == PER_PAGE else ""


def _place_of(managed: ManagedResource) -> str:
    return f"{INSIDE if managed.bucket_id else OUTSIDE}.{managed.pk}"
