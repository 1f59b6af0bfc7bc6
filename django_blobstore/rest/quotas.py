"""What a bucket may hold: who sees and sets it, and puts refused before their bytes travel.

Here only what is bound to fail is refused; the commit of the catalog counts exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_blobstore.access import may
from django_blobstore.errors import QuotaExceeded
from django_blobstore.models import Bucket, ManagedResource, Usage
from django_blobstore.rest.permissions import Place
from django_blobstore.rest.problems import Problem

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def may_see_quota(user: User, bucket: Bucket) -> bool:
    """Whether `user` owns `bucket` or may set its quota."""
    return bucket.owner_id == user.pk or may_set_quotas(user)


def may_set_quotas(user: User) -> bool:
    """Whether `user` may change any bucket: owners are not to lift their own quotas."""
    return may(user, "change", "bucket")


def require_room(place: Place, path: str, length: int) -> None:
    """Raise if the bucket has no room for a content of `length` bytes at `path`; a negative length is not known yet.

    Raises a 413 `Problem` for what would never fit and `QuotaExceeded` for what does not fit now. What is no longer
    than the object it replaces is let pass, as the catalog does.
    """
    quota = place.bucket.quota_bytes if place.bucket else None
    if quota is None or length < 0:
        return
    held = Usage.objects.within(place.namespace).totals().logical_bytes
    if length <= quota and held + length <= quota:
        return
    replaced = ManagedResource.objects.at(place.namespace, path).values_list("resource__length", flat=True).first() or 0
    if length <= replaced:
        return
    if length > quota:
        raise Problem(413, "content-too-large", f"The whole bucket may hold {quota} bytes.", limit=quota)
    if held - replaced + length > quota:
        raise QuotaExceeded(place.bucket, quota, held - replaced + length)
