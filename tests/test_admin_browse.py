"""The browser of namespaces in the admin: folders, objects, a search, and a way to a path."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from django_blobstore import listing
from django_blobstore.admin import browser
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.admin_pages import administrator, page, staff, text
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

PATHS = ["2024/a.txt", "2024/sea/b.png", "2024.txt", "notes/c d&e.txt", "é/f", "z.bin"]


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    for path in PATHS:
        ManagedStorage().put_for_bucket("photos", path, path.encode())
    return Bucket.objects.get(name="photos")


def browse(client: Client, **query: Any) -> HttpResponse:
    response: HttpResponse = client.get(page(ManagedResource, "browse"), query)
    return response


def names(response: HttpResponse) -> list[str]:
    assert response.status_code == 200
    return [entry.name for entry in response.context["entries"]]


def test_a_folder_shows_its_folders_and_objects_in_the_order_of_their_paths(bucket: Bucket) -> None:
    client = administrator()
    assert names(browse(client, bucket=bucket.pk)) == ["2024.txt", "2024/", "notes/", "z.bin", "é/"]
    assert names(browse(client, bucket=bucket.pk, folder="2024/")) == ["a.txt", "sea/"]
    assert names(browse(client, bucket=bucket.pk, folder="é/")) == ["f"]
    assert names(browse(client, bucket=bucket.pk, folder="none/")) == []


def test_every_link_of_the_browser_leads_to_what_it_says(bucket: Bucket) -> None:
    client = administrator()
    for entry in browse(client, bucket=bucket.pk).context["entries"]:
        response = client.get(entry.url)
        assert response.status_code == 200
        shown = response.context["original"].path if entry.managed else response.context["folder"]
        assert shown == entry.path
    steps = browse(client, bucket=bucket.pk, folder="2024/sea/").context["steps"]
    assert [step.name for step in steps] == ["photos", "2024", "sea"]
    assert names(client.get(steps[1].url)) == ["a.txt", "sea/"]
    assert not steps[2].url


def test_pages_of_a_folder_hold_every_entry_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "PER_PAGE", 2)
    client, found = administrator(), []
    response = browse(client, bucket=bucket.pk)
    while True:
        found += names(response)
        if not response.context["next_url"]:
            break
        response = client.get(response.context["next_url"])
    assert found == ["2024.txt", "2024/", "notes/", "z.bin", "é/"]


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ("TXT", ["2024.txt", "2024/a.txt", "notes/c d&e.txt"]),
        ("d&e", ["notes/c d&e.txt"]),
        ("%", []),
        ("_", []),
        ("nothing", []),
    ],
)
def test_a_search_finds_a_part_of_a_path(bucket: Bucket, sought: str, found: list[str]) -> None:
    assert names(browse(administrator(), bucket=bucket.pk, q=sought)) == found


def test_a_search_stays_in_the_folder_and_finds_a_hash(bucket: Bucket) -> None:
    client = administrator()
    assert names(browse(client, bucket=bucket.pk, folder="2024/", q="txt")) == ["2024/a.txt"]
    sha384 = ManagedResource.objects.get(path="é/f").resource.sha384
    assert names(browse(client, bucket=bucket.pk, q=sha384.upper())) == ["é/f"]


def test_a_search_that_takes_long_goes_on_from_page_to_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXAMINED", 2)
    monkeypatch.setattr(listing, "SEARCHED", 2)
    client, found, pages = administrator(), [], 0
    response = browse(client, bucket=bucket.pk, q="f")
    while True:
        found, pages = found + names(response), pages + 1
        if not response.context["next_url"]:
            break
        assert "Search on" in text(response)
        response = client.get(response.context["next_url"])
    assert (found, pages) == (["é/f"], 3)


@pytest.mark.parametrize("typed", ["2024/sea", "/2024/sea/", " 2024/sea "])
def test_a_path_that_is_typed_leads_to_its_folder(bucket: Bucket, typed: str) -> None:
    response = administrator().get(page(ManagedResource, "browse"), {"bucket": bucket.pk, "go": typed}, follow=True)
    assert names(response) == ["b.png"]


def test_a_path_that_is_typed_leads_to_its_object_or_says_that_there_is_none(bucket: Bucket) -> None:
    client = administrator()
    managed = ManagedResource.objects.get(path="2024/a.txt")
    assert browse(client, bucket=bucket.pk, go="/2024/a.txt").url == page(ManagedResource, "change", managed.pk)
    for typed in ("2024/no", "2024/a.txt/", "x" * 2000, "a\x00b"):
        response = client.get(page(ManagedResource, "browse"), {"bucket": bucket.pk, "go": typed}, follow=True)
        assert names(response) == ["2024.txt", "2024/", "notes/", "z.bin", "é/"]
        assert 'class="messagelist"' in response.content.decode()


def test_namespaces_outside_buckets_are_browsed_alike(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(Namespace(), "shared/logo.png", b"x" * 2048)
    store.put(Namespace(user="7"), "mine/a", b"y")
    store.put(Namespace(bucket="photos", user="7"), "within/a", b"z")
    client = administrator()
    shown = text(browse(client)).replace("\xa0", " ")
    assert "Global objects 1 2.0 KB 2.0 KB User 7 1 1 byte 1 byte" in shown
    assert names(browse(client, namespace="global")) == ["shared/"]
    assert names(browse(client, user="7")) == ["mine/"]
    within = Bucket.objects.get().pk
    assert names(browse(client, bucket=within, user="7")) == ["within/"]


def test_a_bucket_leads_to_the_users_with_objects_of_their_own_in_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "PER_PAGE", 2)
    client, found = administrator(), []
    assert browse(client, bucket=bucket.pk).context["inside"] == []
    for number in (10, 7, 8, 9, 90):
        for path in ("a", "b"):
            ManagedStorage().put(Namespace(bucket.pk, f"{number}"), path, b"x")
    ManagedStorage().put(Namespace("other", "6"), "a", b"x")
    url = page(ManagedResource, "browse") + f"?bucket={bucket.pk}"
    while url:
        shown = client.get(url).context
        found += shown["inside"]
        url = shown["more_inside_url"]
    assert [user for user, _ in found] == ["10", "7", "8", "9", "90"]
    assert names(client.get(found[1][1])) == ["a", "b"]
    assert "inside" not in browse(client, bucket=bucket.pk, folder="2024/").context


def test_a_bucket_in_which_only_users_have_objects_is_not_called_empty(database: str, stored: Stored) -> None:
    managed = ManagedStorage().put(Namespace("inboxes", "7"), "a", b"x")
    shown = text(browse(administrator(), bucket=managed.bucket_id, users_after="6\0"))
    assert "1 object" in shown
    assert "There are no objects yet." not in shown
    assert shown.endswith("Users with objects of their own in this bucket 7")


def test_users_with_objects_are_listed_page_by_page(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "PER_PAGE", 2)
    for n in range(5):
        ManagedStorage().put(Namespace(user=f"u/{n}&"), "a", b"x")
    client, found = administrator(), []
    for way, query in (("next_url", "?"), ("previous_url", "?after=u%2F3%26")):
        while query:
            context = client.get(page(ManagedResource, "browse") + query).context
            found.append([place.namespace.user for place, _, _ in context["users"]])
            query = context[way]
    first, second, third = [[f"u/{n}&" for n in numbers] for numbers in ((0, 1), (2, 3), (4,))]
    assert found == [first, second, third, third, second, first]


@pytest.mark.parametrize("named", [{"bucket": "nonsense"}, {"bucket": "00000000-0000-0000-0000-000000000000"}])
def test_a_place_that_is_not_there_is_not_found(bucket: Bucket, named: dict[str, str]) -> None:
    assert browse(administrator(), **named).status_code == 404


def test_a_page_takes_few_queries(bucket: Bucket, django_assert_max_num_queries: Any, database: str) -> None:
    client = staff("view_managedresource", "delete_managedresource", "view_resource", "view_bucket")
    browse(client, bucket=bucket.pk)
    with django_assert_max_num_queries(10, using=database):
        browse(client, bucket=bucket.pk)


def test_the_place_for_uploads_names_the_interface_of_its_namespace(bucket: Bucket) -> None:
    client = administrator()
    root = User.objects.get(username="root")
    for named, url in {
        ("bucket", str(bucket.pk)): f"/buckets/{bucket.pk}/objects/",
        ("user", str(root.pk)): "/me/objects/",
        ("namespace", "global"): "/global/objects/",
    }.items():
        assert browse(client, **dict([named])).context["upload"]["objects"].endswith(url)
    assert browse(client, user="somebody else").context["upload"] is None
    client.logout()
    assert browse(staff("view_managedresource"), bucket=bucket.pk).context["upload"] is None
