"""A backend of object permissions, as django-guardian and its like are, that keeps them in a dictionary."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User

BACKENDS = ["django.contrib.auth.backends.ModelBackend", "tests.rest.object_permissions.ObjectPermissions"]

granted: set[tuple[int, str, Any]] = set()


def grant(user: User, permission: str, obj: Any) -> None:
    granted.add((user.pk, f"django_blobstore.{permission}", obj.pk))


class ObjectPermissions:
    """Knows only permissions for one object."""

    def authenticate(self, request: Any, **credentials: Any) -> None:
        return None

    def has_perm(self, user: User, permission: str, obj: Any = None) -> bool:
        return obj is not None and (user.pk, permission, obj.pk) in granted


def buckets(user: User, permission: str) -> set[Any]:
    """Return the buckets on which `user` has `permission`, as the setting GRANTED_BUCKETS asks for them."""
    return {key for holder, name, key in granted if (holder, name) == (user.pk, permission)}
