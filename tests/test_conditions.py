"""Puts and removes that are to happen only if the object is still as the caller saw it."""

from __future__ import annotations

from functools import partial

import pytest

from django_blobstore.errors import ConditionFailed
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource
from django_blobstore.proof import answer
from tests.invariants import assert_empty, assert_settled
from tests.stored import Stored
from tests.streams import content_of, sha384
from tests.together import outcomes

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

BUCKET = Namespace("b")


def absent(found: ManagedResource | None) -> None:
    if found:
        raise ConditionFailed(found.path, found.resource.sha384)


def having(content: bytes, found: ManagedResource | None) -> None:
    if found is None or found.resource.sha384 != sha384(content):
        raise ConditionFailed("a", found.resource.sha384 if found else "")


def test_one_of_many_who_create_the_same_path_succeeds(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    puts = [partial(store.put, BUCKET, "a", content_of(10, n), condition=absent) for n in range(8)]
    ended = outcomes(*puts)
    assert sum(isinstance(outcome, ManagedResource) for outcome in ended) == 1
    assert sum(isinstance(outcome, ConditionFailed) for outcome in ended) == 7
    assert_settled(stored)


@pytest.mark.parametrize("content", [b"small", content_of(1_100_000)])
def test_a_put_whose_condition_fails_leaves_nothing(database: str, stored: Stored, content: bytes) -> None:
    with pytest.raises(ConditionFailed) as failed:
        ManagedStorage().put(BUCKET, "a", content, condition=partial(having, b"other"))
    assert failed.value.sha384 == ""
    assert_empty(stored)


def test_an_object_is_replaced_only_while_it_has_the_content_that_was_seen(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(BUCKET, "a", b"one")
    assert not store.put(BUCKET, "a", b"two", condition=partial(having, b"one")).was_created
    with pytest.raises(ConditionFailed) as failed:
        store.put(BUCKET, "a", b"three", condition=partial(having, b"one"))
    assert (failed.value.path, failed.value.sha384) == ("a", sha384(b"two"))
    assert store.get(BUCKET, "a").read() == b"two"
    assert_settled(stored)


def test_an_object_is_removed_only_while_it_has_the_content_that_was_seen(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(BUCKET, "a", b"one")
    with pytest.raises(ConditionFailed):
        store.remove(BUCKET, "a", condition=partial(having, b"two"))
    assert store.get(BUCKET, "a").read() == b"one"
    store.remove(BUCKET, "a", condition=partial(having, b"one"))
    assert not ManagedResource.objects.exists()
    assert_settled(stored)


def test_a_copy_asks_about_what_is_there(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    source = store.put(BUCKET, "a", b"one")
    store.put(BUCKET, "b", b"two")
    with pytest.raises(ConditionFailed):
        store.copy(source, BUCKET, "b", condition=absent)
    assert store.get(BUCKET, "b").read() == b"two"
    assert store.copy(source, BUCKET, "c", condition=absent).was_created
    assert_settled(stored)


def test_a_proof_whose_condition_fails_makes_nothing_and_can_be_given_again(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(BUCKET, "original", b"content")
    asked = store.put_request(BUCKET, "a", sha384(b"content"))
    store.put(BUCKET, "a", b"meanwhile")
    proof = answer(b"content", asked, sha384(b"content"))
    with pytest.raises(ConditionFailed):
        store.proof_of_access_response(proof, condition=absent)
    assert store.get(BUCKET, "a").read() == b"meanwhile"
    store.remove(BUCKET, "a")
    assert store.proof_of_access_response(proof, condition=absent).was_created
    assert_settled(stored)
