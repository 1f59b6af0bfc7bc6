"""Giving an object another name: what goes along, what is replaced, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
from pytest_django import Settings

from django_blobstore.errors import BucketNotFound, ConditionFailed, InvalidPath, ResourceNotFound, UploadPending
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.invariants import assert_settled
from tests.stored import Stored
from tests.test_conditions import absent
from tests.together import results

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

A, B, USER = Namespace("a"), Namespace("b"), Namespace(user="7")


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    store = ManagedStorage()
    store.put(B, "there", b"old")
    return store


@pytest.mark.parametrize("target", [A, B, USER], ids=str)
def test_a_moved_object_keeps_everything_but_its_name(store: ManagedStorage, stored: Stored, target: Namespace) -> None:
    source = store.put(A, "x", b"content", content_type="text/plain", metadata={"colour": "red"})
    moved = store.move(source, target, "/y")
    assert moved.was_created
    found = store.stat(target, "y")
    assert (found.pk, found.content_type, found.metadata) == (source.pk, "text/plain", {"colour": "red"})
    assert (found.resource_id, found.created_at) == (source.resource_id, source.created_at)
    assert found.resource.reference_count == 1
    with pytest.raises(ResourceNotFound):
        store.stat(A, "x")
    assert_settled(stored)


def test_a_move_replaces_what_is_there(store: ManagedStorage, stored: Stored) -> None:
    moved = store.move(store.put(A, "x", b"content"), B, "there")
    assert not moved.was_created
    assert store.get(B, "there").read() == b"content"
    assert Resource.objects.get().reference_count == 1
    assert_settled(stored)


def test_an_object_moved_onto_itself_or_onto_equal_content_is_not_lost(store: ManagedStorage, stored: Stored) -> None:
    assert store.move(store.stat(B, "there"), B, "there") == store.stat(B, "there")
    store.move(store.put(A, "x", b"old"), B, "there")
    assert store.get(B, "there").read() == b"old"
    assert ManagedResource.objects.count() == 1
    assert_settled(stored)


def test_what_cannot_be_moved_stays(store: ManagedStorage, stored: Stored) -> None:
    source = store.put(A, "x", b"content")
    with pytest.raises(BucketNotFound):
        store.move(source, Namespace("nowhere"), "y")
    with pytest.raises(ConditionFailed):
        store.move(source, B, "there", condition=absent)
    with pytest.raises(InvalidPath):
        store.move(source, B, "a//b")
    assert store.get(A, "x").read() == b"content"
    assert store.get(B, "there").read() == b"old"
    assert Bucket.objects.count() == 2
    assert_settled(stored)


def test_what_was_replaced_or_removed_meanwhile_is_not_moved(store: ManagedStorage, stored: Stored) -> None:
    source = store.put(A, "x", b"content")
    store.put(A, "x", b"newer")
    with pytest.raises(ResourceNotFound):
        store.move(source, B, "there")
    store.remove(A, "x")
    with pytest.raises(ResourceNotFound):
        store.move(source, B, "there")
    assert store.get(B, "there").read() == b"old"
    assert_settled(stored)


def test_between_namespaces_that_do_not_share_content_the_bytes_move(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = settings.BLOBSTORE | {"DEDUP_SCOPE": "bucket"}
    store.move(store.put(A, "x", b"content", content_type="text/plain"), B, "y")
    found = store.stat(B, "y")
    assert (found.content_type, found.resource.scope) == ("text/plain", f"bucket:{B.bucket_id}")
    assert store.get(B, "y").read() == b"content"
    with pytest.raises(ResourceNotFound):
        store.stat(A, "x")
    assert_settled(stored)


def swap(store: ManagedStorage, source: Namespace, target: Namespace) -> None:
    for _ in range(10):
        try:
            store.move(store.stat(source, "x"), target, "x")
        except (ResourceNotFound, UploadPending):
            store.put(source, "x", str(source).encode())


def test_moves_in_both_directions_at_once_lose_no_count(store: ManagedStorage, stored: Stored) -> None:
    results(*(partial(swap, store, *pair) for pair in [(A, B), (B, A), (A, USER), (USER, B)]))
    assert_settled(stored)
