"""What the seed's interface did, verb by verb, from the imports that are promised and nothing else of the package."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from django.core.files import File
from pytest_django import Settings

from django_blobstore.catalog import ResourceCatalog
from django_blobstore.errors import (
    AlreadyUploaded,
    HashMismatch,
    LengthMismatch,
    RequestExpired,
    ResourceDeleted,
    ResourceNotFound,
    ResponseMismatch,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.proof import PutResponse, RequestResponse, answer
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.storages import GridFSStorage
from django_blobstore.upkeep import audit, scrub, sweep
from tests.invariants import assert_settled
from tests.servers import deployment
from tests.settings import DEPLOYMENT_VARIABLE
from tests.stored import Stored
from tests.streams import MIB, Stream, sha384
from tests.together import in_background

BUCKET = uuid4()
CONTENT = b"The quick brown fox jumps over the lazy dog"
HASH = sha384(CONTENT)
SECONDS = 240


@pytest.fixture
def catalog(database: str) -> ResourceCatalog:
    return ResourceCatalog()


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


class TestResourceStorage:
    """Bytes under a storage path."""

    def test_put_stores_a_stream_and_returns_its_checksum(self, stored: Stored) -> None:
        assert ResourceStorage().put("some/path", io.BytesIO(CONTENT), len(CONTENT)) == HASH
        assert stored.names() == {"some/path"}

    def test_put_reads_to_the_end_without_a_length(self, stored: Stored) -> None:
        assert ResourceStorage().put("path", Stream(CONTENT, at_most=7)) == HASH

    def test_put_of_fewer_bytes_than_announced_stores_nothing(self, stored: Stored) -> None:
        with pytest.raises(LengthMismatch):
            ResourceStorage().put("path", io.BytesIO(CONTENT), len(CONTENT) + 1)
        assert stored.names() == set()

    def test_get_returns_a_readable_seekable_file(self, stored: Stored) -> None:
        ResourceStorage().put("path", CONTENT)
        with ResourceStorage("blobstore").get("path") as file:
            assert file.read() == CONTENT
            file.seek(4)
            assert file.read(5) == b"quick"

    def test_get_of_nothing_is_an_error(self, stored: Stored) -> None:
        with pytest.raises(FileNotFoundError):
            ResourceStorage().get("path").read()

    def test_remove_deletes_the_bytes(self, stored: Stored) -> None:
        ResourceStorage().put("path", CONTENT)
        ResourceStorage().remove("path")
        assert stored.names() == set()


def test_gridfs_namespaces_keep_sets_of_data_apart(mongo_uri: str) -> None:
    database = f"test_{uuid4().hex}"
    one, two = (GridFSStorage(uri=mongo_uri, database=database, namespace=name) for name in ("one", "two"))
    one.save("path", File(io.BytesIO(CONTENT)))
    assert one.exists("path")
    assert not two.exists("path")
    one.delete("path")


class TestResourceCatalog:
    """Which contents there are, and how many refer to each."""

    def test_put_creates_with_one_reference_and_an_empty_path(self, catalog: ResourceCatalog) -> None:
        id, path = catalog.put(HASH, 43)
        assert path == ""
        assert catalog.remove(id) == (True, "")

    def test_put_adds_a_reference_to_what_is_known(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        assert catalog.put(HASH, 43) == (id, "")
        assert catalog.remove(id) == (False, "")
        assert catalog.remove(id) == (True, "")

    def test_put_of_another_length_is_a_length_mismatch(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        with pytest.raises(LengthMismatch):
            catalog.put(HASH, 44)
        assert catalog.remove(id) == (True, "")

    def test_get_returns_the_resource_with_hash_path_and_length(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        catalog.upload_complete(id, "path")
        resource = catalog.get(id)
        assert (resource.sha384, resource.path, resource.length, resource.reference_count) == (HASH, "path", 43, 1)

    def test_get_and_find_say_that_an_upload_is_pending(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        for work in (partial(catalog.get, id), partial(catalog.find, HASH)):
            with pytest.raises(UploadPending):
                work()

    def test_get_and_find_of_nothing_are_not_found(self, catalog: ResourceCatalog) -> None:
        for work in (partial(catalog.get, 1), partial(catalog.find, HASH)):
            with pytest.raises(ResourceNotFound):
                work()

    def test_find_returns_the_id_of_a_hash(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        catalog.upload_complete(id, "path")
        assert catalog.find(HASH) == id

    def test_upload_complete_is_recorded_once(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        catalog.upload_complete(id, "first")
        with pytest.raises(AlreadyUploaded):
            catalog.upload_complete(id, "second")
        assert catalog.get(id).path == "first"

    def test_upload_complete_of_nothing_is_not_found(self, catalog: ResourceCatalog) -> None:
        with pytest.raises(ResourceNotFound):
            catalog.upload_complete(1, "path")

    def test_remove_returns_the_path_and_whether_it_was_the_last_reference(self, catalog: ResourceCatalog) -> None:
        id, _ = catalog.put(HASH, 43)
        catalog.upload_complete(id, "path")
        catalog.put(HASH, 43)
        assert catalog.remove(id) == (False, "path")
        assert catalog.remove(id) == (True, "path")
        with pytest.raises(ResourceNotFound):
            catalog.remove(id)


class TestManagedStorage:
    """Objects in a bucket."""

    def test_put_for_bucket_stores_and_get_for_bucket_reads(self, store: ManagedStorage, stored: Stored) -> None:
        managed = store.put_for_bucket(BUCKET, "/path/to/blob", io.BytesIO(CONTENT), len(CONTENT))
        assert (managed.bucket_id, managed.path, managed.resource.sha384) == (BUCKET, "path/to/blob", HASH)
        with store.get_for_bucket(str(BUCKET), "/path/to/blob") as file:
            assert (file.size, file.sha384, file.read()) == (43, HASH, CONTENT)
            file.seek(4)
            assert file.read(5) == b"quick"
            assert isinstance(file, File)
        assert_settled(stored)

    def test_put_for_bucket_reads_to_the_end_without_a_length(self, store: ManagedStorage) -> None:
        store.put_for_bucket(BUCKET, "path", Stream(CONTENT, at_most=7))
        assert store.get_for_bucket(BUCKET, "path").read() == CONTENT

    def test_put_for_bucket_and_check_hash_stores_what_has_the_hash(self, store: ManagedStorage) -> None:
        for check_hash in (HASH, HASH.upper(), ""):
            store.put_for_bucket_and_check_hash(BUCKET, "path", CONTENT, -1, check_hash)
            assert store.get_for_bucket(BUCKET, "path").sha384 == HASH

    def test_put_for_bucket_and_check_hash_of_another_hash_stores_nothing(
        self, store: ManagedStorage, stored: Stored
    ) -> None:
        with pytest.raises(HashMismatch):
            store.put_for_bucket_and_check_hash(BUCKET, "path", CONTENT, 43, sha384(b"other"))
        with pytest.raises(ResourceNotFound):
            store.get_for_bucket(BUCKET, "path")
        assert stored.names() == set()

    def test_put_for_bucket_replaces_what_was_there(self, store: ManagedStorage, stored: Stored) -> None:
        store.put_for_bucket(BUCKET, "path", b"old")
        store.put_for_bucket(BUCKET, "path", CONTENT)
        assert store.get_for_bucket(BUCKET, "path").read() == CONTENT
        assert_settled(stored)

    def test_equal_content_is_stored_once(self, store: ManagedStorage, stored: Stored) -> None:
        first = store.put_for_bucket(BUCKET, "path", CONTENT)
        assert store.put_for_bucket(uuid4(), "other/path", CONTENT).resource_id == first.resource_id
        assert stored.names() == {first.resource.path}
        assert_settled(stored)

    def test_get_for_bucket_of_nothing_is_not_found(self, store: ManagedStorage) -> None:
        store.put_for_bucket(BUCKET, "path", CONTENT)
        for bucket, path in [(BUCKET, "other"), (uuid4(), "path")]:
            with pytest.raises(ResourceNotFound):
                store.get_for_bucket(bucket, path)

    def test_get_for_bucket_says_that_a_path_is_valid_and_its_upload_pending(self, store: ManagedStorage) -> None:
        content = b"x" * (2 * MIB)
        arrived, go_on = Event(), Event()

        def wait() -> None:
            arrived.set()
            assert go_on.wait(SECONDS)

        upload = partial(store.put_for_bucket, BUCKET, "path", Stream(content, {MIB + 1: wait}))
        with in_background(upload):
            assert arrived.wait(SECONDS)
            try:
                with pytest.raises(UploadPending):
                    store.get_for_bucket(BUCKET, "path")
            finally:
                go_on.set()
        assert store.get_for_bucket(BUCKET, "path").read() == content

    def test_remove_for_bucket_removes_the_object_and_with_the_last_the_bytes(
        self, store: ManagedStorage, stored: Stored, settings: Settings
    ) -> None:
        settings.BLOBSTORE = {"DELETION_GRACE": 0}
        store.put_for_bucket(BUCKET, "one", CONTENT)
        store.put_for_bucket(BUCKET, "two", CONTENT)
        store.remove_for_bucket(BUCKET, "one")
        with pytest.raises(ResourceNotFound):
            store.get_for_bucket(BUCKET, "one")
        assert store.get_for_bucket(BUCKET, "two").read() == CONTENT
        store.remove_for_bucket(BUCKET, "two")
        assert stored.names() == set()

    def test_remove_for_bucket_of_nothing_is_not_found(self, store: ManagedStorage) -> None:
        with pytest.raises(ResourceNotFound):
            store.remove_for_bucket(BUCKET, "path")

    def test_the_general_verbs_do_the_same_in_any_namespace(self, store: ManagedStorage, stored: Stored) -> None:
        for namespace in (Namespace(), Namespace(user="7"), Namespace(bucket=str(BUCKET)), Namespace("named", "7")):
            store.put(namespace, "path", CONTENT)
            assert store.get(namespace, "path").read() == CONTENT
            asked = store.put_request(namespace, "proven", HASH)
            store.proof_of_access_response(answer(CONTENT, asked, HASH))
            assert store.get(namespace, "proven").read() == CONTENT
            store.remove(namespace, "path")
            store.remove(namespace, "proven")
        assert_settled(stored)
        assert stored.names() == set()


class TestProofOfAccess:
    """A reference for who holds the bytes, without an upload."""

    def test_the_right_answer_stores_the_reference(self, store: ManagedStorage, stored: Stored) -> None:
        first = store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        assert isinstance(asked, RequestResponse)
        assert 0 <= asked.range_start < asked.range_start + asked.range_length <= len(CONTENT)
        managed = store.proof_of_access_response(answer(io.BytesIO(CONTENT), asked, HASH))
        assert (managed.path, managed.resource_id) == ("proven", first.resource_id)
        assert store.get_for_bucket(BUCKET, "proven").read() == CONTENT
        assert stored.names() == {first.resource.path}
        assert_settled(stored)

    def test_a_request_for_what_is_not_stored_is_not_found(self, store: ManagedStorage) -> None:
        with pytest.raises(ResourceNotFound):
            store.put_for_bucket_request(BUCKET, "path", HASH)

    def test_a_request_for_what_is_arriving_says_that_it_is_pending(self, store: ManagedStorage) -> None:
        content = b"x" * (2 * MIB)
        pending: list[type[BaseException]] = []

        def ask() -> None:
            with pytest.raises(UploadPending) as raised:
                store.put_for_bucket_request(BUCKET, "proven", sha384(content))
            pending.append(raised.type)

        stream = Stream(content, {MIB + 1: ask})
        store.put_for_bucket_and_check_hash(BUCKET, "path", stream, -1, sha384(content))
        assert pending == [UploadPending]

    def test_the_wrong_answer_is_a_response_mismatch(self, store: ManagedStorage, stored: Stored) -> None:
        store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        with pytest.raises(ResponseMismatch):
            store.proof_of_access_response(PutResponse(asked.request_id, "0" * 96))
        assert_settled(stored)

    def test_an_answer_to_no_request_or_a_used_one_is_expired(self, store: ManagedStorage, stored: Stored) -> None:
        store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        right = answer(CONTENT, asked, HASH)
        store.proof_of_access_response(right)
        for response in (right, PutResponse("unknown", right.sha384)):
            with pytest.raises(RequestExpired):
                store.proof_of_access_response(response)
        assert_settled(stored)

    def test_an_answer_after_the_lifetime_is_expired(
        self, store: ManagedStorage, stored: Stored, settings: Settings
    ) -> None:
        settings.BLOBSTORE = {"PROOF_LIFETIME": 1e-6}
        store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        time.sleep(0.01)  # longer than the millisecond that is the least SQLite tells apart
        with pytest.raises(RequestExpired):
            store.proof_of_access_response(answer(CONTENT, asked, HASH))
        assert_settled(stored)

    def test_an_answer_for_what_was_removed_meanwhile_says_that_it_is_deleted(
        self, store: ManagedStorage, stored: Stored
    ) -> None:
        store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        store.remove_for_bucket(BUCKET, "path")
        with pytest.raises(ResourceDeleted):
            store.proof_of_access_response(answer(CONTENT, asked, HASH))
        assert_settled(stored)
        assert stored.names() == set()

    def test_the_seeds_own_answer_passes_where_it_is_allowed(
        self, store: ManagedStorage, stored: Stored, settings: Settings
    ) -> None:
        settings.BLOBSTORE = {"PROOF_PROTOCOL": "seed"}
        store.put_for_bucket(BUCKET, "path", CONTENT)
        asked = store.put_for_bucket_request(BUCKET, "proven", HASH)
        part = CONTENT[asked.range_start : asked.range_start + asked.range_length]
        managed = store.proof_of_access_response(PutResponse(asked.request_id, sha384(part)))
        assert managed.path == "proven"
        assert_settled(stored)


def test_a_storage_may_be_given_a_catalog_and_a_place_for_bytes(store: ManagedStorage, stored: Stored) -> None:
    given = ManagedStorage(catalog=ResourceCatalog(), resource_storage=ResourceStorage(alias="blobstore"))
    given.put_for_bucket("name", "path", CONTENT)
    assert store.get_for_bucket("name", "path").read() == CONTENT


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_a_shell_needs_no_more_than_one_import(store: ManagedStorage, stored: Stored) -> None:
    lines = "from django_blobstore.managed import ManagedStorage; ManagedStorage().put_for_bucket('name', 'path', b'1')"
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", DEPLOYMENT_VARIABLE: deployment()}
    subprocess.run([sys.executable, "manage.py", "shell", "-c", lines], env=os.environ | environment, check=True)
    assert store.get_for_bucket("name", "path").read() == b"1"


def test_upkeep_finds_nothing_wrong_with_what_was_put(store: ManagedStorage, stored: Stored) -> None:
    store.put_for_bucket(BUCKET, "path", CONTENT)
    assert sweep().failed_files == 0
    for report in (audit(), scrub()):
        assert report.findings.tallies == {}
    assert store.get_for_bucket(BUCKET, "path").read() == CONTENT
