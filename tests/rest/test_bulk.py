"""Many objects in one request: a result for each path, and no query for each."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import ProtectedError
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile
from tests.invariants import assert_settled
from tests.rest import api
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    bucket = Bucket.objects.create(name="bucket", owner=api.person("owner"))
    for path in ("a", "b/c", "d"):
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, path.encode())
    return bucket


@pytest.fixture
def owner(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def bulk(client: APIClient, bucket: Bucket, what: str, paths: Any) -> Any:
    document = json.dumps({"paths": paths})  # with lone surrogates as ASCII, unlike the client's own encoder
    return client.generic("POST", f"/api/buckets/{bucket.pk}/{what}", document, "application/json")


def outcome(answer: Any) -> list[tuple[str, int, str]]:
    assert answer.status_code == 200
    return [(one["path"], one["status"], one.get("code", "")) for one in answer.json()["results"]]


def test_stat_tells_of_each_path_in_the_order_asked(owner: APIClient, bucket: Bucket) -> None:
    arriving = PendingFile(path="x", storage="blobstore", bucket_id=bucket.pk, managed_path="soon")
    arriving.lease_until = Now() + timedelta(hours=1)
    arriving.save()
    answer = bulk(owner, bucket, "stat", ["d", "none", "b/c", "d", "soon", "../x", ""])
    assert outcome(answer) == [
        ("d", 200, ""),
        ("none", 404, "resource-not-found"),
        ("b/c", 200, ""),
        ("d", 200, ""),
        ("soon", 503, "upload-pending"),
        ("../x", 400, "invalid-path"),
        ("", 400, "invalid-path"),
    ]
    listed = {shown["path"]: shown for shown in owner.get(f"/api/buckets/{bucket.pk}/objects/").json()["objects"]}
    described = answer.json()["results"]
    assert (described[0]["object"], described[2]["object"]) == (listed["d"], listed["b/c"])


def test_a_thousand_paths_cost_as_many_queries_as_one(owner: APIClient, bucket: Bucket, database: str) -> None:
    def queries(paths: list[str]) -> int:
        with CaptureQueriesContext(connections[database]) as captured:
            assert len(outcome(bulk(owner, bucket, "stat", paths))) == len(paths)
        return len(captured)

    queries(["a"])
    assert queries(["a", "none"]) == queries(["a", "b/c", "d", *(f"none {n}" for n in range(997))]) <= 6


def test_delete_removes_what_is_there_and_tells_what_is_not(owner: APIClient, bucket: Bucket, stored: Stored) -> None:
    answer = bulk(owner, bucket, "delete", ["d", "none", "a//b", "a", "a"])
    assert outcome(answer) == [
        ("d", 204, ""),
        ("none", 404, "resource-not-found"),
        ("a//b", 400, "invalid-path"),
        ("a", 204, ""),
        ("a", 404, "resource-not-found"),
    ]
    assert [managed.path for managed in ManagedResource.objects.all()] == ["b/c"]
    assert_settled(stored)


def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    owner: APIClient, bucket: Bucket, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    def protect(instance: ManagedResource, **kwargs: Any) -> None:
        if instance.path == "b/c":
            raise ProtectedError("kept", {instance})

    pre_delete.connect(protect, ManagedResource)
    try:
        answer = bulk(owner, bucket, "delete", ["a", "b/c", "d"])
    finally:
        pre_delete.disconnect(protect, ManagedResource)
    assert outcome(answer) == [("a", 204, ""), ("b/c", 500, "unforeseen"), ("d", 204, "")]
    assert "'b/c'" in caplog.text
    assert [managed.path for managed in ManagedResource.objects.all()] == ["b/c"]
    assert_settled(stored)


@pytest.mark.parametrize("what", ["stat", "delete"])
@pytest.mark.parametrize(
    "paths",
    [[], ["a"] * 1001, "a", None, ["a", None], [["a"]], {"a": "b"}, ["a\0"], ["\ud800"]],
    ids=lambda paths: ascii(paths)[:9],
)
def test_a_list_that_is_none_or_too_long_is_refused_as_a_whole(
    owner: APIClient, bucket: Bucket, what: str, paths: Any
) -> None:
    refused = bulk(owner, bucket, what, paths)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert "paths" in refused.json()["errors"]
    assert ManagedResource.objects.count() == 3


def test_ones_own_objects_and_the_global_ones_are_asked_for_alike(owner: APIClient, bucket: Bucket) -> None:
    assert bucket.owner
    store = ManagedStorage()
    store.put(Namespace(user=str(bucket.owner.pk)), "mine", b"mine")
    store.put(Namespace(), "ours", b"ours")
    root = api.client(api.administrator())
    for client, place, path in ((owner, "me", "mine"), (root, "global", "ours")):
        assert outcome(client.post(f"/api/{place}/stat", {"paths": [path]}, format="json")) == [(path, 200, "")]
        assert outcome(client.post(f"/api/{place}/delete", {"paths": [path]}, format="json")) == [(path, 204, "")]
    assert ManagedResource.objects.filter(bucket=None).count() == 0
