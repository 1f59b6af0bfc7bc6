"""A bucket never holds more bytes than its quota, however many put into it at once."""

from __future__ import annotations

from functools import partial

import pytest

from django_blobstore.errors import QuotaExceeded
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import content_of
from tests.together import outcomes

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])


@pytest.fixture
def bucket(database: str, stored: Stored) -> Namespace:
    """A bucket for 100 bytes."""
    return Namespace(Bucket.objects.create(name="small", quota_bytes=100).pk)


def test_what_fits_exactly_is_stored_and_one_byte_more_is_not(bucket: Namespace, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(bucket, "a", bytes(60))
    store.put(bucket, "b", bytes(40))
    with pytest.raises(QuotaExceeded) as refused:
        store.put(bucket, "c", b"1")
    assert (refused.value.quota, refused.value.length) == (100, 101)
    assert [managed.path for managed in ManagedResource.objects.order_by("path")] == ["a", "b"]
    assert_settled(stored)


def test_each_object_counts_though_its_content_is_shared(bucket: Namespace, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(bucket, "a", bytes(60))
    with pytest.raises(QuotaExceeded):
        store.put(bucket, "b", bytes(60))
    with pytest.raises(QuotaExceeded):
        store.copy(store.stat(bucket, "a"), bucket, "b")
    with pytest.raises(QuotaExceeded):
        store.move(store.put(Namespace("roomy"), "x", bytes(60)), bucket, "b")
    assert ManagedResource.objects.filter(bucket_id=bucket.bucket_id).count() == 1
    assert_sound(stored)


def test_a_bucket_above_its_quota_may_shrink(bucket: Namespace, stored: Stored) -> None:
    store = ManagedStorage()
    store.put(bucket, "a", bytes(60))
    Bucket.objects.update(quota_bytes=10)
    store.put(bucket, "a", bytes(50))
    with pytest.raises(QuotaExceeded):
        store.put(bucket, "a", bytes(51))
    # Whoever is to make room may have to rename.
    store.move(store.stat(bucket, "a"), bucket, "b")
    store.move(store.stat(bucket, "b"), Namespace(bucket.bucket_id, "somebody"), "c")
    store.remove(Namespace(bucket.bucket_id, "somebody"), "c")
    assert_settled(stored)


def test_puts_at_the_same_time_do_not_pass_the_quota_together(bucket: Namespace, stored: Stored) -> None:
    store = ManagedStorage()
    ended = outcomes(*(partial(store.put, bucket, str(n), content_of(30, n)) for n in range(8)))
    assert sum(isinstance(outcome, QuotaExceeded) for outcome in ended) == 5
    assert ManagedResource.objects.count() == 3
    assert_settled(stored)
