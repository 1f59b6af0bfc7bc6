"""Which place of the store a page is about, and what the person who looks at it may do there."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q
from django.http import Http404, HttpRequest, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _

from django_blobstore.access import Action, granted_buckets, may
from django_blobstore.errors import InvalidNamespace
from django_blobstore.models import Bucket, BucketQuerySet, ManagedResource, ManagedResourceQuerySet
from django_blobstore.namespaces import Namespace

if TYPE_CHECKING:
    from django.contrib.auth.models import User

GLOBAL = "global"
_OWNS = "_blobstore_owns_buckets"


@dataclass(frozen=True)
class Place:
    """A namespace as `viewer` sees it; `bucket` is that of the namespace, if it has one."""

    viewer: User
    namespace: Namespace
    bucket: Bucket | None = None

    @classmethod
    def named(cls, request: HttpRequest, given: QueryDict) -> Place | None:
        """Return the place that `given` parameters name, or None if they name none.

        Raises `Http404` for a place that is not there or in which the person may see nothing.
        """
        bucket, user = given.get("bucket", ""), given.get("user", "")
        if not (bucket or user or given.get("namespace") == GLOBAL):
            return None
        found = _bucket(bucket) if bucket else None
        try:
            place = cls(viewer(request), Namespace(bucket=found.pk if found else "", user=user), found)
        except InvalidNamespace as error:
            raise Http404(str(error)) from error
        if not place.may("view"):
            raise Http404(_("There is no such place, or you may not see it."))
        return place

    @classmethod
    def of(cls, request: HttpRequest, managed: ManagedResource) -> Place:
        """Return where `managed` lives."""
        return cls(viewer(request), managed.namespace, managed.bucket)

    def may(self, action: Action) -> bool:
        """Whether the viewer may do `action` with the objects here; with their own outside buckets, anything."""
        own = self.bucket is None and self.namespace.user == str(self.viewer.pk)
        return own or may(self.viewer, action, "managedresource", self.bucket)

    @property
    def objects(self) -> ManagedResourceQuerySet:
        return ManagedResource.objects.within(self.namespace)

    @property
    def parameters(self) -> dict[str, str]:
        """What names this place in an address or a form."""
        named = {"bucket": str(self.namespace.bucket), "user": self.namespace.user}
        return {name: value for name, value in named.items() if value} or {"namespace": GLOBAL}

    @property
    def title(self) -> str:
        if self.bucket and self.namespace.user:
            return _("%(bucket)s, user %(user)s") % {"bucket": self.bucket, "user": self.namespace.user}
        if self.bucket:
            return str(self.bucket)
        user = self.namespace.user
        return _("User %(user)s") % {"user": user} if user else _("Global objects")

    def url(self, site_name: str, page: str = "browse", **more: object) -> str:
        """Return the address of the `page` about this place, such as that of a folder in it."""
        name = f"admin:django_blobstore_managedresource_{page}"
        chosen = {key: value for key, value in more.items() if value}
        return f"{reverse(name, current_app=site_name)}?{urlencode({**self.parameters, **chosen})}"


def viewer(request: HttpRequest) -> User:
    """Return who looks; the admin has let nobody in who is not logged in."""
    return cast("User", request.user)


def sees_every_place(user: User) -> bool:
    """Whether `user` may see objects wherever they are, and so may know how many there are of a content."""
    return may(user, "view", "managedresource")


def sees_counts(user: User) -> bool:
    """Whether `user` may know how often contents are referred to, which tells of other people's objects."""
    return user.has_perm("django_blobstore.view_resource") and sees_every_place(user)


def listed_buckets(user: User) -> BucketQuerySet:
    """Return the buckets that `user` is shown in lists: all, or their own and those in which they may see something."""
    if may(user, "view", "bucket") or may(user, "change", "bucket"):
        return Bucket.objects.all()
    return Bucket.objects.filter(Q(owner=user.pk) | Q(pk__in=_shown_buckets(user) | seen_inside(user)))


def own_buckets(user: User) -> BucketQuerySet:
    """Return the buckets whose objects `user` may see because they are theirs or by a permission on each."""
    return Bucket.objects.filter(Q(owner=user.pk) | Q(pk__in=seen_inside(user)))


def seen_inside(user: User) -> Set[UUID]:
    """Return the buckets in which `user` may see objects by a permission on the bucket."""
    return granted_buckets(user, "view", "managedresource")


def has_own_buckets(user: User) -> bool:
    """Whether `user` owns buckets, or may see objects in some by a permission on each."""
    return owns_buckets(user) or bool(seen_inside(user))


def may_put_somewhere(user: User) -> bool:
    """Whether `user` may put objects into some bucket."""
    writing: tuple[Action, ...] = ("add", "change")
    if owns_buckets(user) or any(may(user, action, "managedresource") for action in writing):
        return True
    return any(granted_buckets(user, action, "managedresource") for action in writing)


def sees_all_listed(user: User) -> bool:
    """Whether `user` may see the objects of each bucket in their list, and so how much is in it."""
    is_listed_all = may(user, "view", "bucket") or may(user, "change", "bucket")
    return sees_every_place(user) or not (is_listed_all or _shown_buckets(user) - seen_inside(user))


def _shown_buckets(user: User) -> Set[UUID]:
    return granted_buckets(user, "view", "bucket") | granted_buckets(user, "change", "bucket")


def owns_buckets(user: User) -> bool:
    """Whether `user` has buckets of their own; asked for once in a request."""
    known: bool | None = getattr(user, _OWNS, None)
    if known is None:
        known = Bucket.objects.filter(owner=user.pk).exists()
        setattr(user, _OWNS, known)
    return known


def _bucket(key: str) -> Bucket:
    try:
        found = Bucket.objects.filter(pk=UUID(key)).first()
    except ValueError:
        found = None
    if found is None:
        raise Http404(_("There is no such place, or you may not see it."))
    return found
