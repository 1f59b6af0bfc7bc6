"""Who may open which page of the admin, and sees and does what there: by permissions, ownership, and single buckets."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from django_blobstore import access
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Measurement, PendingFile, PutRequest, Resource, UpkeepRun
from django_blobstore.upkeep import sweep
from tests.admin_pages import administrator, page, text
from tests.conftest import ON_ONE_DATABASE
from tests.invariants import assert_sound
from tests.rest import object_permissions
from tests.rest.object_permissions import grant
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

# What each person is granted: in general, on the bucket "photos", or that it is theirs.
PEOPLE: dict[str, dict[str, Any]] = {
    "nobody": {},
    "views objects": {"general": ["view_managedresource"]},
    "views buckets": {"general": ["view_bucket"]},
    "views resources": {"general": ["view_resource"]},
    "views and deletes objects": {"general": ["view_managedresource", "delete_managedresource"]},
    "views and changes objects": {"general": ["view_managedresource", "change_managedresource"]},
    "views photos": {"in_photos": ["view_managedresource"]},
    "views bucket photos": {"in_photos": ["view_bucket"]},
    "views and deletes in photos": {"in_photos": ["view_managedresource", "delete_managedresource"]},
    "owns photos": {"owns": True},
    "owns photos and views resources": {"owns": True, "general": ["view_resource"]},
}
VIEWS_ALL = {"views objects", "views and deletes objects", "views and changes objects"}
IN_PHOTOS = {"views photos", "views and deletes in photos", "owns photos", "owns photos and views resources"}
OWNERS = {"owns photos", "owns photos and views resources"}
RESOURCES = {"views resources", "owns photos and views resources"}
# Who is granted something in one bucket, or owns it, and has no permission in general.
OF_ONE_BUCKET = sorted((IN_PHOTOS | {"views bucket photos"}) - RESOURCES)

# Which page is answered to whom; to all others it is refused or not found.
PAGES: dict[str, set[str]] = {
    "browse photos": VIEWS_ALL | IN_PHOTOS,
    "browse secret": VIEWS_ALL,
    "browse global": VIEWS_ALL,
    "browse a user": VIEWS_ALL,
    "object in photos": VIEWS_ALL | IN_PHOTOS,
    "object in secret": VIEWS_ALL,
    "download from photos": VIEWS_ALL | IN_PHOTOS,
    "download from secret": VIEWS_ALL,
    "preview from photos": VIEWS_ALL | IN_PHOTOS,
    "preview from secret": VIEWS_ALL,
    "history in photos": VIEWS_ALL | IN_PHOTOS,
    "history in secret": VIEWS_ALL,
    "copy from photos": {"views and changes objects"} | OWNERS,
    "copy from secret": {"views and changes objects"},
    "rename in photos": OWNERS,
    "rename in secret": set(),
    "replace in photos": {"views and changes objects"} | OWNERS,
    "replace in secret": {"views and changes objects"},
    "delete in photos": {"views and deletes objects", "views and deletes in photos"} | OWNERS,
    "delete in secret": {"views and deletes objects"},
    "delete folder of photos": {"views and deletes objects", "views and deletes in photos"} | OWNERS,
    "delete folder of secret": {"views and deletes objects"},
    "list of buckets": {"views buckets", "views bucket photos"} | IN_PHOTOS,
    "search for photos": {"views buckets", "views bucket photos"} | IN_PHOTOS,
    "bucket photos": {"views buckets", "views bucket photos"} | OWNERS,
    "bucket secret": {"views buckets"},
    "delete photos": OWNERS,
    "dashboard": IN_PHOTOS,
    "dashboard of photos": VIEWS_ALL | IN_PHOTOS,
    "dashboard of secret": VIEWS_ALL,
    "places": set(PEOPLE),
    "index": set(PEOPLE) - {"nobody"},
    "pending files": set(),
    "put requests": set(),
    "runs of upkeep": set(),
    "list of resources": RESOURCES,
    "resource": RESOURCES,
}


@pytest.fixture(autouse=True)
def _backends(settings: Settings) -> None:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    object_permissions.granted.clear()


@pytest.fixture
def content(database: str, stored: Stored) -> Resource:
    """A content in two buckets, of a user and global, in a folder each."""
    store = ManagedStorage()
    for namespace in (Namespace("photos"), Namespace("secret"), Namespace(), Namespace(user="of somebody")):
        store.put(namespace, "folder/one", b"shared", content_type="text/plain")
    return Resource.objects.get()


def client_of(person: str) -> Client:
    granted = PEOPLE[person]
    user = User.objects.create_user(person, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=granted.get("general", [])))
    photos = Bucket.objects.get(name="photos")
    for permission in granted.get("in_photos", []):
        grant(user, permission, photos)
    if granted.get("owns"):
        Bucket.objects.filter(pk=photos.pk).update(owner=user)
    client = Client()
    client.force_login(user)
    return client


def addresses() -> dict[str, str]:
    buckets = {bucket.name: bucket for bucket in Bucket.objects.all()}
    inside = {managed.bucket.name: managed for managed in ManagedResource.objects.exclude(bucket=None)}  # type: ignore[union-attr]
    browse, remove = page(ManagedResource, "browse"), page(ManagedResource, "remove")
    found = {
        "browse global": f"{browse}?namespace=global",
        "browse a user": f"{browse}?user=of+somebody",
        "list of buckets": page(Bucket, "changelist"),
        "search for photos": f"{page(Bucket, 'changelist')}?q=photos",
        "dashboard": page(Measurement, "changelist"),
        "places": browse,
        "index": reverse("admin:app_list", args=["django_blobstore"]),
        "pending files": page(PendingFile, "changelist"),
        "put requests": page(PutRequest, "changelist"),
        "runs of upkeep": page(UpkeepRun, "changelist"),
        "delete photos": page(Bucket, "delete", buckets["photos"].pk),
        "list of resources": page(Resource, "changelist"),
        "resource": page(Resource, "change", Resource.objects.earliest("pk").pk),
    }
    for name, bucket in buckets.items():
        managed = inside[name]
        found |= {
            f"browse {name}": f"{browse}?bucket={bucket.pk}",
            f"bucket {name}": page(Bucket, "change", bucket.pk),
            f"dashboard of {name}": page(Measurement, "bucket", bucket.pk),
            f"object in {name}": page(ManagedResource, "change", managed.pk),
            f"download from {name}": page(ManagedResource, "download", managed.pk),
            f"preview from {name}": page(ManagedResource, "content", managed.pk),
            f"history in {name}": page(ManagedResource, "history", managed.pk),
            f"copy from {name}": page(ManagedResource, "copy", managed.pk),
            f"rename in {name}": page(ManagedResource, "move", managed.pk),
            f"replace in {name}": page(ManagedResource, "replace", managed.pk),
            f"delete in {name}": page(ManagedResource, "delete", managed.pk),
            f"delete folder of {name}": f"{remove}?bucket={bucket.pk}&folder=folder/",
        }
    return found


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
@pytest.mark.parametrize("person", PEOPLE)
def test_each_page_is_answered_to_those_who_may_see_it_and_to_nobody_else(
    content: Resource, stored: Stored, person: str
) -> None:
    client, asked = client_of(person), addresses()
    assert asked.keys() == PAGES.keys()
    answers = {name: client.get(address) for name, address in asked.items()}
    assert {answer.status_code for answer in answers.values()} <= {200, 403, 404}
    answered = {name for name, answer in answers.items() if answer.status_code == 200}
    assert answered == {name for name, people in PAGES.items() if person in people}
    for place in ("in photos", "in secret"):
        if f"object {place}" in answered:
            shown = answers[f"object {place}"].content.decode()
            told = {f"copy {place}".replace(" in ", " from "), f"rename {place}", f"replace {place}"}
            assert {name for name in told if f'href="{asked[name]}"' in shown} == told & answered
    assert ManagedResource.objects.count() == 4
    assert_sound(stored)


@pytest.mark.parametrize("person", OF_ONE_BUCKET)
def test_who_may_see_one_bucket_finds_it_and_no_page_tells_of_another(
    content: Resource, stored: Stored, person: str
) -> None:
    ManagedStorage().put(Namespace("secret"), "folder/two", b"secret " * 1000)
    sweep()
    client = client_of(person)
    answers = {name: client.get(address) for name, address in addresses().items()}
    answered = {name: answer for name, answer in answers.items() if answer.status_code == 200}
    shown = {name: text(answer) for name, answer in answered.items() if not answer.streaming}
    assert shown.keys() >= {"list of buckets", "search for photos", "places"}
    telling = re.compile(r"secret|of somebody|folder/two|6[.,]8.KB|7[.,]?006")
    assert {name: telling.findall(told) for name, told in shown.items() if telling.search(told)} == {}
    found = ["list of buckets", "search for photos", *(["dashboard"] if person in IN_PHOTOS else [])]
    assert [name for name in found if "photos" not in shown[name]] == []
    if person in IN_PHOTOS:
        [(bucket, _url)] = answers["dashboard"].context["own_buckets"]
        assert (bucket.name, bucket.object_count, bucket.logical_bytes) == ("photos", 1, 6)
        totals = answers["dashboard of photos"].context["figures"].totals
        assert totals == (1, 6, 6)
        assert "Objects" in shown["list of buckets"]
    else:
        assert "6 bytes" not in shown["list of buckets"].replace("\xa0", " ")


def test_each_bucket_in_the_list_leads_to_a_page_that_may_be_seen(content: Resource) -> None:
    for person in OF_ONE_BUCKET:
        client = client_of(person)
        links = re.findall('field-label[^>]*><a href="([^"]*)"', page_source(client, page(Bucket, "changelist")))
        assert [client.get(unescape(link)).status_code for link in links] == [200], person


def test_no_order_of_the_list_tells_how_much_is_in_buckets_that_one_may_not_see(content: Resource) -> None:
    usage = {"object_count", "logical_bytes", "stored_bytes"}
    for person, may_sort in {"views bucket photos": False, "views photos": True, "owns photos": True}.items():
        client = client_of(person)
        orders = {
            name
            for column in range(1, 9)
            for name in client.get(page(Bucket, "changelist"), {"o": column}).context["cl"].queryset.query.order_by
        }
        assert bool(usage & orders) == may_sort, person


def test_a_project_can_say_where_permissions_on_single_buckets_are(
    content: Resource, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "LOOKED_AT", 0)
    client = client_of("views photos")
    photos = Bucket.objects.get(name="photos")
    buckets = page(Bucket, "changelist")
    assert client.get(buckets).status_code == 403, "Of no bucket the backend was asked."
    assert client.get(f"{page(ManagedResource, 'browse')}?bucket={photos.pk}").status_code == 200
    settings.BLOBSTORE = {"GRANTED_BUCKETS": "tests.rest.object_permissions.buckets"}
    assert "photos" in text(client.get(buckets))
    assert "secret" not in text(client.get(buckets))


def page_source(client: Client, address: str) -> str:
    return client.get(address).content.decode()


@pytest.mark.parametrize(
    ("person", "references"),
    [("views resources", 0), ("owns photos and views resources", 1)],
)
def test_places_that_one_may_not_see_are_neither_named_nor_counted(
    content: Resource, person: str, references: int
) -> None:
    client = client_of(person)
    response = client.get(page(Resource, "change", content.pk))
    assert response.context["references"].count == len(response.context["rows"]) == references
    assert f"References that you may see {references}" in text(response)
    assert "secret" not in text(response)
    assert "Saved" not in text(response)
    assert "References" not in text(client.get(page(Resource, "changelist")))


def test_counts_of_references_are_shown_to_those_only_who_may_see_every_place(content: Resource) -> None:
    photos = Bucket.objects.get(name="photos")
    managed = ManagedResource.objects.get(bucket=photos)
    client, everything = client_of("owns photos and views resources"), administrator()
    for address in (
        f"{page(ManagedResource, 'browse')}?bucket={photos.pk}",
        page(ManagedResource, "change", managed.pk),
        page(ManagedResource, "delete", managed.pk),
    ):
        shown = text(client.get(address))
        assert "References" not in shown
        assert "objects have this content" not in shown
        assert "without a reference" not in shown
        known = text(everything.get(address))
        assert "References" in known or "objects have this content" in known or "without a reference" in known


def test_who_may_not_see_objects_is_not_told_how_many_a_bucket_has(content: Resource) -> None:
    client, everything = client_of("views buckets"), administrator()
    photos = Bucket.objects.get(name="photos")
    for address in (page(Bucket, "changelist"), page(Bucket, "change", photos.pk)):
        assert "6 bytes" not in text(client.get(address)).replace("\xa0", " ")
        assert "6 bytes" in text(everything.get(address)).replace("\xa0", " ")


def test_an_owner_is_listed_their_buckets_only_and_may_not_lift_their_quota(content: Resource) -> None:
    client = client_of("owns photos")
    assert "secret" not in text(client.get(page(Bucket, "changelist")))
    photos = Bucket.objects.get(name="photos")
    client.post(page(Bucket, "change", photos.pk), {"name": "renamed", "owner": "", "quota_bytes": "9"})
    changed = Bucket.objects.get(pk=photos.pk)
    assert (changed.name, changed.owner, changed.quota_bytes) == ("renamed", User.objects.get(), None)


def test_a_form_sent_without_permission_changes_nothing(content: Resource, stored: Stored) -> None:
    client = client_of("views photos")
    managed = ManagedResource.objects.get(bucket__name="photos")
    for name, form in {
        "move": {"path": "moved"},
        "replace": {"file": ""},
        "copy": {"path": "copied"},
        "change": {"content_type": "a/b", "metadata": "{}"},
    }.items():
        response = client.post(page(ManagedResource, name, managed.pk), form)
        assert response.status_code == 403, name
    assert list(ManagedResource.objects.values_list("path", flat=True).distinct()) == ["folder/one"]
    assert_sound(stored)
