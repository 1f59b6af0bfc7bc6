"""Counts and the rows that justify them: what the catalog does, refuses and leaves behind, on both databases."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models import Model
from django.db.models.functions import Now
from django.test.testcases import DatabaseOperationForbidden
from django.test.utils import CaptureQueriesContext

from django_blobstore.catalog import Content, ResourceCatalog, StoredFile
from django_blobstore.errors import (
    AlreadyUploaded,
    BucketNotFound,
    CatalogBusy,
    InvalidHash,
    LeaseLost,
    LengthMismatch,
    ResourceNotFound,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource
from django_blobstore.transactions import ATTEMPTS
from tests.conftest import ON_EVERY_DATABASE
from tests.invariants import assert_settled, assert_sound
from tests.routers import OneDatabase
from tests.stored import Stored
from tests.streams import content_of, sha384
from tests.together import outcomes, results

HASH, OTHER_HASH = sha384(b"one"), sha384(b"two")
BUCKET = Namespace("bucket")


@pytest.fixture
def catalog(database: str) -> ResourceCatalog:
    return ResourceCatalog()


def counts() -> dict[str, int]:
    return dict(Resource.objects.values_list("sha384", "reference_count"))


def arriving(path: str) -> StoredFile:
    """Return a file that a pending row names, as an upload has it before it is referred to."""
    PendingFile.objects.create(path=path, storage="blobstore", lease_until="9999-01-01T00:00:00Z")
    return StoredFile("blobstore", path)


def test_a_new_content_begins_with_one_reference_and_no_path(catalog: ResourceCatalog) -> None:
    id, path = catalog.put(HASH, 3)
    assert path == ""
    assert Resource.objects.values_list("pk", "sha384", "length", "reference_count").get() == (id, HASH, 3, 1)


def test_a_known_content_gains_a_reference_and_tells_its_path(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    catalog.upload_complete(id, "aa/bb")
    assert catalog.put(HASH, 3) == (id, "aa/bb")
    assert counts() == {HASH: 2}


def test_the_same_content_in_another_scope_is_another_resource(catalog: ResourceCatalog) -> None:
    assert catalog.put(HASH, 3)[0] != catalog.put(HASH, 3, scope="bucket:1")[0]
    assert Resource.objects.count() == 2


def test_another_length_for_a_known_hash_is_refused_and_not_counted(catalog: ResourceCatalog) -> None:
    catalog.put(HASH, 3)
    with pytest.raises(LengthMismatch) as refused:
        catalog.put(HASH, 4)
    assert (refused.value.expected, refused.value.actual) == (3, 4)
    assert counts() == {HASH: 1}


@pytest.mark.parametrize("bad", ["", "ab", "g" * 96, HASH + "00", " " + HASH[1:]])
def test_what_is_no_hash_is_refused_and_leaves_no_row(catalog: ResourceCatalog, bad: str) -> None:
    with pytest.raises(InvalidHash):
        catalog.put(bad, 3)
    with pytest.raises(InvalidHash):
        catalog.find(bad)
    assert counts() == {}


def test_a_resource_is_pending_until_its_upload_is_complete(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    with pytest.raises(UploadPending):
        catalog.get(id)
    with pytest.raises(UploadPending):
        catalog.find(HASH)
    catalog.upload_complete(id, "aa/bb")
    assert catalog.get(id).path == "aa/bb"
    assert catalog.find(HASH.upper()) == id


def test_what_was_never_put_is_not_found(catalog: ResourceCatalog) -> None:
    with pytest.raises(ResourceNotFound):
        catalog.get(1)
    with pytest.raises(ResourceNotFound):
        catalog.find(HASH)
    with pytest.raises(ResourceNotFound):
        catalog.upload_complete(1, "aa/bb")
    with pytest.raises(ResourceNotFound):
        catalog.remove(1)
    assert counts() == {}


def test_only_the_first_of_many_uploaders_records_its_path(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    done = outcomes(*(partial(catalog.upload_complete, id, f"file/{n}") for n in range(8)))
    kept = catalog.get(id).path
    assert sorted(map(str, done), key=len)[0] == "None"
    refused = [error for error in done if error is not None]
    assert len(refused) == 7
    assert {type(error) for error in refused} == {AlreadyUploaded}
    assert {error.path for error in refused} == {kept}


def test_recording_an_upload_takes_the_file_from_the_pending_ones(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    catalog.upload_complete(id, arriving("aa/bb").path)
    assert not PendingFile.objects.exists()


def test_a_file_that_was_given_up_cannot_be_recorded(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    arriving("aa/bb")
    PendingFile.objects.all().give_up()
    with pytest.raises(LeaseLost):
        catalog.upload_complete(id, "aa/bb")
    assert Resource.objects.get().path == ""
    assert PendingFile.objects.get().discard


@pytest.mark.parametrize("database", ON_EVERY_DATABASE[1:], indirect=True)  # SQLite has one writer at a time
def test_a_file_given_up_while_it_is_recorded_is_not_recorded(database: str, catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    arriving("aa/bb")

    def give_up_before_the_delete(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("DELETE"):
            results(lambda: PendingFile.objects.all().give_up())
        return execute(sql, *rest)

    with connections[database].execute_wrapper(give_up_before_the_delete), pytest.raises(LeaseLost):
        catalog.upload_complete(id, "aa/bb")
    assert Resource.objects.get().path == ""
    assert PendingFile.objects.get().discard


def test_the_last_reference_takes_the_row_and_leaves_the_file_to_the_sweep(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    catalog.put(HASH, 3)
    catalog.upload_complete(id, "aa/bb", storage="default")
    assert catalog.remove(id) == (False, "aa/bb")
    assert counts() == {HASH: 1}
    assert not PendingFile.objects.exists()
    assert catalog.remove(id) == (True, "aa/bb")
    assert counts() == {}
    file = PendingFile.objects.get()
    assert (file.path, file.storage, file.discard, file.length) == ("aa/bb", "default", True, 3)


def test_removing_a_resource_without_a_file_leaves_no_pending_file(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    assert catalog.remove(id) == (True, "")
    assert not PendingFile.objects.exists()


def test_references_taken_and_given_back_at_once_are_all_counted(catalog: ResourceCatalog) -> None:
    id, _ = catalog.put(HASH, 3)
    results(*(partial(catalog.put, HASH, 3) for _ in range(8)))
    assert counts() == {HASH: 9}
    results(*(partial(catalog.remove, id) for _ in range(8)))
    assert counts() == {HASH: 1}
    done = outcomes(*(partial(catalog.remove, id) for _ in range(3)))
    assert done.count((True, "")) == 1
    assert sum(isinstance(error, ResourceNotFound) for error in done) == 2
    assert counts() == {}


def test_referring_to_an_unknown_content_without_a_file_leaves_nothing(catalog: ResourceCatalog) -> None:
    with pytest.raises(ResourceNotFound):
        catalog.refer(BUCKET, "a", Content(HASH, 3))
    assert counts() == {}
    assert not ManagedResource.objects.exists()
    assert not Bucket.objects.exists()


def test_referring_with_a_swept_file_leaves_nothing(catalog: ResourceCatalog) -> None:
    with pytest.raises(LeaseLost):
        catalog.refer(BUCKET, "a", Content(HASH, 3), file=StoredFile("blobstore", "never/announced"))
    assert counts() == {}
    assert not ManagedResource.objects.exists()


def test_referring_with_another_length_leaves_the_old_reference(catalog: ResourceCatalog) -> None:
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1"))
    catalog.refer(BUCKET, "b", Content(OTHER_HASH, 3), file=arriving("2"))
    with pytest.raises(LengthMismatch):
        catalog.refer(BUCKET, "b", Content(HASH, 4), file=arriving("3"))
    assert counts() == {HASH: 1, OTHER_HASH: 1}
    assert ManagedResource.objects.get(path="b").resource.sha384 == OTHER_HASH
    assert list(PendingFile.objects.values_list("path", "discard")) == [("3", False)]


def test_a_second_file_of_known_content_is_surplus(catalog: ResourceCatalog) -> None:
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1"))
    change = catalog.refer(BUCKET, "b", Content(HASH, 3), file=arriving("2"))
    assert change.discarded == [StoredFile("blobstore", "2")]
    assert counts() == {HASH: 2}
    assert Resource.objects.get().path == "1"
    assert list(PendingFile.objects.values_list("path", "discard")) == [("2", True)]


def test_a_file_takes_the_place_of_one_marked_damaged(catalog: ResourceCatalog) -> None:
    resource = catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1")).managed.resource
    assert catalog.mark_damaged(resource)
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("2"))
    healed = Resource.objects.get()
    assert (healed.path, healed.damaged_at, healed.reference_count) == ("2", None, 1)
    assert list(PendingFile.objects.values_list("path", "discard")) == [("1", True)]


def test_damaged_content_is_not_referred_to_without_new_bytes(catalog: ResourceCatalog) -> None:
    resource = catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1")).managed.resource
    catalog.mark_damaged(resource)
    with pytest.raises(ResourceNotFound, match="damaged; put them again"):
        catalog.refer(BUCKET, "b", Content(HASH, 3))
    assert counts() == {HASH: 1}


def test_damage_seen_in_old_bytes_is_not_held_against_new_ones(catalog: ResourceCatalog) -> None:
    seen = catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1")).managed.resource
    catalog.mark_damaged(seen)
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("2"))
    assert not catalog.mark_damaged(seen)
    assert Resource.objects.get().is_sound


def test_a_bucket_is_made_for_its_first_object_or_refused(catalog: ResourceCatalog) -> None:
    with pytest.raises(BucketNotFound):
        catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1"), create_bucket=False)
    assert counts() == {}
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=StoredFile("blobstore", "1"))
    assert Bucket.objects.get().pk == BUCKET.bucket_id
    assert Bucket.objects.get().name == "bucket"


def test_releasing_what_is_not_there_changes_nothing(catalog: ResourceCatalog) -> None:
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1"))
    for namespace, path in [(BUCKET, "b"), (Namespace("bucket", "user"), "a"), (Namespace(), "a")]:
        with pytest.raises(ResourceNotFound):
            catalog.release(namespace, path)
    assert counts() == {HASH: 1}


def test_a_reference_and_its_count_are_changed_together_or_not_at_all(catalog: ResourceCatalog) -> None:
    catalog.refer(BUCKET, "a", Content(HASH, 3), file=arriving("1"))
    with transaction.atomic(catalog.using):
        catalog.release(BUCKET, "a")
        assert counts() == {}
        transaction.set_rollback(True, catalog.using)
    assert counts() == {HASH: 1}
    assert ManagedResource.objects.count() == 1
    assert not PendingFile.objects.exists()


@pytest.fixture
def broken_inserts(database: str) -> Iterator[None]:
    """While it lasts, the database refuses new objects: the last statement of a put, after all counts."""
    create, drop = {
        "sqlite": (
            "CREATE TRIGGER broken BEFORE INSERT ON django_blobstore_managedresource"
            " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
            ["DROP TRIGGER broken"],
        ),
        "postgresql": (
            "CREATE FUNCTION broken() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$"
            " LANGUAGE plpgsql; CREATE TRIGGER broken BEFORE INSERT ON django_blobstore_managedresource"
            " FOR EACH ROW EXECUTE FUNCTION broken()",
            ["DROP TRIGGER broken ON django_blobstore_managedresource", "DROP FUNCTION broken"],
        ),
    }[connections[database].vendor]
    with _executed(database, create, drop):
        yield


@contextmanager
def _executed(database: str, create: str, drop: list[str]) -> Iterator[None]:
    with connections[database].cursor() as cursor:
        cursor.execute(create)
    try:
        yield
    finally:
        with connections[database].cursor() as cursor:
            for statement in drop:
                cursor.execute(statement)


def test_a_refusal_in_the_last_statement_undoes_every_count(
    database: str, stored: Stored, request: pytest.FixtureRequest
) -> None:
    store = ManagedStorage()
    store.put(BUCKET, "there", b"one")
    request.getfixturevalue("broken_inserts")
    for content in (b"one", b"two"):
        with pytest.raises(Exception, match="the disk is full"):
            store.put(BUCKET, "new", content)
    assert counts() == {HASH: 1}
    assert_sound(stored)
    assert not PendingFile.objects.exists()


def conflict(database: str) -> Exception:
    """Return the error that the database itself gives for a transaction that was in the way of another."""
    with pytest.raises(IntegrityError) as raised:
        Bucket.objects.bulk_create([Bucket(uuid=BUCKET.bucket_id), Bucket(uuid=BUCKET.bucket_id)])
    return raised.value


def test_a_transaction_in_the_way_of_others_is_tried_again(database: str, catalog: ResourceCatalog) -> None:
    tried: list[int] = []

    def work() -> str:
        tried.append(len(tried))
        Bucket.objects.create(name=f"try {len(tried)}")
        if len(tried) < ATTEMPTS:
            raise conflict(database)
        return "done"

    assert catalog.transact(work) == "done"
    assert len(tried) == ATTEMPTS
    assert [bucket.name for bucket in Bucket.objects.all()] == [f"try {ATTEMPTS}"]


def test_a_transaction_that_never_goes_through_is_given_up(database: str, catalog: ResourceCatalog) -> None:
    def work() -> None:
        Bucket.objects.create(name="mine")
        raise conflict(database)

    with pytest.raises(CatalogBusy) as busy:
        catalog.transact(work)
    assert busy.value.attempts == ATTEMPTS
    assert not Bucket.objects.exists()


def test_errors_that_another_try_cannot_mend_are_raised_at_once(database: str, catalog: ResourceCatalog) -> None:
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        Resource.objects.create(sha384=HASH, length=3, reference_count=0)

    with pytest.raises(IntegrityError, match="blobstore_resource_is_referenced"):
        catalog.transact(work)
    assert len(tried) == 1


def test_inside_the_callers_transaction_nothing_is_tried_again(database: str, catalog: ResourceCatalog) -> None:
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        raise conflict(database)

    with pytest.raises(IntegrityError), transaction.atomic(catalog.using):
        catalog.transact(work)
    assert len(tried) == 1


def swap(store: ManagedStorage, paths: list[str], contents: list[bytes], seed: int) -> None:
    """Give each path another of the contents, in an order of its own, again and again."""
    order = random.Random(seed)
    for _ in range(15):
        for path in order.sample(paths, len(paths)):
            store.put(BUCKET, path, order.choice(contents))


@pytest.mark.parametrize("storage_kind", ["files"])
def test_contents_swapped_between_paths_in_all_directions_never_lock_each_other_out(
    database: str, stored: Stored
) -> None:
    store = ManagedStorage()
    paths, contents = ["a", "b", "c"], [content_of(10, n) for n in range(3)]
    for path, content in zip(paths, contents, strict=True):
        store.put(BUCKET, path, content)
    results(*(partial(swap, store, paths, contents, seed) for seed in range(6)))
    assert sum(counts().values()) == len(paths)
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_remove_finds_an_object_that_is_overwritten_all_the_time(database: str, stored: Stored) -> None:
    """A row that changes while one waits for its lock is still there: only the remove may end it."""
    store = ManagedStorage()
    for n in range(10):
        store.put(BUCKET, "a", b"first")
        overwrites = [partial(store.put, BUCKET, "a", content_of(10, 10 * n + m)) for m in range(3)]
        results(*overwrites, partial(store.remove, BUCKET, "a"))
    assert_settled(stored)


BEGIN = ["BEGIN", "SELECT managedresource"]
COMMIT = ["UPDATE usage", "INSERT managedresource", "COMMIT"]
COMMIT_CHANGE = ["UPDATE usage", "UPDATE managedresource", "COMMIT"]
FREE_OLD = ["DELETE resource", "INSERT pendingfile"]


@pytest.mark.parametrize("storage_kind", ["memory"])
def test_the_statements_of_each_operation_are_these_and_no_more(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    get, put, remove = (partial(verb, BUCKET, "a") for verb in (store.get, store.put, store.remove))
    first_in_bucket = ["UPDATE usage", "INSERT bucket", "INSERT usage", *COMMIT]

    announced = ["SELECT resource", "INSERT pendingfile", *BEGIN]
    adopted = ["INSERT resource", "DELETE pendingfile"]
    assert issued(database, put, b"new") == [*announced, *adopted, *first_in_bucket]
    assert issued(database, store.put, BUCKET, "other", b"other") == [*announced, *adopted, *COMMIT]
    assert issued(database, store.put, BUCKET, "b", b"new") == ["SELECT resource", *BEGIN, "INSERT resource", *COMMIT]
    assert issued(database, lambda: get().read()) == ["SELECT managedresource"]

    unchanged = ["SELECT resource", "SELECT resource", "UPDATE managedresource", "COMMIT"]
    assert issued(database, put, b"new") == ["SELECT resource", *BEGIN, *unchanged]
    count_down = ["SELECT resource", "DELETE resource", "UPDATE resource"]
    assert issued(database, put, b"newer") == [*announced, *count_down, *adopted, *COMMIT_CHANGE]
    back = ["SELECT resource", "INSERT resource", *FREE_OLD]
    assert issued(database, put, b"new") == ["SELECT resource", *BEGIN, *back, *COMMIT_CHANGE]

    shared = ["BEGIN", "DELETE managedresource", "DELETE resource", "UPDATE resource", "UPDATE usage", "COMMIT"]
    assert issued(database, remove) == shared
    last = ["BEGIN", "DELETE managedresource", *FREE_OLD, "UPDATE usage", "COMMIT"]
    assert issued(database, store.remove, BUCKET, "b") == last


def issued(database: str, work: Callable[..., object], *arguments: object) -> list[str]:
    """Return the statements that `work` sends, each as its verb and table, such as "INSERT resource"."""
    with CaptureQueriesContext(connections[database]) as captured:
        work(*arguments)
    return [_verb(query["sql"]) for query in captured.captured_queries]


def _verb(sql: str) -> str:
    table = re.search(r"django_blobstore_(\w+)", sql)
    return f"{sql.split()[0]} {table[1]}" if table else sql.split()[0]


def test_times_just_past_count_as_past_on_every_database(database: str) -> None:
    """SQLite compares times as text, in milliseconds; a file given up is due in the same one."""
    PendingFile.objects.create(path="a", storage="blobstore", lease_until=Now())
    for _ in range(30):
        PendingFile.objects.update(discard=False, due_at=None, lease_until=Now())
        PendingFile.objects.all().give_up()
        assert PendingFile.objects.due().exists()


class ReadsFromAReplica(OneDatabase):
    """Reads go to a database that this test has no access to: each one of them is an error."""

    def db_for_read(self, model: type[Model], **hints: object) -> str:
        return next(alias for alias in connections if alias != self.alias)


def test_what_a_transaction_decides_on_is_never_read_from_a_replica(catalog: ResourceCatalog, settings) -> None:
    files = [arriving("1"), arriving("2")]
    settings.DATABASE_ROUTERS = [ReadsFromAReplica()]
    with pytest.raises(DatabaseOperationForbidden):
        Resource.objects.first()
    resource = catalog.refer(BUCKET, "a", Content(HASH, 3), file=files[0]).managed.resource
    catalog.refer(BUCKET, "a", Content(OTHER_HASH, 3), file=files[1])
    catalog.refer(BUCKET, "a", Content(OTHER_HASH, 3), create_bucket=False)
    catalog.release(BUCKET, "a")
    assert not catalog.mark_damaged(resource)
    id, _ = catalog.put(HASH, 3)
    catalog.upload_complete(id, "3")
    assert catalog.remove(id) == (True, "3")
    settings.DATABASE_ROUTERS = ["tests.routers.OneDatabase"]
    assert set(PendingFile.objects.values_list("path", "discard")) == {("1", True), ("2", True), ("3", True)}
