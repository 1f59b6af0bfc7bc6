"""Objects in the admin: found, described and removed, with counts and bytes right afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpRequest
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource
from django_blobstore.upkeep import sweep
from tests.admin_pages import administrator, confirmed, listed, page, staff, text
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored

LIST = "/admin/django_blobstore/managedresource/"

files_only = pytest.mark.parametrize("storage_kind", ["files"])


def put(path: str, content: bytes = b"content", bucket: str = "photos", **options: Any) -> ManagedResource:
    return ManagedStorage().put(Namespace(bucket=bucket), path, content, **options)


def paths() -> set[str]:
    return set(ManagedResource.objects.values_list("path", flat=True))


def counts() -> list[int]:
    return list(Resource.objects.order_by("pk").values_list("reference_count", flat=True))


def delete_selected(*chosen: ManagedResource, **more: Any) -> dict[str, Any]:
    return {"action": "delete_selected", "_selected_action": [managed.pk for managed in chosen], **more}


def test_deleting_one_of_two_references_keeps_the_bytes(database: str, stored: Stored) -> None:
    gone, kept = put("one"), put("two")
    client = administrator()
    confirmed(client, client.get(page(ManagedResource, "delete", gone.pk)))
    assert paths() == {"two"}
    assert counts() == [1]
    assert stored.names() == {kept.resource.path}
    assert_settled(stored)


def test_deleting_the_last_reference_leaves_the_bytes_for_the_grace_and_no_longer(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 300}
    managed = put("one")
    client = administrator()
    confirmed(client, client.get(page(ManagedResource, "delete", managed.pk)))
    assert counts() == []
    sweep()
    assert stored.names() == set(PendingFile.objects.values_list("path", flat=True)) == {managed.resource.path}
    assert_settled(stored)
    assert stored.names() == set()


def test_without_grace_the_bytes_are_gone_once_the_page_has_answered(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    client = administrator()
    confirmed(client, client.get(page(ManagedResource, "delete", put("one", b"1").pk)))
    confirmed(client, client.post(LIST, delete_selected(put("two", b"2"), put("three", b"3"))))
    assert stored.names() == set()
    assert not PendingFile.objects.exists()


def test_deleting_selected_objects_counts_each_of_them_down(database: str, stored: Stored) -> None:
    chosen = [put("a", b"shared"), put("b", b"shared"), put("c", b"alone")]
    put("d", b"shared")
    client = administrator()
    response = confirmed(client, client.post(LIST, delete_selected(*chosen)))
    assert "Objects deleted 3 Contents without a reference left 1 Bytes freed 5 bytes" in text(response)
    assert paths() == {"d"}
    assert counts() == [1]
    assert_settled(stored)


@files_only
def test_all_objects_of_a_filtered_list_can_be_deleted_across_its_pages(database: str, stored: Stored) -> None:
    kept = put("kept", bucket="other")
    first, *_ = [put(f"{n:03}", b"%d" % (n // 2)) for n in range(120)]
    url = f"{LIST}?bucket__uuid__exact={first.bucket_id}"
    client = administrator()
    confirmed(client, client.post(url, delete_selected(first, select_across="1")))
    assert paths() == {kept.path}
    assert_settled(stored)


@files_only
def test_the_confirmation_says_what_is_freed_and_changes_nothing(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 300}
    shared, last = put("a/shared", b"s" * 2048), put("b/last", b"l" * 1024)
    put("c/shared", b"s" * 2048)
    client = administrator()
    one = text(client.get(page(ManagedResource, "delete", shared.pk)))
    assert "Objects 1 Contents without a reference left 0" in one
    both = text(client.post(LIST, delete_selected(shared, last)))
    assert "Objects 2 Contents without a reference left 1" in both
    assert "Bytes freed 1.0 KB Freed 5 minutes later" in both
    assert "a/shared (photos) b/last (photos)" in both
    assert paths() == {"a/shared", "b/last", "c/shared"}
    assert sorted(counts()) == [1, 2]


@files_only
def test_objects_that_are_all_references_to_a_content_free_it_together(database: str, stored: Stored) -> None:
    every = [put("a", b"x" * 10), put("b", b"x" * 10)]
    assert "Contents without a reference left 1" in text(administrator().post(LIST, delete_selected(*every)))


@files_only
def test_the_confirmation_lists_the_first_objects_and_counts_the_others(database: str, stored: Stored) -> None:
    chosen = [put(f"{n:03}", b"same") for n in range(23)]
    shown = text(administrator().post(LIST, delete_selected(*chosen)))
    assert "019 (photos) … and 3 more" in shown
    assert "020 (photos)" not in shown


@files_only
def test_who_may_only_view_can_neither_delete_nor_change(database: str, stored: Stored) -> None:
    managed = put("one", content_type="text/plain")
    client = staff("view_managedresource")
    shown = text(client.get(page(ManagedResource, "change", managed.pk)))
    assert "one" in shown
    assert "Delete" not in shown
    assert "Save" not in shown
    assert client.post(page(ManagedResource, "delete", managed.pk), {"post": "yes"}).status_code == 403
    assert client.post(page(ManagedResource, "change", managed.pk), {"content_type": "a/b"}).status_code == 403
    assert "delete_selected" not in client.get(LIST).content.decode()
    confirmed(client, client.post(LIST, delete_selected(managed)))
    managed.refresh_from_db()
    assert managed.content_type == "text/plain"
    assert counts() == [1]
    assert_sound(stored)


@files_only
def test_no_object_can_be_added_without_its_bytes(database: str, stored: Stored) -> None:
    client = administrator()
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}add/", {"content_type": "a/b", "metadata": "{}"}).status_code == 403
    assert not ManagedResource.objects.exists()


@files_only
def test_a_description_saved_late_does_not_bring_back_replaced_content(database: str, stored: Stored) -> None:
    put("one", b"old")
    stale = ManagedResource.objects.get()
    put("one", b"the new one")
    stale.content_type = "text/plain"
    admin.site.get_model_admin(ManagedResource).save_model(HttpRequest(), stale, None, True)
    managed = ManagedResource.objects.select_related("resource").get()
    assert (managed.content_type, managed.resource.length) == ("text/plain", len(b"the new one"))
    assert_settled(stored)


@files_only
def test_content_type_and_metadata_can_be_changed_and_nothing_else(database: str, stored: Stored) -> None:
    managed = put("one")
    form = {"content_type": "image/png", "metadata": '{"by": "Ada"}', "path": "other", "resource": "7", "_save": "Save"}
    assert administrator().post(page(ManagedResource, "change", managed.pk), form).status_code == 302
    changed = ManagedResource.objects.get()
    assert (changed.path, changed.resource_id) == ("one", managed.resource_id)
    assert (changed.content_type, changed.metadata) == ("image/png", {"by": "Ada"})
    assert changed.modified_at > managed.modified_at


@files_only
@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("content_type", "text/html\r\nX-Evil: 1", "Write a media type"),
        ("content_type", "plain", "Write a media type"),
        ("metadata", "[1]", "Write a JSON object"),
        ("metadata", '{"a": "\\u0000"}', "Write no NUL character"),
        ("metadata", "{", "Enter a valid JSON"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    database: str, stored: Stored, field: str, value: str, complaint: str
) -> None:
    managed = put("one")
    form = {"content_type": "", "metadata": "{}", field: value}
    assert complaint in text(administrator().post(page(ManagedResource, "change", managed.pk), form))
    changed = ManagedResource.objects.get()
    assert (changed.content_type, changed.metadata) == ("", {})


@files_only
@pytest.mark.parametrize("loss", ["file", "storage"])
def test_the_page_of_an_object_whose_bytes_cannot_be_read_has_no_preview(
    database: str, stored: Stored, loss: str
) -> None:
    managed = put("one.txt", b"its text", content_type="text/plain")
    address = page(ManagedResource, "change", managed.pk)
    client = administrator()
    assert "its text" in text(client.get(address))
    if loss == "file":
        stored.clear()
    else:
        Resource.objects.update(storage="gone")
    shown = client.get(address)
    assert shown.status_code == 200
    assert "its text" not in text(shown)
    assert "one.txt" in text(shown)


@files_only
def test_metadata_left_empty_is_an_empty_object(database: str, stored: Stored) -> None:
    managed = put("one", metadata={"by": "Ada"})
    administrator().post(page(ManagedResource, "change", managed.pk), {"content_type": "", "metadata": ""})
    assert ManagedResource.objects.get().metadata == {}


@files_only
def test_the_page_of_an_object_shows_its_hash_and_links_its_content(database: str, stored: Stored) -> None:
    managed = put("one", b"x" * 1536)
    put("two", b"x" * 1536)
    response = administrator().get(page(ManagedResource, "change", managed.pk))
    assert managed.resource.sha384 in text(response)
    assert "1.5 KB" in text(response)
    assert "2 objects have this content" in text(response)
    assert page(Resource, "change", managed.resource_id) in response.content.decode()


@files_only
def test_objects_are_found_by_bucket_kind_of_namespace_and_prefix(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    put("a/1")
    put("a/2")
    put("b", bucket="other")
    store.put(Namespace(user="7"), "a/mine", b"m")
    store.put(Namespace(), "a/everybody's", b"e")
    photos = Bucket.objects.get(name="photos")
    client = administrator()

    def found(query: str) -> list[str]:
        return [managed.path for managed in listed(client.get(LIST + query))]

    assert found("") == ["a/everybody's", "a/mine", "b", "a/2", "a/1"]
    assert found(f"?bucket__uuid__exact={photos.pk}") == ["a/1", "a/2"]
    assert sorted(found("?namespace=bucket")) == ["a/1", "a/2", "b"]
    assert found("?namespace=user") == found("?user__exact=7") == ["a/mine"]
    assert found("?namespace=global") == ["a/everybody's"]
    assert found("?q=/a/") == ["a/everybody's", "a/mine", "a/2", "a/1"]
    assert found("?q=a/&namespace=global") == ["a/everybody's"]
    assert found("?q=a/&user__exact=7") == ["a/mine"]
    assert found(f"?q=a/2&bucket__uuid__exact={photos.pk}") == ["a/2"]


@files_only
def test_a_bucket_chosen_by_a_link_stays_chosen_among_many(database: str, stored: Stored) -> None:
    managed = put("one")
    Bucket.objects.bulk_create(Bucket(name=f"b{n}") for n in range(30))
    client = administrator()
    chosen = client.get(f"{LIST}?bucket__uuid__exact={managed.bucket_id}")
    assert "By bucket All photos" in text(chosen)
    assert "b7" not in text(client.get(LIST))


@files_only
@pytest.mark.parametrize("bucket", ["nonsense", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_bucket_in_the_address_never_shows_the_objects_of_all(
    database: str, stored: Stored, bucket: str
) -> None:
    put("one")
    response = administrator().get(f"{LIST}?bucket__uuid__exact={bucket}")
    assert response.status_code == 302 or listed(response) == []


@files_only
def test_a_list_of_objects_takes_as_many_queries_for_fifty_as_for_two(
    database: str, stored: Stored, django_assert_max_num_queries: Any
) -> None:
    for n in range(50):
        put(f"{n}", b"%d" % (n % 7), bucket=f"bucket {n % 5}")
    client = administrator()
    client.get(LIST)
    with django_assert_max_num_queries(6, using=database):
        assert len(listed(client.get(LIST))) == 50
