"""What a bucket says of its contents: how many objects, how many bytes they show, and how many are kept."""

from __future__ import annotations

from uuid import uuid4

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from tests.stored import Stored


def usage() -> list[tuple[str, int, int, int]]:
    buckets = Bucket.objects.with_usage().order_by("name")
    return [(bucket.name, bucket.object_count, bucket.logical_bytes, bucket.stored_bytes) for bucket in buckets]


def test_each_object_counts_for_the_logical_bytes_and_each_content_once_for_the_stored_ones(
    database: str, stored: Stored
) -> None:
    store = ManagedStorage()
    for bucket, path, content in [("a", "1", b"xx"), ("a", "2", b"xx"), ("a", "3", b"yyy"), ("b", "1", b"xx")]:
        store.put_for_bucket(bucket, path, content)
    store.put(Namespace(user="7"), "elsewhere", b"zzzz")
    Bucket.objects.create(uuid=uuid4(), name="empty")
    assert usage() == [("a", 3, 7, 5), ("b", 1, 2, 2), ("empty", 0, 0, 0)]
    assert {type(figure) for figure in usage()[0][1:]} == {int}


def test_the_usage_of_buckets_is_one_query_and_can_be_sorted_by(
    database: str, stored: Stored, django_assert_num_queries
) -> None:
    ManagedStorage().put_for_bucket("small", "1", b"x")
    ManagedStorage().put_for_bucket("large", "1", b"xxx")
    with django_assert_num_queries(1, using=database):
        largest_first = [bucket.name for bucket in Bucket.objects.with_usage().order_by("-stored_bytes")]
    assert largest_first == ["large", "small"]
