"""Who may do what with buckets and objects, whichever edge asks.

Permissions are Django's own ones on `Bucket` and `ManagedResource`, asked for in general and then for the bucket, so
that any backend of object permissions takes part. The owner of a bucket may do everything in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.contrib.auth import get_backends
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import PermissionsMixin
from django.contrib.contenttypes.models import ContentType
from django.db import connections, router
from django.utils.module_loading import import_string

from django_blobstore.conf import conf
from django_blobstore.models import Bucket

if TYPE_CHECKING:
    from django.contrib.auth.models import User

Action = Literal["view", "add", "change", "delete"]
Model = Literal["bucket", "managedresource"]

ACTIONS: tuple[Action, ...] = ("view", "add", "change", "delete")
# No backend need tell which objects a permission is granted on, so it is asked about so many buckets, one by one.
LOOKED_AT = 100
_KNOWN = "_blobstore_granted"


def may(user: User, action: Action, model: Model, bucket: Bucket | None = None) -> bool:
    """Say whether `user` may do `action` with rows of `model`, anywhere or at least in `bucket`."""
    # The owner first: that costs no query.
    if bucket is not None and bucket.owner_id == user.pk:
        return True
    permission = f"django_blobstore.{action}_{model}"
    return user.has_perm(permission) or (bucket is not None and user.has_perm(permission, bucket))


def holds(user: User, codename: str) -> bool:
    """Say what ``user.has_perm(f"django_blobstore.{codename}")`` does.

    Django reads all permissions of a user by two queries, whose making takes a fifth of a small request. Where nobody
    but its own backend is asked, one does, and only for ours.
    """
    if user.is_superuser or hasattr(user, "_perm_cache") or not _only_django_knows(user):
        return user.has_perm(f"django_blobstore.{codename}")
    return bool(user.is_active) and codename in _codenames(user)


def _only_django_knows(user: User) -> bool:
    if getattr(user.__class__, "has_perm", None) is not PermissionsMixin.has_perm:
        return False
    return all(type(backend) is ModelBackend for backend in get_backends())


def _codenames(user: User) -> set[str]:
    """Return the codenames of our permissions that `user` or one of their groups has; kept for as long as `user` is."""
    known: set[str] | None = getattr(user, "_blobstore_codenames", None)
    if known is None:
        connection = connections[router.db_for_read(user.__class__, instance=user)]
        key = user._meta.pk.get_db_prep_value(user.pk, connection)
        with connection.cursor() as cursor:
            cursor.execute(_sql(user.__class__, connection.ops.quote_name), [key, key])
            known = {codename for (codename,) in cursor.fetchall()}
        user._blobstore_codenames = known  # type: ignore[attr-defined]
    return known


def _sql(model: type[User], quote: Callable[[str], str]) -> str:
    # By hand: to have Django make it takes as long as its two queries.
    given: Any = model._meta.get_field("user_permissions")
    groups: Any = model._meta.get_field("groups")
    theirs: Any = groups.related_model._meta.get_field("permissions")
    permissions = quote(given.related_model._meta.db_table)
    types = quote(ContentType._meta.db_table)
    of_users, of_groups, members = (quote(field.m2m_db_table()) for field in (given, theirs, groups))
    of_user = f"SELECT {quote(given.m2m_reverse_name())} FROM {of_users} WHERE {quote(given.m2m_column_name())} = %s"
    of_their_groups = (
        f"SELECT {of_groups}.{quote(theirs.m2m_reverse_name())} FROM {of_groups} JOIN {members}"
        f" ON {members}.{quote(groups.m2m_reverse_name())} = {of_groups}.{quote(theirs.m2m_column_name())}"
        f" WHERE {members}.{quote(groups.m2m_column_name())} = %s"
    )
    return (
        f"SELECT codename FROM {permissions} JOIN {types} ON {types}.id = content_type_id"
        f" WHERE {types}.app_label = 'django_blobstore'"
        f" AND ({permissions}.id IN ({of_user}) OR {permissions}.id IN ({of_their_groups}))"
    )


def granted_buckets(user: User, action: Action, model: Model) -> Set[UUID]:
    """Return the buckets in which `user` may do `action` with rows of `model` by a permission on the bucket alone.

    They are found once for each `user` as it is in memory; see the setting ``GRANTED_BUCKETS``.
    """
    known: dict[str, Any] = user.__dict__.setdefault(_KNOWN, {})
    permission = f"django_blobstore.{action}_{model}"
    if permission not in known:
        known[permission] = frozenset(_granted(user, permission, known) if user.is_active else ())
    buckets: Set[UUID] = known[permission]
    return buckets


def may_grant_on_buckets() -> bool:
    """Whether some backend may grant a permission on single buckets, which Django's own does not."""
    return not all(map(_ignores_objects, get_backends()))


def _ignores_objects(backend: Any) -> bool:
    decides = type(backend)
    if not hasattr(decides, "has_perm"):
        return True
    is_djangos = isinstance(backend, ModelBackend) and decides.has_perm is ModelBackend.has_perm
    return is_djangos and decides._get_permissions is ModelBackend._get_permissions  # type: ignore[attr-defined]


def _granted(user: User, permission: str, known: dict[str, Any]) -> Iterable[UUID]:
    if conf.GRANTED_BUCKETS:
        found: Iterable[UUID] = import_string(conf.GRANTED_BUCKETS)(user, permission)
        return found
    if not may_grant_on_buckets():
        return ()
    if "" not in known:
        known[""] = list(Bucket.objects.order_by("pk")[:LOOKED_AT])
    return [bucket.pk for bucket in known[""] if user.has_perm(permission, bucket)]
