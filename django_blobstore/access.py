"""Who may do what with buckets and objects, whichever edge asks.

Permissions are Django's own ones on `Bucket` and `ManagedResource`, asked for in general and then for the bucket, so
that any backend of object permissions takes part. The owner of a bucket may do everything in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from django_blobstore.models import Bucket

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Action = Literal["view", "add", "change", "delete"]
Model = Literal["bucket", "managedresource"]

ACTIONS: tuple[Action, ...] = ("view", "add", "change", "delete")


def may(user: User, action: Action, model: Model, bucket: Bucket | None = None) -> bool:
    """Say whether `user` may do `action` with rows of `model`, anywhere or at least in `bucket`."""
    # The owner first: that costs no query.
    if bucket is not None and bucket.owner_id == user.pk:
        return True
    permission = f"django_blobstore.{action}_{model}"
    return user.has_perm(permission) or (bucket is not None and user.has_perm(permission, bucket))
