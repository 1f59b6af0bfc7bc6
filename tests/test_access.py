"""Who holds a permission, as Django would say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject
from pytest_django import Settings

from django_blobstore.access import holds
from tests.gallery.models import Visitor
from tests.rest import api


class Everything:
    """A backend by which everybody may do everything."""

    def authenticate(self, request: object, **credentials: object) -> None:
        return None

    def has_perm(self, user: User, permission: str, obj: object = None) -> bool:
        return True


def member(*codenames: str) -> User:
    group = Group.objects.create(name="group")
    group.permissions.set(Permission.objects.filter(codename__in=codenames))
    user = api.person("member")
    user.groups.add(group)
    return user


def inactive(user: User) -> User:
    User.objects.filter(pk=user.pk).update(is_active=False)
    return user


@pytest.mark.parametrize(
    ("make", "holder"),
    [
        (lambda: api.person("nobody"), False),
        (lambda: api.person("other", "view_bucket", "change_resource"), False),
        (lambda: api.person("auditor", "view_resource"), True),
        (lambda: member("view_resource", "view_bucket"), True),
        (lambda: member("view_bucket"), False),
        (lambda: inactive(api.person("gone", "view_resource")), False),
        (lambda: api.administrator(), True),
        (lambda: inactive(api.administrator()), False),
    ],
)
def test_one_query_at_most_says_what_django_says(database: str, make: Callable[[], User], holder: bool) -> None:
    key = make().pk
    member_of_another = Group.objects.create(name="another")
    member_of_another.permissions.set(Permission.objects.filter(codename="view_resource"))
    user = User.objects.get(pk=key)
    with CaptureQueriesContext(connections[database]) as asked:
        assert holds(user, "view_resource") is holds(user, "view_resource") is holder
    assert len(asked) <= 1
    assert User.objects.get(pk=key).has_perm("django_blobstore.view_resource") is holder
    assert holds(SimpleLazyObject(lambda: User.objects.get(pk=key)), "view_resource") is holder  # type: ignore[arg-type]


@pytest.fixture
def visitors(database: str) -> Iterator[None]:
    """The tables of `Visitor`."""
    with connections[database].schema_editor() as editor:
        editor.create_model(Visitor)
    yield
    with connections[database].schema_editor() as editor:
        editor.delete_model(Visitor)


@pytest.mark.usefixtures("visitors")
def test_users_of_a_project_may_have_any_key_and_table() -> None:
    visitor = Visitor.objects.create()
    assert not holds(visitor, "view_resource")  # type: ignore[arg-type]
    group = Group.objects.create(name="guides")
    group.permissions.set(Permission.objects.filter(codename="view_resource"))
    visitor.groups.add(group)
    assert holds(Visitor.objects.get(pk=visitor.pk), "view_resource")  # type: ignore[arg-type]


@pytest.mark.django_db
def test_a_permission_of_that_name_in_another_app_is_another_one() -> None:
    user = api.person("other")
    other = Permission.objects.exclude(content_type__app_label="django_blobstore")[0]
    user.user_permissions.add(Permission.objects.create(codename="view_resource", content_type=other.content_type))
    assert not holds(User.objects.get(pk=user.pk), "view_resource")


@pytest.mark.django_db
def test_other_backends_and_users_are_asked_themselves(settings: Settings) -> None:
    assert not holds(AnonymousUser(), "view_resource")  # type: ignore[arg-type]
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", f"{__name__}.Everything"]
    assert holds(api.person("nobody"), "view_resource")
