"""Removals in the admin: what is said before, how they go on in steps, and what is said and left afterwards."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from django_blobstore.admin import removal
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from example_project.loading import load_bucket
from tests.admin_pages import administrator, confirmed, page, text
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["files"])


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    """One with a folder whose contents are shared within it, with another folder, and with nobody."""
    store = ManagedStorage()
    for path, content in {"a/1": b"twice" * 200, "a/2": b"twice" * 200, "a/b/3": b"alone" * 100}.items():
        store.put_for_bucket("photos", path, content)
    for path in ("a/4", "ab", "c/5"):
        store.put_for_bucket("photos", path, b"elsewhere")
    store.put(Namespace(bucket="photos", user="7"), "a/of a user", b"elsewhere")
    return Bucket.objects.get(name="photos")


def remove(client: Client, bucket: Bucket, **query: Any) -> Any:
    return client.get(page(ManagedResource, "remove"), {"bucket": bucket.pk, **query})


def paths() -> list[str]:
    return sorted(ManagedResource.objects.values_list("path", flat=True))


def step(client: Client, response: Any) -> Any:
    sent = re.search(r'name="removal" value="([^"]*)"', response.content.decode())
    assert sent
    return client.post(page(ManagedResource, "remove"), {"removal": sent[1]})


def test_a_folder_goes_with_all_that_is_below_it_and_nothing_else(bucket: Bucket, stored: Stored) -> None:
    client = administrator()
    asked = remove(client, bucket, folder="a/")
    shown = text(asked).replace("\xa0", " ")
    assert "Objects 4 Contents without a reference left 2 Bytes freed 1.5 KB Freed 5 minutes later" in shown
    assert paths() == ["a/1", "a/2", "a/4", "a/b/3", "a/of a user", "ab", "c/5"]
    told = text(confirmed(client, asked)).replace("\xa0", " ")
    assert "a/ : Deleted 4 objects. That frees 1.5 KB. Objects deleted 4" in told
    assert "Contents without a reference left 2 Bytes freed 1.5 KB" in told
    assert paths() == ["a/of a user", "ab", "c/5"]
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.change_message) == ("a/", "Deleted 4 objects. That frees 1.5\xa0KB.")
    assert_settled(stored)


def test_folders_and_objects_that_are_ticked_go_together(bucket: Bucket, stored: Stored) -> None:
    client = administrator()
    keys = [ManagedResource.objects.get(path="ab").pk]
    address = f"{page(ManagedResource, 'remove')}?bucket={bucket.pk}"
    asked = client.post(address, {"object": keys, "prefix": ["a/", "c/"]})
    assert "Objects 6 Contents without a reference left 2" in text(asked)
    confirmed(client, asked)
    assert paths() == ["a/of a user"]
    assert_settled(stored)
    assert client.post(address, {}).status_code == 302


def test_an_object_that_comes_during_a_removal_stays(bucket: Bucket, stored: Stored) -> None:
    client = administrator()
    asked = remove(client, bucket, folder="a/")
    ManagedStorage().put_for_bucket(bucket.pk, "a/late", b"late")
    confirmed(client, asked)
    assert paths() == ["a/late", "a/of a user", "ab", "c/5"]
    assert_settled(stored)


@pytest.mark.django_db(transaction=True)
def test_many_objects_go_in_short_steps(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "STEP_SECONDS", 0.001)
    bucket = load_bucket("large", objects=1_000, contents=100)
    client = administrator()
    chosen = ManagedResource.objects.filter(bucket=bucket).first()
    assert chosen
    asked = client.post(
        f"{page(ManagedResource, 'changelist')}?bucket__uuid__exact={bucket.pk}",
        {"action": "delete_selected", "_selected_action": [chosen.pk], "select_across": "1"},
    )
    assert "Objects 1,000 Contents without a reference left 100" in text(asked)
    response, steps = step(client, asked), 1
    while "Objects deleted 1,000" not in text(response):
        assert "of 1,000 objects deleted" in text(response)
        response, steps = step(client, response), steps + 1
    assert steps > 1
    assert not ManagedResource.objects.exists()
    assert not Resource.objects.exists()
    assert Bucket.objects.with_usage().values_list("object_count", "logical_bytes", "stored_bytes").get() == (0, 0, 0)
    assert_settled(stored)


def test_a_large_bucket_is_said_to_free_at_most_what_it_stores(
    bucket: Bucket, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "COUNTED", 2)
    client = administrator()
    shown = text(client.get(page(Bucket, "delete", bucket.pk))).replace("\xa0", " ")
    assert "Objects 7 Bytes freed at most 1.5 KB" in shown
    assert "Objects more than 2 Bytes freed at least" in text(remove(client, bucket, folder="a/"))
    confirmed(client, client.get(page(Bucket, "delete", bucket.pk)))
    assert not Bucket.objects.exists()
    assert_settled(stored)


def test_nothing_goes_by_a_form_that_was_not_made_here_or_for_somebody_else(bucket: Bucket, stored: Stored) -> None:
    client = administrator()
    asked = remove(client, bucket, folder="a/")
    assert client.post(page(ManagedResource, "remove"), {"removal": "forged"}).status_code == 400
    client.force_login(User.objects.create_superuser("another"))
    assert step(client, asked).status_code == 403
    assert len(paths()) == 7
    assert_sound(stored)


def test_who_lost_the_permission_meanwhile_removes_no_more(bucket: Bucket, stored: Stored) -> None:
    client = administrator()
    asked = remove(client, bucket, folder="a/")
    User.objects.update(is_superuser=False)
    assert step(client, asked).status_code == 403
    assert len(paths()) == 7
    assert_sound(stored)
