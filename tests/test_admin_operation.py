"""What the admin shows and never changes: resources, put requests and pending files."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from django_blobstore.admin import references, upkeep
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest, Resource, UpkeepRun
from tests.admin_pages import administrator, listed, page, staff, text
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["files"])

SHA384 = "ab" * 48


def put(path: str, content: bytes, bucket: str = "photos") -> Resource:
    return ManagedStorage().put_for_bucket(bucket, path, content).resource


def pending(path: str, *, due_in: int | None = None, lease_ends_in: int | None = None, **columns: Any) -> PendingFile:
    """Write the row of a file that has `due_in` or `lease_ends_in` seconds left."""
    now = timezone.now()
    times = {
        "discard": due_in is not None,
        "due_at": None if due_in is None else now + timedelta(seconds=due_in),
        "lease_until": None if lease_ends_in is None else now + timedelta(seconds=lease_ends_in),
    }
    return PendingFile.objects.create(path=path, storage="blobstore", **times, **columns)


def put_request(id: str, *, expires_in: int = 6000, **columns: Any) -> PutRequest:
    return PutRequest.objects.create(
        id=id,
        requester="7",
        path="photos/one.png",
        sha384=SHA384,
        length=2048,
        algorithm="hmac",
        nonce=b"not for the eyes of anybody else",
        ranges=[[0, 2048]],
        expires_at=timezone.now() + timedelta(seconds=expires_in),
        **columns,
    )


def one_of_each() -> list[Model]:
    return [put("one", b"1"), put_request("r1"), pending("p1", due_in=6000)]


def test_nobody_can_add_change_or_delete_what_the_store_writes(database: str, stored: Stored) -> None:
    client = administrator()
    for row in one_of_each():
        model = type(row)
        before = model.objects.filter(pk=row.pk).values().get()
        changelist = page(model, "changelist")
        assert client.get(changelist).status_code == client.get(page(model, "change", row.pk)).status_code == 200
        assert client.get(page(model, "add")).status_code == 403
        assert client.post(page(model, "add"), {"path": "x"}).status_code == 403
        assert client.post(page(model, "change", row.pk), {"path": "x", "reference_count": 9}).status_code == 403
        assert client.post(page(model, "delete", row.pk), {"post": "yes"}).status_code == 403
        client.post(changelist, {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
        assert model.objects.filter(pk=row.pk).values().get() == before


def test_each_list_needs_the_permission_to_view_it(database: str, stored: Stored) -> None:
    rows = one_of_each()
    client = staff("view_managedresource")
    assert {client.get(page(type(row), "changelist")).status_code for row in rows} == {403}


def test_lists_take_as_many_queries_for_fifty_rows_as_for_two(
    database: str, stored: Stored, django_assert_max_num_queries: Any
) -> None:
    bucket = Bucket.objects.create(name="photos")
    for n in range(50):
        put(f"{n}", b"%d" % n)
        put_request(f"r{n}", bucket=bucket)
        pending(f"p{n}", due_in=n - 25, bucket=bucket, managed_path="one.png")
    client = administrator()
    client.get(page(Resource, "changelist"))
    for model in (Resource, PutRequest, PendingFile):
        with django_assert_max_num_queries(5, using=database):
            assert len(listed(client.get(page(model, "changelist")))) == 50


def test_a_resource_is_listed_with_its_count_and_what_sharing_saves(database: str, stored: Stored) -> None:
    for path in "abc":
        resource = put(path, b"x" * 2048)
    shown = text(administrator().get(page(Resource, "changelist")))
    assert f"{resource.sha384[:12]}… 2.0 KB 3 4.0 KB sound" in shown.replace("\xa0", " ")


def test_resources_are_found_by_state_and_by_the_start_of_their_hash(database: str, stored: Stored) -> None:
    sound, damaged = put("sound", b"s"), put("damaged", b"d")
    Resource.objects.filter(pk=damaged.pk).update(damaged_at=timezone.now())
    arriving = Resource.objects.create(sha384=SHA384, length=5)
    client = administrator()
    for state, row in {"sound": sound, "damaged": damaged, "pending": arriving}.items():
        response = client.get(page(Resource, "changelist"), {"state": state})
        assert listed(response) == [row]
        assert f"blobstore-{state}" in response.content.decode()
    assert listed(client.get(page(Resource, "changelist"), {"state": "nonsense"})) == [arriving, damaged, sound]
    assert listed(client.get(page(Resource, "changelist"), {"q": SHA384[:20].upper()})) == [arriving]


def walked(client: Client, address: str, way: str, query: str = "?") -> tuple[list[list[int]], HttpResponse]:
    """Return the objects on each page about a content, from that with `query` on, and the last page."""
    pages: list[list[int]] = []
    while query:
        response = client.get(address + query)
        pages.append([managed.pk for managed in response.context["references"].objects])
        query = response.context[way]
    return pages, response


def test_every_place_that_refers_to_a_content_is_on_some_page_of_it(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "PER_PAGE", 5)
    store = ManagedStorage()
    for n in range(12):
        resource = put(f"{n:02}", b"same", bucket=f"bucket {n % 2}")
    for n in range(7):
        store.put(Namespace(user=f"{n % 3}"), f"{n:02}", b"same")
        store.put(Namespace(bucket="bucket 1", user=f"{n % 3}"), f"{n:02}", b"same")
    client, address = administrator(), page(Resource, "change", resource.pk)
    pages, response = walked(client, address, "next_url")
    shown = [pk for one in pages for pk in one]
    assert [len(one) for one in pages] == [5, 5, 5, 5, 5, 1]
    assert set(shown) == set(ManagedResource.objects.values_list("pk", flat=True))
    assert page(ManagedResource, "change", shown[-1]) in response.content.decode()
    back, _first = walked(client, address, "previous_url", response.context["previous_url"])
    assert back == pages[-2::-1]
    assert "References 26" in text(response)


def test_references_are_told_only_to_who_may_view_objects(database: str, stored: Stored) -> None:
    resource = put("secret name", b"x")
    shown = text(staff("view_resource").get(page(Resource, "change", resource.pk)))
    assert resource.sha384 in shown
    assert "secret name" not in shown


def test_put_requests_show_their_state_and_not_their_nonce(database: str, stored: Stored) -> None:
    put_request("open")
    put_request("expired", expires_in=-1)
    put_request("used", state=PutRequest.State.USED)
    put_request("failed", state=PutRequest.State.FAILED, expires_in=-1)
    client = administrator()
    for state in ("open", "expired", "used", "failed"):
        response = client.get(page(PutRequest, "changelist"), {"state": state})
        assert [row.pk for row in listed(response)] == [state]
        assert f"{state} {state} " in text(response)
        assert " 7 global photos/one.png 2.0 KB abababababab…" in text(response).replace("\xa0", " ")
        assert b"not for the eyes" not in client.get(page(PutRequest, "change", state)).content


def test_pending_files_show_whether_they_arrive_are_given_up_leave_or_are_due(database: str, stored: Stored) -> None:
    arriving = pending("p1", lease_ends_in=6000, managed_path="one.png", user="7")
    given_up = pending("p2", lease_ends_in=-60, length=2048)
    waiting, due = pending("p3", due_in=6000), pending("p4", due_in=-60)
    client = administrator()
    for state, row in {"arriving": arriving, "abandoned": given_up, "waiting": waiting, "due": due}.items():
        response = client.get(page(PendingFile, "changelist"), {"state": state})
        assert listed(response) == [row]
        assert response.content.decode().count(f'class="blobstore-{state}"') == 1
    shown = text(client.get(page(PendingFile, "changelist")))
    assert "p1 arriving - " in shown
    assert " user 7 one.png blobstore " in shown
    assert "p2 given up 2.0 KB" in shown.replace("\xa0", " ")


def test_rows_of_a_bucket_that_is_gone_are_still_shown(database: str, stored: Stored) -> None:
    gone = Bucket(name="never saved")
    put_request("r1", bucket_id=gone.pk)
    pending("p1", due_in=6000, bucket_id=gone.pk)
    client = administrator()
    for model, pk in ((PutRequest, "r1"), (PendingFile, "p1")):
        assert str(gone.pk) in text(client.get(page(model, "changelist")))
        assert str(gone.pk) in text(client.get(page(model, "change", pk)))


def test_content_nobody_shares_is_found_by_the_namespace_of_its_user(database: str, stored: Stored) -> None:
    ManagedStorage().put(Namespace(user="7"), "mine", b"m")
    resource = Resource.objects.get()
    assert "mine User 7" in text(administrator().get(page(Resource, "change", resource.pk)))


def verify_now(client: Client, *resources: Resource) -> HttpResponse:
    chosen = {"action": "verify_now", "_selected_action": [resource.pk for resource in resources]}
    return client.post(page(Resource, "changelist"), chosen, follow=True)


def test_contents_are_verified_when_somebody_asks(database: str, stored: Stored) -> None:
    sound, missing, other = put("a", b"sound"), put("b", b"missing"), put("c", b"not chosen")
    stored.storage.delete(missing.path)
    client = administrator()
    assert "It begins." in text(verify_now(client, sound, missing))
    run = UpkeepRun.objects.get()
    answer = text(client.post(page(UpkeepRun, "advance", run.pk), follow=True))
    assert "Contents compared 2" in answer
    assert f"{missing.sha384} File missing" in answer
    assert Resource.objects.get(pk=sound.pk).verified_at
    assert Resource.objects.get(verified_at=None) == other
    assert Resource.objects.missing().get() == missing


def test_more_contents_than_can_be_listed_are_not_verified_one_by_one(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "CHOSEN", 1)
    assert "Choose at most 1 contents" in text(verify_now(administrator(), put("a", b"1"), put("b", b"2")))
    assert not UpkeepRun.objects.exists()


def test_who_may_only_look_cannot_have_contents_verified(database: str, stored: Stored) -> None:
    missing = put("b", b"missing")
    stored.storage.delete(missing.path)
    client = staff("view_resource")
    assert "Verify" not in text(client.get(page(Resource, "changelist")))
    verify_now(client, missing)
    assert not Resource.objects.damaged().exists()
