"""Buckets over HTTP, and the pages of what is in them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from tests.rest import api
from tests.stored import Stored

URL = "/api/buckets/"

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])


@pytest.fixture
def client(database: str, stored: Stored) -> APIClient:
    return api.client(api.administrator())


def pages(client: APIClient, url: str, key: str) -> list[list[Any]]:
    """Return what stands under `key` on each page from `url` on."""
    found = []
    while url:
        page = client.get(url).json()
        found.append(page[key])
        url = page["next"]
    return found


def test_a_bucket_is_made_shown_renamed_and_deleted(client: APIClient) -> None:
    made = client.post(URL, {"name": "photos"}, format="json")
    assert made.status_code == 201
    owner = Bucket.objects.get().owner_id
    assert made.json() == {
        "uuid": str(Bucket.objects.get().pk),
        "name": "photos",
        "owner": owner,
        "object_count": 0,
        "logical_bytes": 0,
        "stored_bytes": 0,
        "quota_bytes": None,
        "created_at": made.json()["created_at"],
        "url": made["Location"],
    }
    assert client.get(made["Location"]).json() == made.json()
    renamed = client.patch(made["Location"], {"name": "pictures", "uuid": str(uuid4()), "owner": None}, format="json")
    assert (renamed.status_code, renamed.json()) == (200, made.json() | {"name": "pictures"})
    assert client.delete(made["Location"]).status_code == 204
    assert client.get(made["Location"]).status_code == 404
    assert not Bucket.objects.exists()


def test_a_bucket_may_have_a_uuid_of_the_callers_choice_once(client: APIClient) -> None:
    uuid = str(uuid4())
    assert client.post(URL, {"name": "one", "uuid": uuid}, format="json").json()["uuid"] == uuid
    second = client.post(URL, {"name": "two", "uuid": uuid}, format="json")
    assert (second.status_code, second.json()["code"], second.json()["bucket"]) == (409, "bucket-exists", uuid)
    assert Bucket.objects.get().name == "one"


@pytest.mark.parametrize(
    "given",
    [
        *({}, [], {"name": ""}, {"name": "x" * 151}, {"name": "a\0"}, {"name": "a\x9b"}, {"name": "a\n"}),
        *({"name": "a", "uuid": "b"}, {"name": "a", "uuid": False}, {"name": "a", "uuid": 7}),
    ],
)
def test_a_bucket_without_a_proper_name_or_uuid_is_refused(client: APIClient, given: Any) -> None:
    refused = client.post(URL, given, format="json")
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert refused.json()["errors"]
    assert not Bucket.objects.exists()


def test_a_bucket_tells_how_much_is_in_it(client: APIClient) -> None:
    store, bucket = ManagedStorage(), Bucket.objects.create()
    for path, content in [("a", b"same"), ("b", b"same"), ("c", b"other")]:
        store.put(Namespace(bucket=bucket.pk), path, content)
    shown = client.get(f"{URL}{bucket.pk}/").json()
    assert (shown["object_count"], shown["logical_bytes"], shown["stored_bytes"]) == (3, 13, 9)
    assert client.get(URL).json()["buckets"] == [shown]


def test_a_bucket_with_objects_is_not_deleted(client: APIClient) -> None:
    bucket = Bucket.objects.create()
    ManagedStorage().put(Namespace(bucket=bucket.pk), "a", b"content")
    refused = client.delete(f"{URL}{bucket.pk}/")
    assert (refused.status_code, refused.json()["code"]) == (409, "bucket-not-empty")
    with ManagedStorage().get(Namespace(bucket=bucket.pk), "a") as file:
        assert file.read() == b"content"


def test_buckets_are_listed_once_each_in_the_order_of_their_uuids(client: APIClient) -> None:
    Bucket.objects.bulk_create(Bucket(uuid=UUID(int=number)) for number in range(7))
    found = pages(client, f"{URL}?limit=3", "buckets")
    assert [len(page) for page in found] == [3, 3, 1]
    assert [UUID(bucket["uuid"]).int for page in found for bucket in page] == list(range(7))
    assert [len(page) for page in pages(client, f"{URL}?limit=7", "buckets")] == [7]


def test_buckets_are_found_by_their_name_which_several_may_have(client: APIClient) -> None:
    names = ["a", "b", "b", "B", "b c", "", "ü&="]
    Bucket.objects.bulk_create(Bucket(uuid=UUID(int=number), name=name) for number, name in enumerate(names))
    for name, numbers in {"a": [0], "b": [1, 2], "b c": [4], "": [5], "ü&=": [6], "c": [], "%": []}.items():
        found = pages(client, f"{URL}?{urlencode({'name': name, 'limit': 1})}", "buckets")
        assert [UUID(bucket["uuid"]).int for page in found for bucket in page] == numbers
    for name in ("a\0", "x" * 151):
        refused = client.get(URL, {"name": name})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


def test_a_page_of_buckets_takes_as_many_queries_as_one_bucket(
    client: APIClient, database: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        ManagedStorage().put(Namespace(bucket=f"bucket {number}"), "a", b"content")
    with django_assert_max_num_queries(1, using=database):
        assert len(client.get(URL).json()["buckets"]) == 20


def test_objects_are_listed_in_folders_page_by_page(client: APIClient, database: str) -> None:
    bucket = Bucket.objects.create()
    for path in ["a", "b/1", "b/2", "c d", "e/f/g", "h&i=j", "ü"]:
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, b"content")
    url = f"{URL}{bucket.pk}/objects/"
    for query, objects, prefixes in [
        ("", [["a", "b/1"], ["b/2", "c d"], ["e/f/g", "h&i=j"], ["ü"]], [[], [], [], []]),
        ("&delimiter=/", [["a"], ["c d"], ["h&i=j", "ü"]], [["b/"], ["e/"], []]),
        ("&delimiter=/&prefix=b/", [["b/1", "b/2"]], [[]]),
        ("&delimiter=/&prefix=e/", [[]], [["e/f/"]]),
        ("&prefix=h%26", [["h&i=j"]], [[]]),
        ("&after=e/f/g", [["h&i=j", "ü"]], [[]]),
    ]:
        found = pages(client, f"{url}?limit=2{query}", "objects")
        assert [[shown["path"] for shown in page] for page in found] == objects
        assert pages(client, f"{url}?limit=2{query}", "prefixes") == prefixes


def test_a_page_of_objects_takes_as_many_queries_as_one_object(
    client: APIClient, database: str, django_assert_max_num_queries: Any
) -> None:
    bucket = Bucket.objects.create()
    for number in range(20):
        ManagedStorage().put(Namespace(bucket=bucket.pk), f"a{number}", b"content")
    with django_assert_max_num_queries(3, using=database):
        assert len(client.get(f"{URL}{bucket.pk}/objects/?delimiter=/").json()["objects"]) == 20


def test_a_browser_gets_pages_to_look_at_and_json_where_it_asks_for_it(client: APIClient) -> None:
    bucket = Bucket.objects.create(name="photos")
    for url in (URL, f"{URL}{bucket.pk}/", f"{URL}{bucket.pk}/objects/", "/api/me/objects/", "/api/me/put-requests/"):
        page = client.get(url, HTTP_ACCEPT="text/html")
        assert page["Content-Type"] == "text/html; charset=utf-8"
    assert client.get(URL, HTTP_ACCEPT="application/json")["Content-Type"] == "application/json"
    missing = client.get(f"{URL}{uuid4()}/", HTTP_ACCEPT="text/html")
    assert (missing.status_code, missing["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"bucket-not-found" in missing.content
