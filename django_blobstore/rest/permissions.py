"""Who may do what where: a namespace as one user sees it.

What is allowed says `django_blobstore.access`. Who may do nothing with a bucket is told that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from django.db import router
from django.db.models import Q, QuerySet
from rest_framework.exceptions import PermissionDenied

from django_blobstore.access import ACTIONS, Action, Model, may
from django_blobstore.catalog import Condition
from django_blobstore.errors import BucketNotFound
from django_blobstore.models import Bucket, BucketQuerySet, ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.rows import read_bucket

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Route = Literal["bucket", "me", "global"]


def require(user: User, action: Action, model: Model, bucket: Bucket | None = None) -> None:
    """Raise `PermissionDenied` if `user` may not, or `BucketNotFound` if they may do nothing at all with `bucket`."""
    if may(user, action, model, bucket):
        return
    if bucket is not None and not _may_anything(user, bucket):
        raise BucketNotFound(str(bucket.pk))
    raise lacking(action, model, bucket)


def lacking(action: Action, model: Model, bucket: Bucket | None = None) -> PermissionDenied:
    """Return the refusal of what takes a permission, which it names."""
    where = " in general" if bucket is None else " in general or for this bucket"
    return PermissionDenied(f"This takes the permission django_blobstore.{action}_{model}{where}.")


def _may_anything(user: User, bucket: Bucket) -> bool:
    return any(
        may(user, action, "bucket", bucket) or may(user, action, "managedresource", bucket) for action in ACTIONS
    )


def bucket_key(uuid: str) -> UUID:
    """Return the primary key that `uuid` stands for, or raise `BucketNotFound`."""
    try:
        return UUID(uuid)
    except ValueError:
        raise BucketNotFound(uuid) from None


def find_bucket(uuid: str, buckets: BucketQuerySet | None = None) -> Bucket:
    """Return the bucket with this UUID, from `buckets` if given, or raise `BucketNotFound`; asks no permission."""
    key = bucket_key(uuid)
    found = read_bucket(router.db_for_read(Bucket), key) if buckets is None else buckets.filter(pk=key).first()
    if found is None:
        raise BucketNotFound(uuid)
    return found


def listed_buckets(user: User) -> BucketQuerySet:
    """Return the user's own buckets, or all for who may view any; others must be asked for by their UUID."""
    return Bucket.objects.all() if may(user, "view", "bucket") else Bucket.objects.filter(owner_id=user.pk)


@dataclass(frozen=True)
class Place:
    """The objects of a bucket, of the user (`me`) or of nobody (`global`), and what `user` may do with them."""

    user: User
    route: Route
    namespace: Namespace
    bucket: Bucket | None = None

    @classmethod
    def of_bucket(cls, user: User, uuid: str) -> Place:
        return cls._of(user, find_bucket(uuid))

    @classmethod
    def of_object(cls, user: User, route: Route, managed: ManagedResource) -> Place:
        """Return where `managed` was found by `route`."""
        return cls._of(user, managed.bucket) if managed.bucket else cls.of_route(user, route)

    @classmethod
    def of_route(cls, user: User, route: Route) -> Place:
        return cls(user, route, Namespace(user=str(user.pk)) if route == "me" else Namespace())

    @classmethod
    def _of(cls, user: User, bucket: Bucket) -> Place:
        return cls(user, "bucket", Namespace(bucket=bucket.pk), bucket)

    @classmethod
    def of_namespace(cls, user: User, namespace: Namespace) -> Place:
        if namespace.bucket:
            return cls.of_bucket(user, str(namespace.bucket))
        return cls.of_route(user, "me" if namespace.user else "global")

    def may(self, action: Action) -> bool:
        return self.route == "me" or may(self.user, action, "managedresource", self.bucket)

    def require(self, action: Action) -> None:
        """Raise `PermissionDenied` or `BucketNotFound` unless the user may do `action` with the objects here."""
        if not self.may(action):
            require(self.user, action, "managedresource", self.bucket)

    def require_put(self, path: str) -> None:
        """Raise unless the user may put an object at `path`: add a new one, or change the one that is there."""
        if self.may("add") and self.may("change"):
            return
        exists = ManagedResource.objects.at(self.namespace, path).exists()
        self.require("change" if exists else "add")

    def put_condition(self) -> Condition:
        """Return what a commit asks about the object there is: whether the user may put one in its place.

        Raises at once if the user may put none at all.
        """
        allowed: dict[Action, bool] = {"add": self.may("add"), "change": self.may("change")}
        if not any(allowed.values()):
            self.require("add")

        def allow(found: ManagedResource | None) -> None:
            action: Action = "change" if found else "add"
            if not allowed[action]:
                raise lacking(action, "managedresource", self.bucket)

        return allow

    def readable(self) -> QuerySet[ManagedResource]:
        """Return the objects, here and elsewhere, that the user may read."""
        objects = ManagedResource.objects.all()
        own = Q(bucket=None, user=str(self.user.pk))
        if may(self.user, "view", "managedresource"):
            return objects.filter(own | Q(user=""))
        readable = own | Q(user="", bucket__owner_id=self.user.pk)
        if self.bucket is not None and self.may("view"):
            readable |= Q(user="", bucket=self.bucket)
        return objects.filter(readable)
