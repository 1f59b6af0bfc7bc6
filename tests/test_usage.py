"""The totals of buckets and users: kept exactly, whatever is done at the same time."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import pytest

from django_blobstore.errors import BucketNotFound, ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, Totals, Usage
from tests.invariants import assert_sound
from tests.stored import Stored
from tests.streams import content_of
from tests.together import results

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

A, B = Namespace("a"), Namespace("b")
USER, USER_IN_A = Namespace(user="7"), Namespace("a", "7")


def totals(namespace: Namespace) -> Totals:
    return Usage.objects.within(namespace).totals()


def test_each_object_counts_and_each_content_once_per_bucket(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for namespace, path in [(A, "1"), (A, "2"), (USER_IN_A, "1"), (B, "1"), (USER, "1"), (Namespace(), "1")]:
        store.put(namespace, path, b"xxx")
    assert totals(A) == totals(USER_IN_A) == Totals(3, 9, 3)
    assert totals(B) == totals(USER) == totals(Namespace()) == Totals(1, 3, 3)
    assert totals(Namespace("none")) == Totals(0, 0, 0)


def test_replacing_counts_the_new_content_in_and_the_old_one_out(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for path, content in [("1", b"xxx"), ("2", b"xxx"), ("1", b"yyyyy"), ("1", b"yyyyy")]:
        store.put(A, path, content)
    assert totals(A) == Totals(2, 8, 8)
    store.put(A, "2", b"yyyyy")
    assert totals(A) == Totals(2, 10, 5)


def test_removing_leaves_nothing_counted(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for path in ("1", "2"):
        store.put(A, path, b"xxx")
    store.remove(A, "1")
    assert totals(A) == Totals(1, 3, 3)
    store.remove(A, "2")
    assert totals(A) == Totals(0, 0, 0)
    with pytest.raises(ResourceNotFound):
        store.remove(A, "2")
    assert totals(A) == Totals(0, 0, 0)


def test_a_put_that_is_refused_counts_nothing(database: str, stored: Stored) -> None:
    with pytest.raises(BucketNotFound):
        ManagedStorage().put(A, "1", b"xxx", create_bucket=False)
    assert not Usage.objects.exists()
    assert not Bucket.objects.exists()


def test_the_totals_of_a_bucket_go_with_it(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    managed = store.put(A, "1", b"xxx")
    assert managed.bucket
    store.remove_bucket(managed.bucket)
    assert not Usage.objects.exists()
    store.put(A, "1", b"xxx")
    assert totals(A) == Totals(1, 3, 3)


def put_and_remove(store: ManagedStorage, seed: int) -> None:
    order = random.Random(seed)
    for _ in range(25):
        namespace, path = order.choice([A, B, USER_IN_A]), order.choice("12")
        if order.random() < 0.6:
            store.put(namespace, path, content_of(10, order.randrange(3)))
        else:
            with suppress(ResourceNotFound):
                store.remove(namespace, path)


def test_totals_are_exact_after_equal_contents_came_and_went_at_the_same_time(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    results(*(partial(put_and_remove, store, seed) for seed in range(6)))
    assert_sound(stored)
