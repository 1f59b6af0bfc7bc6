"""Buckets in the admin: what they hold and cost, and how they go with everything in them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError
from pytest_django import Settings

from django_blobstore.admin.quota import used_percent
from django_blobstore.catalog import Condition
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.admin_pages import administrator, confirmed, listed, page, staff, text
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored
from tests.together import results

LIST = "/admin/django_blobstore/bucket/"

files_only = pytest.mark.parametrize("storage_kind", ["files"])


def fill(bucket: str, *contents: bytes) -> Bucket:
    for n, content in enumerate(contents):
        ManagedStorage().put_for_bucket(bucket, f"{n:03}", content)
    return Bucket.objects.get(name=bucket)


def delete_selected(*chosen: Bucket, **more: Any) -> dict[str, Any]:
    return {"action": "delete_selected", "_selected_action": [bucket.pk for bucket in chosen], **more}


@files_only
def test_each_bucket_is_listed_with_what_it_shows_and_what_it_keeps(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x" * 2048, b"x" * 2048, b"y" * 1024)
    Bucket.objects.filter(pk=bucket.pk).update(owner=User.objects.create_user("ada"))
    response = administrator().get(LIST)
    assert "photos Browse ada 3 5.0 KB 3.0 KB" in text(response).replace("\xa0", " ")
    assert f"{page(ManagedResource, 'changelist')}?bucket__uuid__exact={bucket.pk}" in response.content.decode()


@files_only
def test_buckets_are_found_by_part_of_their_name_or_uuid(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x")
    fill("backups", b"y")
    client = administrator()
    for query in ["hot", str(bucket.pk), str(bucket.pk)[:13]]:
        assert listed(client.get(LIST, {"q": query})) == [bucket]


@files_only
def test_a_list_of_buckets_takes_as_many_queries_for_fifty_as_for_two(
    database: str, stored: Stored, django_assert_max_num_queries: Any
) -> None:
    owners = [User.objects.create_user(f"user {n}") for n in range(3)]
    for n in range(50):
        Bucket.objects.create(name=f"{n}", owner=owners[n % 3])
    client = administrator()
    client.get(LIST)
    with django_assert_max_num_queries(4, using=database):
        assert len(listed(client.get(LIST))) == 50


@files_only
def test_a_bucket_can_be_added_and_renamed(database: str, stored: Stored) -> None:
    client = administrator()
    assert client.post(f"{LIST}add/", {"name": "fresh", "owner": ""}).status_code == 302
    bucket = Bucket.objects.get(name="fresh")
    assert client.post(page(Bucket, "change", bucket.pk), {"name": "renamed", "owner": ""}).status_code == 302
    ManagedStorage().put_for_bucket(bucket.pk, "one", b"1")
    assert "Objects: 1" in text(client.get(page(Bucket, "change", bucket.pk)))
    assert Bucket.objects.get().name == "renamed"


@files_only
@pytest.mark.parametrize(
    ("written", "quota", "shown"),
    [
        ("", None, ""),
        ("0", 0, "0"),
        ("5000000", 5_000_000, "5000000"),
        ("1024 bytes", 1024, "1 KB"),
        ("500 MB", 500 * 1024**2, "500 MB"),
        (" 1.5  gb", 3 * 512 * 1024**2, "1536 MB"),
        ("1,25GiB", 5 * 256 * 1024**2, "1280 MB"),
        ("2\xa0t", 2 * 1024**4, "2 TB"),
    ],
)
def test_a_quota_is_written_in_bytes_or_in_a_larger_unit(
    database: str, stored: Stored, written: str, quota: int | None, shown: str
) -> None:
    bucket, client = fill("photos", b"x" * 300), administrator()
    change = page(Bucket, "change", bucket.pk)
    assert client.post(change, {"name": "photos", "owner": "", "quota_bytes": written}).status_code == 302
    assert Bucket.objects.get().quota_bytes == quota
    response = client.get(change)
    assert response.context["adminform"].form["quota_bytes"].value() == (shown if quota else quota)
    assert ("There is more in the bucket than this quota" in text(response)) is (quota == 0)


@files_only
@pytest.mark.parametrize("written", ["much", "-1", "1.5", "1,500 MB", "MB", "5 XB", "8192 PB", "9" * 40, "1e3"])
def test_a_number_that_is_no_quota_is_refused_with_what_to_write(database: str, stored: Stored, written: str) -> None:
    bucket = Bucket.objects.create(name="photos", quota_bytes=7)
    response = administrator().post(page(Bucket, "change", bucket.pk), {"name": "renamed", "quota_bytes": written})
    told = response.context["adminform"].form.errors["quota_bytes"]
    assert any("500 MB or 1.5 GB" in error or "leave it empty for no limit" in error for error in told)
    assert response.context["adminform"].form["quota_bytes"].value() == written
    assert Bucket.objects.values_list("name", "quota_bytes").get() == ("photos", 7)


@files_only
def test_a_quota_is_shown_with_its_use_and_set_only_by_who_may_change_any_bucket(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x" * 512)
    Bucket.objects.filter(pk=bucket.pk).update(quota_bytes=2048)
    client = administrator()
    for shown in (page(Bucket, "change", bucket.pk), LIST, f"{page(ManagedResource, 'browse')}?bucket={bucket.pk}"):
        assert "25 % of 2.0 KB" in text(client.get(shown))
    owner = User.objects.create_user("ada", is_staff=True)
    Bucket.objects.filter(pk=bucket.pk).update(owner=owner)
    client.force_login(owner)
    assert "Quota: 2.0 KB" in text(client.get(page(Bucket, "change", bucket.pk)))
    client.post(page(Bucket, "change", bucket.pk), {"name": "renamed", "quota_bytes": "5 GB"})
    assert Bucket.objects.values_list("name", "quota_bytes").get() == ("renamed", 2048)


@pytest.mark.parametrize(
    ("length", "quota", "percent"),
    [(0, 10, 0), (1, 1000, 1), (999, 1000, 99), (1000, 1000, 100), (5, 2, 250), (0, 0, 100)],
)
def test_a_little_of_a_quota_is_not_nothing_and_nearly_all_is_not_all(length: int, quota: int, percent: int) -> None:
    assert used_percent(Bucket(quota_bytes=quota), length) == percent


def test_deleting_a_bucket_gives_back_the_reference_of_each_object_in_it(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"shared", b"shared", b"alone")
    ManagedStorage().put(Namespace(bucket="photos", user="7"), "of a user in it", b"shared")
    fill("other", b"shared")
    client = administrator()
    response = confirmed(client, client.get(page(Bucket, "delete", bucket.pk)))
    shown = text(response)
    assert "photos : Deleted 4 objects. That frees 5 bytes. Buckets deleted 1 Objects deleted 4" in shown
    assert list(Bucket.objects.values_list("name", flat=True)) == ["other"]
    assert list(Resource.objects.values_list("reference_count", flat=True)) == [1]
    assert_settled(stored)


def test_deleting_selected_buckets_without_grace_leaves_nothing(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    buckets = [fill("one", b"shared", b"1"), fill("two", b"shared", b"2"), Bucket.objects.create(name="empty")]
    client = administrator()
    confirmed(client, client.post(LIST, delete_selected(*buckets)))
    assert not Bucket.objects.exists()
    assert_empty(stored)


@files_only
def test_the_confirmation_counts_the_objects_and_bytes_that_go_and_changes_nothing(
    database: str, stored: Stored
) -> None:
    bucket = fill("photos", b"x" * 2048, b"x" * 2048, b"shared")
    fill("other", b"shared")
    client = administrator()
    for response in [client.get(page(Bucket, "delete", bucket.pk)), client.post(LIST, delete_selected(bucket))]:
        shown = text(response).replace("\xa0", " ")
        assert "Buckets 1 Objects 3 Contents without a reference left 1" in shown
        assert "Bytes freed 2.0 KB Freed 5 minutes later" in shown
    assert ManagedResource.objects.count() == 4
    assert_sound(stored)


@files_only
def test_who_may_not_delete_objects_cannot_delete_a_bucket_with_some(database: str, stored: Stored) -> None:
    bucket, empty = fill("photos", b"x"), Bucket.objects.create(name="empty")
    client = staff("view_bucket", "delete_bucket")
    assert client.get(page(Bucket, "delete", bucket.pk)).status_code == 403
    assert client.post(LIST, delete_selected(bucket, empty)).status_code == 403
    assert Bucket.objects.count() == 2
    assert_sound(stored)
    confirmed(client, client.get(page(Bucket, "delete", empty.pk)))
    assert list(Bucket.objects.all()) == [bucket]


@files_only
def test_who_may_only_view_buckets_sees_no_delete_and_may_not(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x")
    client = staff("view_bucket")
    assert "Delete" not in text(client.get(page(Bucket, "change", bucket.pk)))
    assert client.post(page(Bucket, "delete", bucket.pk), {"post": "yes"}).status_code == 403
    assert client.post(f"{LIST}add/", {"name": "fresh"}).status_code == 403
    confirmed(client, client.post(LIST, delete_selected(bucket)))
    assert Bucket.objects.count() == ManagedResource.objects.count() == 1


def test_puts_into_a_bucket_under_removal_lose_nothing(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x", b"y")

    def put() -> None:
        for n in range(8):
            ManagedStorage().put_for_bucket(bucket.pk, f"late {n}", b"late %d" % (n % 2))

    def remove() -> None:
        for _ in range(8):
            ManagedStorage().remove_bucket(bucket)

    results(put, remove, put, remove)
    assert_settled(stored)


@files_only
def test_a_removal_of_a_bucket_that_fails_removes_no_object(database: str, stored: Stored) -> None:
    bucket = fill("photos", b"x", b"y")

    class Refusing(ManagedStorage):
        """Breaks at the second object, as a lost database would."""

        left = 1

        def remove(self, namespace: Namespace, path: str, *, condition: Condition | None = None) -> None:
            if not self.left:
                raise IntegrityError("refused")
            self.left -= 1
            super().remove(namespace, path, condition=condition)

    with pytest.raises(IntegrityError, match="refused"):
        Refusing().remove_bucket(bucket)
    assert ManagedResource.objects.count() == 2
    assert_sound(stored)
