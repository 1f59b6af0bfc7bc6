"""Objects in their namespaces: what can be put, read, copied, proven and removed, and who sees it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.files.storage import InMemoryStorage
from django.db import transaction
from django.db.models import F
from pymongo import MongoClient
from pytest_django import Settings

from django_blobstore import usage
from django_blobstore.errors import (
    BucketNotFound,
    ContentDamaged,
    InvalidNamespace,
    InvalidPath,
    RequestExpired,
    ResourceNotFound,
    UploadPending,
)
from django_blobstore.managed import BlobFile, ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest, Resource
from django_blobstore.proof import answer
from django_blobstore.upkeep import Kind, audit, sweep
from tests import damage
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored, StoredInFiles
from tests.streams import MIB, content_of, sha384

BUCKET, OTHER = Namespace("bucket"), Namespace("other")
NAMESPACES = [
    Namespace(),
    Namespace(user="7"),
    Namespace(user="8"),
    Namespace("bucket"),
    Namespace("bucket", "7"),
    Namespace(str(UUID(int=5))),
]
LARGE = content_of(MIB + 1)


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


def paths() -> set[str]:
    return set(ManagedResource.objects.values_list("path", flat=True))


def prove(store: ManagedStorage, namespace: Namespace, path: str, content: bytes) -> ManagedResource:
    asked = store.put_request(namespace, path, sha384(content))
    return store.proof_of_access_response(answer(content, asked, sha384(content)))


def test_each_namespace_has_an_object_of_its_own_at_one_path(store: ManagedStorage, stored: Stored) -> None:
    for n, namespace in enumerate(NAMESPACES):
        assert store.put(namespace, "a", f"content {n}".encode()).namespace.bucket_id == namespace.bucket_id
    for n, namespace in enumerate(NAMESPACES):
        assert store.get(namespace, "a").read() == f"content {n}".encode()
    store.remove(NAMESPACES[0], "a")
    with pytest.raises(ResourceNotFound):
        store.get(NAMESPACES[0], "a")
    assert ManagedResource.objects.count() == len(NAMESPACES) - 1
    assert_settled(stored)


def test_a_proof_stands_in_for_an_upload_in_each_namespace(store: ManagedStorage, stored: Stored) -> None:
    store.put(OTHER, "source", LARGE)
    before = stored.names()
    for namespace in NAMESPACES:
        managed = prove(store, namespace, "proven", LARGE)
        assert (managed.namespace.bucket_id, managed.user) == (namespace.bucket_id, namespace.user)
        assert store.get(namespace, "proven").read() == LARGE
    assert stored.names() == before
    assert Resource.objects.get().reference_count == len(NAMESPACES) + 1
    assert_settled(stored)


def test_an_object_tells_its_length_hash_and_attributes(store: ManagedStorage) -> None:
    store.put(BUCKET, "a", b"content", content_type="text/plain", metadata={"colour": "red"})
    managed = store.stat(BUCKET, "a")
    assert (managed.resource.length, managed.resource.sha384) == (7, sha384(b"content"))
    assert (managed.content_type, managed.metadata) == ("text/plain", {"colour": "red"})
    with store.get(BUCKET, "a") as file:
        assert isinstance(file, BlobFile)
        assert (file.size, file.sha384, file.content_type) == (7, sha384(b"content"), "text/plain")
        assert file.seek(3) == 3
        assert file.read(2) == b"te"


def test_a_put_tells_whether_the_path_is_new(store: ManagedStorage) -> None:
    assert store.put(BUCKET, "a", b"1").was_created
    before = store.stat(BUCKET, "a")
    after = store.put(BUCKET, "a", b"2")
    assert not after.was_created
    assert (after.pk, after.created_at) == (before.pk, before.created_at)
    assert after.modified_at > before.modified_at


def test_putting_the_same_content_again_counts_once(store: ManagedStorage, stored: Stored) -> None:
    for content in (b"small", LARGE, b"small", b"small"):
        store.put(BUCKET, "a", content)
        store.put(BUCKET, "a", content)
        assert Resource.objects.get().reference_count == 1
    assert_settled(stored)


def test_one_leading_slash_is_ignored(store: ManagedStorage) -> None:
    store.put(BUCKET, "/a/b", b"1")
    assert store.get(BUCKET, "a/b").read() == b"1"
    store.remove(BUCKET, "/a/b")
    assert paths() == set()


BAD_PATHS = [
    "",
    "/",
    "//a",
    "..",
    "../b",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\ufffdb",
    "\ud800",
    "é" * 513,
]


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_bad_path_is_refused_everywhere_and_leaves_nothing(store: ManagedStorage, stored: Stored) -> None:
    for path in BAD_PATHS:
        for work in (
            partial(store.put, BUCKET, path, b"1"),
            partial(store.get, BUCKET, path),
            partial(store.stat, BUCKET, path),
            partial(store.remove, BUCKET, path),
            partial(store.put_request, BUCKET, path, sha384(b"1")),
        ):
            with pytest.raises(InvalidPath):
                work()
    assert_empty(stored)
    assert not PutRequest.objects.exists()
    assert not Bucket.objects.exists()


def test_paths_are_bytes_to_the_store(store: ManagedStorage, stored: Stored) -> None:
    odd = ["é" * 512, "a b", "%2e%2e", "a\\..\\b", "...", " ", "é", "e\u0301", "A", "a", "😀", "a'; DROP TABLE x; --"]
    for n, path in enumerate(odd):
        store.put(BUCKET, path, str(n).encode())
    assert [store.get(BUCKET, path).read() for path in odd] == [str(n).encode() for n in range(len(odd))]
    assert paths() == set(odd)
    assert_settled(stored)


def test_the_global_namespace_is_no_bucket(store: ManagedStorage) -> None:
    for work in (
        partial(store.put_for_bucket, "", "a", b"1"),
        partial(store.get_for_bucket, "", "a"),
        partial(store.remove_for_bucket, "", "a"),
        partial(store.put_for_bucket_request, "", "a", sha384(b"1")),
    ):
        with pytest.raises(InvalidNamespace):
            work()
    assert paths() == set()


def test_a_bucket_is_created_by_its_first_object_unless_it_must_exist(store: ManagedStorage, stored: Stored) -> None:
    bucket = Namespace(uuid4())
    with pytest.raises(BucketNotFound):
        store.put(bucket, "a", b"1", create_bucket=False)
    with pytest.raises(BucketNotFound):
        store.put(bucket, "a", LARGE, create_bucket=False)
    assert_empty(stored)
    store.put(bucket, "a", b"1")
    store.put(bucket, "b", b"1", create_bucket=False)
    assert Bucket.objects.get().pk == bucket.bucket_id


def test_removing_the_last_reference_frees_the_bytes_and_no_earlier_one(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    store.put(BUCKET, "a", b"1")
    store.put(OTHER, "a", b"1")
    store.remove(BUCKET, "a")
    assert store.get(OTHER, "a").read() == b"1"
    store.remove(OTHER, "a")
    assert_empty(stored)


class RemovesAfter(ManagedStorage):
    """Has something happen once before an object is removed, after it was looked up."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.actions = [action]

    def remove(self, *args: Any, **options: Any) -> None:
        while self.actions:
            self.actions.pop()()
        super().remove(*args, **options)


def test_removing_many_removes_no_other_object_that_came_to_the_path_of_one(
    store: ManagedStorage, stored: Stored
) -> None:
    store.put(BUCKET, "a", b"old")

    def take_the_path() -> None:
        store.move(store.stat(BUCKET, "a"), BUCKET, "moved")
        store.put(BUCKET, "a", b"new")

    chosen = ManagedResource.objects.filter(pk=store.stat(BUCKET, "a").pk)
    assert RemovesAfter(take_the_path).remove_all(chosen) == 1
    assert store.get(BUCKET, "a").read() == b"new"
    assert paths() == {"a"}
    assert_settled(stored)


def test_removing_many_leaves_one_that_was_replaced_and_is_not_meant_any_more(
    store: ManagedStorage, stored: Stored
) -> None:
    store.put(BUCKET, "a", b"old")
    empty_soon = ManagedResource.objects.filter(resource__length=3)
    assert RemovesAfter(lambda: store.put(BUCKET, "a", b"much newer")).remove_all(empty_soon) == 0
    assert store.get(BUCKET, "a").read() == b"much newer"
    assert_sound(stored)


def test_an_object_whose_content_is_gone_can_be_removed_and_replaced(store: ManagedStorage, stored: Stored) -> None:
    for path in ("a", "b"):
        store.put(BUCKET, path, path.encode())
        damage.delete_resource(ManagedResource.objects.get(path=path).resource)
    assert store.remove_all(ManagedResource.objects.filter(path="a")) == 1
    store.put(BUCKET, "b", b"new")
    assert store.get(BUCKET, "b").read() == b"new"
    assert paths() == {"b"}
    assert audit().findings.count(Kind.OBJECT_WITHOUT_CONTENT, Kind.TOTALS_WRONG, Kind.COUNT_TOO_LOW) == 0


def test_overwriting_frees_the_old_bytes(store: ManagedStorage, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    store.put(BUCKET, "a", b"old")
    [old] = stored.names()
    store.put(BUCKET, "a", b"new")
    assert len(stored.names()) == 1
    assert old not in stored.names()
    assert not PendingFile.objects.exists()


def test_within_the_grace_old_bytes_stay_and_a_reader_of_them_finishes(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 300}
    old, new = content_of(3 * MIB, 1), content_of(3 * MIB, 2)
    store.put(BUCKET, "a", old)
    with store.get(BUCKET, "a") as reader:
        begun = reader.read(100)
        store.put(BUCKET, "a", new)
        assert sweep().deleted_files == 0
        assert begun + reader.read() == old
    assert len(stored.names()) == 2
    assert store.get(BUCKET, "a").read() == new
    PendingFile.objects.update(due_at=F("created_at"))
    assert sweep().deleted_files == 1
    assert len(stored.names()) == 1


def test_a_remove_inside_an_atomic_block_happens_with_the_block(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    store.put(BUCKET, "a", b"1")
    with transaction.atomic(store.catalog.using):
        store.remove(BUCKET, "a")
        assert len(stored.names()) == 1
        transaction.set_rollback(True, store.catalog.using)
    assert store.get(BUCKET, "a").read() == b"1"
    assert_sound(stored)
    assert not PendingFile.objects.exists()

    with transaction.atomic(store.catalog.using):
        store.remove(BUCKET, "a")
        assert len(stored.names()) == 1
    assert_empty(stored)


@pytest.mark.parametrize("storage_kind", ["files"])
@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_directory_that_is_not_mounted_damages_nothing(
    store: ManagedStorage, stored: StoredInFiles, content: bytes
) -> None:
    store.put(BUCKET, "a", content)
    elsewhere = stored.directory.rename(stored.directory.with_name("elsewhere"))
    with pytest.raises(ConnectionError, match="mount or restore it"):
        store.get(BUCKET, "a")
    with pytest.raises(ConnectionError, match="mount or restore it"):
        prove(store, BUCKET, "b", content)
    elsewhere.rename(stored.directory)
    assert not Resource.objects.damaged().exists()
    assert paths() == {"a"}
    assert store.get(BUCKET, "a").read() == content
    PutRequest.objects.all().delete()
    assert_settled(stored)


def test_what_is_not_there_is_not_found_and_not_pending(store: ManagedStorage, stored: Stored) -> None:
    for work in (store.get, store.stat, store.remove):
        with pytest.raises(ResourceNotFound):
            work(BUCKET, "a")
    with pytest.raises(ResourceNotFound):
        store.put_request(BUCKET, "a", sha384(b"1"))
    assert_empty(stored)


def test_a_reference_taken_by_hand_is_pending_until_its_upload_is_complete(
    store: ManagedStorage, stored: Stored
) -> None:
    id, _ = store.catalog.put(sha384(b"1"), 1)
    ManagedResource.objects.create(path="a", resource_id=id)
    with pytest.raises(UploadPending):
        store.get(Namespace(), "a")
    with pytest.raises(UploadPending):
        store.put_request(Namespace(), "b", sha384(b"1"))
    store.resource_storage.put("by/hand", b"1")
    store.catalog.upload_complete(id, "by/hand")
    assert store.get(Namespace(), "a").read() == b"1"
    store.catalog.transact(partial(usage.correct, store.catalog.using, Namespace()))
    assert_settled(stored)


def test_a_copy_is_another_reference_to_the_same_bytes(store: ManagedStorage, stored: Stored) -> None:
    source = store.put(BUCKET, "a", LARGE, content_type="image/png", metadata={"colour": "red"})
    before = stored.names()
    copy = store.copy(source, Namespace(user="7"), "b")
    assert (copy.content_type, copy.metadata, copy.resource_id) == ("image/png", {"colour": "red"}, source.resource_id)
    assert stored.names() == before
    store.remove(BUCKET, "a")
    assert store.get(Namespace(user="7"), "b").read() == LARGE
    assert Resource.objects.get().reference_count == 1
    assert_settled(stored)


def test_a_copy_inside_an_atomic_block_refuses_and_names_the_way_out(store: ManagedStorage, stored: Stored) -> None:
    source = store.put(BUCKET, "a", b"content")
    with transaction.atomic(store.catalog.using), pytest.raises(RuntimeError, match=r"atomic .*on_commit"):
        store.copy(source, BUCKET, "b")
    assert Resource.objects.get().reference_count == 1
    with transaction.atomic(store.catalog.using):
        transaction.on_commit(lambda: store.copy(source, BUCKET, "b"), using=store.catalog.using)
    assert store.get(BUCKET, "b").read() == b"content"
    assert_sound(stored)


def test_a_copy_onto_itself_changes_nothing(store: ManagedStorage, stored: Stored) -> None:
    source = store.put(BUCKET, "a", b"1")
    store.copy(source, BUCKET, "a")
    assert Resource.objects.get().reference_count == 1
    assert_settled(stored)


def test_a_copy_of_what_is_gone_is_not_found_and_leaves_nothing(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    source = store.put(BUCKET, "a", b"1")
    store.remove(BUCKET, "a")
    with pytest.raises(ResourceNotFound):
        store.copy(source, BUCKET, "b")
    assert_empty(stored)


def by_user(namespace: Namespace) -> str:
    """A rule of DEDUP_SCOPE, as a project writes one."""
    return f"mine:{namespace.user}"


@pytest.mark.parametrize(
    ("rule", "shared"),
    [
        ("global", [{0, 1, 2, 3, 4, 5}]),
        ("bucket", [{0}, {1}, {2}, {3, 4}, {5}]),
        ("owner", [{0}, {1}, {2}, {3, 4}, {5}]),
        (f"{__name__}.by_user", [{0, 3, 5}, {1, 4}, {2}]),
    ],
)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_content_is_shared_within_its_scope_only(
    store: ManagedStorage, stored: Stored, settings: Settings, rule: str, shared: list[set[int]]
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": rule}
    resources: dict[int, set[int]] = {}
    for n, namespace in enumerate(NAMESPACES):
        resources.setdefault(store.put(namespace, "a", b"same").resource_id, set()).add(n)
    assert sorted(resources.values(), key=min) == shared
    assert len(stored.names()) == len(shared)
    assert_settled(stored)


def test_the_buckets_of_one_owner_share_content_and_its_own_namespace_too(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": "owner"}
    one, two = (get_user_model().objects.create(username=name) for name in ("one", "two"))
    buckets = [Bucket.objects.create(owner=owner) for owner in (one, one, two)]
    places = [Namespace(bucket.pk) for bucket in buckets] + [Namespace(user=str(one.pk))]
    first, second, foreign, own = (store.put(place, "a", LARGE).resource_id for place in places)
    assert first == second == own != foreign
    with pytest.raises(ResourceNotFound):
        store.put_request(Namespace(uuid4()), "a", sha384(LARGE))
    assert_settled(stored)


def test_a_copy_into_another_scope_has_bytes_of_its_own(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": "bucket"}
    source = store.put(BUCKET, "a", LARGE, metadata={"colour": "red"})
    copy = store.copy(source, OTHER, "a")
    assert copy.metadata == {"colour": "red"}
    assert copy.resource.path != source.resource.path
    assert store.get(OTHER, "a").read() == LARGE
    assert len(stored.names()) == 2
    assert_settled(stored)


def lose_the_file(stored: Stored, path: str) -> None:
    stored.storage.delete(path)


def flip_a_byte(stored: Stored, path: str) -> None:
    content = bytearray(stored.storage.open(path).read())
    content[len(content) // 2] ^= 1
    replace(stored, path, bytes(content))


def cut_the_end(stored: Stored, path: str) -> None:
    replace(stored, path, stored.storage.open(path).read()[:-1])


def replace(stored: Stored, path: str, content: bytes) -> None:
    stored.storage.delete(path)
    with stored.storage.open(path, "wb") as file:
        file.write(content)


def lose_a_chunk(stored: Stored, path: str) -> None:
    if stored.kind != "gridfs":
        pytest.skip("Only GridFS has chunks.")
    with MongoClient(stored.uri) as client:
        assert client[stored.database]["blobs.chunks"].delete_one({"n": 2}).deleted_count


@pytest.mark.parametrize("damage", [lose_the_file, flip_a_byte, cut_the_end, lose_a_chunk])
def test_damage_is_reported_marked_and_healed_by_the_next_put(
    store: ManagedStorage, stored: Stored, damage: Callable[[Stored, str], None]
) -> None:
    resource = store.put(BUCKET, "a", LARGE).resource
    damage(stored, resource.path)
    with pytest.raises(ContentDamaged) as damaged:
        store.get(BUCKET, "a").read()
    assert damaged.value.sha384 == sha384(LARGE)
    assert not Resource.objects.get().is_sound
    with pytest.raises(ResourceNotFound):
        store.put_request(BUCKET, "b", sha384(LARGE))
    store.put(OTHER, "b", LARGE)
    assert store.get(BUCKET, "a").read() == LARGE
    assert Resource.objects.get().is_sound
    assert_settled(stored)
    assert stored.names() == {Resource.objects.get().path}


def test_an_object_replaced_and_swept_since_it_was_looked_up_is_read_anew(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    known = store.put(BUCKET, "a", b"old")
    store.put(BUCKET, "a", b"new")
    assert store.open(known).read() == b"new"
    store.remove(BUCKET, "a")
    with pytest.raises(ResourceNotFound):
        store.open(known).read()
    assert not Resource.objects.exists()


def test_an_object_outlives_a_change_of_the_storage_for_new_ones(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    store.put(BUCKET, "old", b"old")
    settings.STORAGES = {**settings.STORAGES, "next": {"BACKEND": f"{__name__}.NextStorage"}}
    settings.BLOBSTORE = {"STORAGE": "next", "DELETION_GRACE": 0}
    after = ManagedStorage()
    after.put(BUCKET, "new", b"new")
    after.put(BUCKET, "copy", b"old")
    assert [after.get(BUCKET, path).read() for path in ("old", "new", "copy")] == [b"old", b"new", b"old"]
    assert len(stored.names()) == 1
    for path in ("old", "new", "copy"):
        after.remove(BUCKET, path)
    assert_empty(stored)


class NextStorage(InMemoryStorage):
    """A storage that a project moves to."""


@pytest.mark.parametrize("storage_kind", ["files"])
def test_bytes_that_cannot_be_deleted_are_kept_in_mind(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    path = store.put(BUCKET, "a", b"1").resource.path
    file = stored.directory / path
    file.unlink()
    file.mkdir()
    (file / "in the way").touch()
    store.remove(BUCKET, "a")
    assert PendingFile.objects.get().path == path
    assert sweep().failed_files == 1
    assert PendingFile.objects.get().path == path
    shutil.rmtree(file)
    assert_settled(stored)


def test_an_answer_counts_once_even_if_the_object_is_removed_between(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", LARGE)
    asked = store.put_request(BUCKET, "b", sha384(LARGE))
    proof = answer(LARGE, asked, sha384(LARGE))
    store.proof_of_access_response(proof)
    store.remove(BUCKET, "b")
    with pytest.raises(RequestExpired):
        store.proof_of_access_response(proof)
    assert paths() == {"a"}
    assert_settled(stored)


def too_long(namespace: Namespace) -> str:
    return "x" * 201


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_scope_that_no_column_holds_is_refused_before_anything_is_read(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": f"{__name__}.too_long"}
    stream = io.BytesIO(b"content")
    with pytest.raises(InvalidNamespace):
        store.put(BUCKET, "a", stream)
    assert stream.tell() == 0
    assert_empty(stored)


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_user_of_the_longest_name_shares_content_with_itself(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": "owner"}
    here = Namespace(user="u" * 150)
    for path in ("a", "b"):
        store.put(here, path, b"content")
    assert Resource.objects.get().reference_count == 2
