"""The tables: which rows the database itself refuses, and in which order it has paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, models, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    PutRequest,
    Ranking,
    Resource,
    ResumableUpload,
    UpkeepRun,
    UploadPart,
    after_prefix,
)
from django_blobstore.namespaces import Namespace
from tests.streams import sha384

OUR_MODELS = [
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    PutRequest,
    Ranking,
    Resource,
    ResumableUpload,
    UpkeepRun,
    UploadPart,
]
NOW = timezone.now()
BUCKET = Namespace(bucket="photos")


def resource(label: str = "a", **columns: Any) -> Resource:
    return Resource.objects.create(**{"sha384": sha384(label.encode()), "length": 1, "path": label} | columns)


def bucket() -> Bucket:
    return Bucket.objects.get_or_create(uuid=BUCKET.bucket_id)[0]


def managed(path: str = "p", **columns: Any) -> ManagedResource:
    to = Resource.objects.first() or resource()
    return ManagedResource.objects.create(path=path, resource=to, **columns)


def pending(**columns: Any) -> PendingFile:
    return PendingFile.objects.create(path="f", storage="blobstore", **columns)


def no_reference() -> None:
    resource(reference_count=0)


def one_content_twice() -> None:
    resource("a", scope="s", path="one")
    resource("a", scope="s", path="two")


def one_file_of_two_contents() -> None:
    resource("a", path="same")
    resource("b", path="same")


def missing_and_sound() -> None:
    resource(missing=True)


def one_path_twice_in_a_bucket() -> None:
    managed(bucket=bucket(), user="u")
    managed(bucket=bucket(), user="u")


def one_path_twice_outside_buckets() -> None:
    managed(user="u")
    managed(user="u")


def no_path() -> None:
    managed("")


def arriving_and_leaving() -> None:
    pending(discard=True, lease_until=NOW, due_at=NOW)


def resumable(**columns: Any) -> ResumableUpload:
    return ResumableUpload.objects.create(id="u", expires_at=NOW, **columns)


def more_than_its_length() -> None:
    resumable(length=5, offset=6)


def two_parts_at_one_offset() -> None:
    upload = resumable()
    for file in ("one", "two"):
        UploadPart.objects.create(upload=upload, offset=0, file_id=file)


def measured(**columns: Any) -> None:
    for _ in range(2):
        Measurement.objects.create(
            day=NOW.date(), measured_at=NOW, object_count=0, logical_bytes=0, stored_bytes=0, **columns
        )


def ranked(**columns: Any) -> None:
    for _ in range(2):
        Ranking.objects.create(by=Ranking.By.LENGTH, measured_at=NOW, **columns)


VIOLATIONS: dict[str, Callable[[], None]] = {
    "blobstore_resource_is_referenced": no_reference,
    "blobstore_resource_once_per_scope": one_content_twice,
    "blobstore_resource_owns_its_file": one_file_of_two_contents,
    "blobstore_resource_missing_is_damaged": missing_and_sound,
    "blobstore_path_once_per_bucket": one_path_twice_in_a_bucket,
    "blobstore_path_once_outside_buckets": one_path_twice_outside_buckets,
    "blobstore_path_is_not_empty": no_path,
    "blobstore_pending_arrives_or_leaves": arriving_and_leaving,
    "blobstore_resumable_within_length": more_than_its_length,
    "blobstore_part_once_per_offset": two_parts_at_one_offset,
    "blobstore_bucket_measured_once_a_day": lambda: measured(bucket=bucket()),
    "blobstore_store_measured_once_a_day": measured,
    "blobstore_bucket_ranked_once": lambda: ranked(bucket=bucket()),
    "blobstore_store_ranked_once": ranked,
}


def constraints() -> dict[str, models.BaseConstraint]:
    return {constraint.name: constraint for model in OUR_MODELS for constraint in model._meta.constraints}


def test_these_tests_violate_every_named_constraint() -> None:
    assert set(VIOLATIONS) == set(constraints())


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_the_database_refuses_a_row_that_breaks(database: str, name: str) -> None:
    with pytest.raises(IntegrityError) as raised, transaction.atomic(using=database):
        VIOLATIONS[name]()
    assert name in str(raised.value) or _columns(constraints()[name]) in str(raised.value)
    assert not any(model.objects.exists() for model in (Resource, ManagedResource, PendingFile))


def _columns(constraint: models.BaseConstraint) -> str:
    """Return how SQLite tells of a unique constraint."""
    assert isinstance(constraint, models.UniqueConstraint)
    [table] = [model._meta.db_table for model in OUR_MODELS if constraint in model._meta.constraints]
    names = [{"bucket": "bucket_id", "upload": "upload_id"}.get(name, name) for name in constraint.fields]
    return ", ".join(f"{table}.{name}" for name in names)


@pytest.mark.parametrize(
    "columns",
    [
        {"discard": False},
        {"discard": True},
        {"discard": False, "due_at": NOW},
        {"discard": True, "lease_until": NOW},
        {"discard": False, "due_at": NOW, "lease_until": NOW},
    ],
)
def test_a_pending_file_without_the_right_deadline_is_refused(database: str, columns: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        pending(**columns)


def test_what_the_constraints_allow_side_by_side(database: str) -> None:
    for scope in ("", "s"):
        resource(scope=scope, path="")
    for user in ("", "u"):
        managed(user=user)
        managed(user=user, bucket=bucket())
    assert ManagedResource.objects.count() == 4


@pytest.mark.parametrize("referred", ["resource", "bucket"])
def test_what_an_object_refers_to_cannot_be_deleted(database: str, referred: str) -> None:
    row = getattr(managed(bucket=bucket()), referred)
    with pytest.raises(ProtectedError):
        row.delete()
    with pytest.raises(IntegrityError):
        type(row).objects.filter(pk=row.pk)._raw_delete(database)
    assert ManagedResource.objects.count() == 1


def test_a_deleted_owner_leaves_the_bucket(database: str, django_user_model: Any) -> None:
    owner = django_user_model.objects.create(username="owner")
    ours = Bucket.objects.create(owner=owner)
    owner.delete()
    ours.refresh_from_db()
    assert ours.owner is None


IN_BYTE_ORDER = ["B", "a", "a!", "a/b", "a0", "~", "é", "\ud7ff", "\ue000", "\uffee", "\U00010000", "\U0010ffff"]


def test_paths_are_in_the_order_of_their_bytes(database: str) -> None:
    for path in reversed(IN_BYTE_ORDER):
        managed(path)
    assert sorted(IN_BYTE_ORDER, key=str.encode) == IN_BYTE_ORDER
    assert list(ManagedResource.objects.order_by("path").values_list("path", flat=True)) == IN_BYTE_ORDER


def test_byte_order_does_not_depend_on_how_the_database_was_made(database: str) -> None:
    connection = connections[database]
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, ManagedResource._meta.db_table)
    [path] = [column for column in columns if column.name == "path"]
    assert path.collation == {"sqlite": None, "postgresql": "C"}[connection.vendor]  # None is SQLite's BINARY


EDGES = ["", "a", "a/", "A", "é", "\ud7ff", "\ue000", "\U0010ffff", "a\U0010ffff", "a\U0010ffff\U0010ffff", "\x7e"]


@pytest.mark.parametrize("prefix", EDGES)
def test_under_a_prefix_are_exactly_the_paths_that_start_with_it(database: str, prefix: str) -> None:
    names = {edge + rest for edge in EDGES for rest in ("", "/", "b", "\ud7ff", "\ue000x", "\U0010ffff")} - {""}
    to = resource()
    rows = (ManagedResource(path=name, resource=to) for name in names)
    models.QuerySet.bulk_create(ManagedResource.objects.all(), rows)
    found = ManagedResource.objects.under(prefix).order_by("path").values_list("path", flat=True)
    assert list(found) == sorted((name for name in names if name.startswith(prefix)), key=str.encode)


@pytest.mark.parametrize(
    ("prefix", "after"),
    [
        ("", ""),
        ("\U0010ffff", ""),
        ("\U0010ffff\U0010ffff", ""),
        ("a", "b"),
        ("a/", "a0"),
        ("a\U0010ffff", "b"),
        ("a\ud7ff", "a\ue000"),
        ("\uffff", "\U00010000"),
    ],
)
def test_what_comes_after_a_prefix(prefix: str, after: str) -> None:
    assert after_prefix(prefix) == after


@pytest.mark.parametrize("namespace", [BUCKET, Namespace()], ids=str)
def test_a_page_of_paths_under_a_prefix_is_a_range_of_the_index(database: str, namespace: Namespace) -> None:
    bucket_id = namespace.bucket_id and bucket().pk
    to = resource()
    rows = (ManagedResource(bucket_id=bucket_id, path=f"{n:05}", resource=to) for n in range(5000))
    models.QuerySet.bulk_create(ManagedResource.objects.all(), rows)
    with connections[database].cursor() as cursor:
        cursor.execute("ANALYZE")
    plan = ManagedResource.objects.within(namespace).under("01").order_by("path")[:10].explain()
    index = "blobstore_path_once_per_bucket" if bucket_id else "blobstore_path_once_outside_buckets"
    assert index in plan
    assert re.search(r"Index Cond: .*path.* >= .*path.* < |\(.*path>\? AND path<\?\)", plan)
    assert not re.search("Sort|TEMP B-TREE", plan)


def test_a_file_is_arriving_or_abandoned_or_due_or_none_of_these(database: str) -> None:
    hour = timedelta(hours=1)
    for name, columns in {
        "arriving": {"lease_until": NOW + hour},
        "abandoned": {"lease_until": NOW - hour},
        "due": {"discard": True, "due_at": NOW - hour},
        "later": {"discard": True, "due_at": NOW + hour},
    }.items():
        PendingFile.objects.create(path=name, storage="blobstore", **columns)
    for name in ("arriving", "abandoned", "due"):
        assert [row.path for row in getattr(PendingFile.objects.all(), name)()] == [name]


def test_giving_up_and_renewing_touch_only_what_is_not_given_up_yet(database: str) -> None:
    pending(lease_until=NOW)
    assert PendingFile.objects.renew(timedelta(hours=1), offset=7)
    assert PendingFile.objects.arriving().get().offset == 7
    assert PendingFile.objects.give_up(timedelta(hours=1)) == 1
    assert not PendingFile.objects.due().exists()
    assert PendingFile.objects.give_up() == 0
    assert not PendingFile.objects.renew(timedelta(hours=1))
    assert not PendingFile.objects.due().exists()


def test_files_aimed_at_an_object_are_found_by_its_whole_name(database: str) -> None:
    pending(lease_until=NOW, bucket_id=BUCKET.bucket_id, user="u", managed_path="a")
    aimed = PendingFile.objects.aimed_at
    assert aimed(Namespace(bucket="photos", user="u"), "a").exists()
    others = [Namespace(), BUCKET, Namespace(user="u"), Namespace(bucket="music", user="u")]
    assert not any(aimed(namespace, "a").exists() for namespace in others)
    assert not aimed(Namespace(bucket="photos", user="u"), "b").exists()


def test_a_request_is_forgotten_only_when_it_neither_counts_nor_can_be_answered(database: str) -> None:
    def request(id: str, created: timedelta, expires: timedelta) -> None:
        columns = {"sha384": "", "length": 0, "algorithm": "", "nonce": b"", "ranges": [], "path": "p"}
        PutRequest.objects.create(id=id, expires_at=now + expires, **columns)
        PutRequest.objects.filter(pk=id).update(created_at=now + created)

    # It may be another day than when these tests were read.
    now = timezone.now()

    day = timedelta(days=1)
    request("of today", timedelta(0), -timedelta(seconds=1))
    request("old but open", -2 * day, day)
    request("old", -2 * day, -day)
    assert [row.pk for row in PutRequest.objects.forgettable()] == ["old"]
    assert [row.pk for row in PutRequest.objects.answerable()] == ["old but open"]


def test_every_row_says_in_the_admin_what_it_is(database: str) -> None:
    assert str(bucket()) == str(BUCKET.bucket_id)
    assert str(Bucket(name="photos")) == "photos"
    assert str(managed("a/b")) == "a/b"
    assert str(resource("z")).startswith(sha384(b"z")[:12])
