"""Copies and moves over HTTP: no bytes travel, and each end asks for its own permission."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.invariants import assert_settled
from tests.rest import api, object_permissions
from tests.rest.object_permissions import grant
from tests.stored import Stored
from tests.streams import sha384
from tests.together import outcomes

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    """The owner's bucket, with an object."""
    bucket = Bucket.objects.create(name="bucket", owner=api.person("owner"))
    namespace = Namespace(bucket=bucket.pk)
    ManagedStorage().put(namespace, "a/b", b"content", content_type="text/x", metadata={"colour": "red"})
    return bucket


@pytest.fixture
def other(bucket: Bucket) -> Bucket:
    return Bucket.objects.create(name="other", owner=bucket.owner)


@pytest.fixture
def owner(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def transfer(client: APIClient, what: str, place: str, **wanted: Any) -> Any:
    headers = wanted.pop("headers", {})
    asked = {"source": "a/b", "target": "c/d"} | wanted
    return client.post(f"/api/{place}/{what}", asked, format="json", headers=headers)


def paths(namespace: Namespace) -> list[str]:
    return [managed.path for managed in ManagedResource.objects.within(namespace).order_by("path")]


def test_a_copy_has_everything_of_the_original_and_no_bytes_of_its_own(
    owner: APIClient, bucket: Bucket, stored: Stored
) -> None:
    files = stored.names()
    copied = transfer(owner, "copy", f"buckets/{bucket.pk}")
    assert (copied.status_code, copied["ETag"]) == (201, f'"{sha384(b"content")}"')
    assert copied.json()["path"] == "c/d"
    assert (copied.json()["content_type"], copied.json()["metadata"]) == ("text/x", {"colour": "red"})
    assert b"".join(owner.get(copied["Location"]).streaming_content) == b"content"
    assert stored.names() == files
    assert Resource.objects.get().reference_count == 2
    assert_settled(stored)


def test_a_move_leaves_nothing_at_the_source(owner: APIClient, bucket: Bucket, stored: Stored) -> None:
    moved = transfer(owner, "move/", f"buckets/{bucket.pk}")
    assert (moved.status_code, moved.json()["path"], moved.json()["metadata"]) == (201, "c/d", {"colour": "red"})
    assert paths(Namespace(bucket=bucket.pk)) == ["c/d"]
    assert_settled(stored)


@pytest.mark.parametrize("what", ["copy", "move"])
def test_the_target_may_be_another_bucket_or_ones_own_objects(
    owner: APIClient, bucket: Bucket, other: Bucket, what: str, stored: Stored
) -> None:
    for place, namespace in [
        (str(other.pk), Namespace(bucket=other.pk)),
        ("me", Namespace(user=str(bucket.owner_id))),
        (None, Namespace(bucket=bucket.pk)),
    ]:
        done = transfer(owner, what, f"buckets/{bucket.pk}", target_bucket=place)
        assert (done.status_code, paths(namespace)[-1]) == (201, "c/d")
        ManagedStorage().put(Namespace(bucket=bucket.pk), "a/b", b"content")
    back = transfer(owner, what, "me", source="c/d", target="a/b", target_bucket=str(other.pk))
    assert (back.status_code, paths(Namespace(bucket=other.pk))) == (201, ["a/b", "c/d"])
    assert_settled(stored)


@pytest.mark.parametrize("what", ["copy", "move"])
def test_what_is_there_is_replaced_unless_the_request_excludes_it(
    owner: APIClient, bucket: Bucket, what: str, stored: Stored
) -> None:
    store, namespace = ManagedStorage(), Namespace(bucket=bucket.pk)
    old = store.put(namespace, "c/d", b"old").resource.sha384
    for headers in ({"If-None-Match": "*"}, {"If-Match": f'"{sha384(b"other")}"'}, {"If-None-Match": f'"{old}"'}):
        refused = transfer(owner, what, f"buckets/{bucket.pk}", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert paths(namespace) == ["a/b", "c/d"]
    assert store.get(namespace, "c/d").read() == b"old"
    done = transfer(owner, what, f"buckets/{bucket.pk}", headers={"If-Match": f'"{old}"'})
    assert (done.status_code, store.get(namespace, "c/d").read()) == (200, b"content")
    assert_settled(stored)


def test_one_of_many_copies_that_want_the_path_to_be_free_gets_it(bucket: Bucket, stored: Stored) -> None:
    copies = [
        partial(transfer, api.client(bucket.owner), "copy", f"buckets/{bucket.pk}", headers={"If-None-Match": "*"})
        for _ in range(8)
    ]
    assert sorted(answer.status_code for answer in outcomes(*copies)) == [201] + [412] * 7
    assert_settled(stored)


def test_who_may_only_add_replaces_nothing_that_came_at_the_same_time(
    bucket: Bucket, other: Bucket, stored: Stored
) -> None:
    adder = api.person("adder", "view_managedresource", "add_managedresource")
    copies = [
        partial(transfer, api.client(adder), "copy", f"buckets/{bucket.pk}", target_bucket=str(other.pk))
        for _ in range(8)
    ]
    assert sorted(answer.status_code for answer in outcomes(*copies)) == [201] + [403] * 7
    assert_settled(stored)


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no source": ({"source": "not/there"}, 404, "resource-not-found"),
    "itself": ({"target": "a/b"}, 400, "same-object"),
    "a bad target": ({"target": "../d"}, 400, "invalid-path"),
    "a bad source": ({"source": "/a"}, 400, "invalid-path"),
    "a number": ({"target": 1}, 400, "invalid"),
    "no such bucket": ({"target_bucket": "00000000-0000-0000-0000-000000000000"}, 404, "bucket-not-found"),
    "no bucket at all": ({"target_bucket": "you"}, 404, "bucket-not-found"),
    "a NUL": ({"target_bucket": "a\0"}, 400, "invalid"),
    "a bad condition": ({"headers": {"If-Match": "x"}}, 400, "invalid-condition"),
}


@pytest.mark.parametrize("what", ["copy", "move"])
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    owner: APIClient, bucket: Bucket, what: str, stored: Stored
) -> None:
    for name, (wanted, status, code) in BAD.items():
        refused = transfer(owner, what, f"buckets/{bucket.pk}", **wanted)
        assert (name, refused.status_code, refused.json()["code"]) == (name, status, code)
    assert paths(Namespace(bucket=bucket.pk)) == ["a/b"]
    assert Bucket.objects.count() == 1
    assert_settled(stored)


ENOUGH = {
    "copy": ({"view"}, {"add"}),
    "copy over": ({"view"}, {"change"}),
    "move": ({"view", "delete"}, {"add"}),
    "move over": ({"view", "delete"}, {"change"}),
}
ALL = ["view", "add", "change", "delete"]


@pytest.mark.parametrize("what", list(ENOUGH))
def test_each_end_needs_its_own_permission(
    bucket: Bucket, other: Bucket, what: str, stored: Stored, settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    object_permissions.granted.clear()
    source, target = ENOUGH[what]
    if what.endswith("over"):
        ManagedStorage().put(Namespace(bucket=other.pk), "c/d", b"old")
    before = {str(place): paths(Namespace(bucket=place.pk)) for place in (bucket, other)}
    for number, (lacking, place) in enumerate([*((n, bucket) for n in source), *((n, other) for n in target)]):
        user = api.person(f"user {number}")
        for here in (bucket, other):
            for permission in {*ALL} - ({lacking} if here == place else set()):
                grant(user, f"{permission}_managedresource", here)
        refused = transfer(api.client(user), what.split()[0], f"buckets/{bucket.pk}", target_bucket=str(other.pk))
        assert (lacking, refused.status_code) == (lacking, 403)
    assert before == {str(place): paths(Namespace(bucket=place.pk)) for place in (bucket, other)}
    user = api.person("enough")
    for place, permissions in ((bucket, source), (other, target)):
        for permission in permissions:
            grant(user, f"{permission}_managedresource", place)
    done = transfer(api.client(user), what.split()[0], f"buckets/{bucket.pk}", target_bucket=str(other.pk))
    assert done.status_code == (200 if what.endswith("over") else 201)
    object_permissions.granted.clear()
    assert_settled(stored)


def test_between_buckets_that_do_not_share_content_the_bytes_are_copied(
    owner: APIClient, bucket: Bucket, other: Bucket, stored: Stored, settings: Any
) -> None:
    settings.BLOBSTORE = settings.BLOBSTORE | {"DEDUP_SCOPE": "bucket"}
    store = ManagedStorage()
    store.put(Namespace(bucket=bucket.pk), "mine", b"content", metadata={"colour": "red"})
    for what in ("copy", "move"):
        done = transfer(owner, what, f"buckets/{bucket.pk}", source="mine", target=what, target_bucket=str(other.pk))
        assert (done.status_code, done.json()["metadata"]) == (201, {"colour": "red"})
        managed = store.stat(Namespace(bucket=other.pk), what)
        assert managed.resource.scope == f"bucket:{other.pk}"
    assert paths(Namespace(bucket=bucket.pk)) == ["a/b"]
    assert_settled(stored)
