"""Each defect that the seed had, shown absent. Every test here fails on the seed's order of steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from django.core.files.storage import InMemoryStorage
from django.db import connections, transaction
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import Settings

from django_blobstore.errors import (
    InvalidPath,
    LeaseLost,
    LengthMismatch,
    RequestExpired,
    ResourceNotFound,
    ResponseMismatch,
    TooManyFailures,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, PutRequest, Resource
from django_blobstore.proof import SAMPLE_LENGTH, WHOLE_UP_TO, PutResponse, answer, draw_ranges
from django_blobstore.upkeep import sweep
from tests.faults.dying import wait_until_forgotten
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.stalled_puts import POINTS, put_and_stall
from tests.stored import Stored
from tests.streams import MIB, Stream, content_of, sha384
from tests.together import child, in_background, outcomes, printed, results

BUCKET, OTHER = Namespace("bucket"), Namespace("other")
LARGE = content_of(MIB + 70_000)
SECONDS = 120


@pytest.fixture
def store(database: str, stored: Stored, settings: Settings) -> ManagedStorage:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    return ManagedStorage()


class Unplugged(Exception):
    """The cable was pulled."""


def unplug() -> None:
    raise Unplugged


class TestDataLoss:
    """Bytes that somebody still refers to are never deleted."""

    def test_a_first_uploader_that_fails_takes_no_bytes_from_a_second(
        self, store: ManagedStorage, stored: Stored
    ) -> None:
        """The second put begins and ends while the first, of the same content, is under way; then that one fails."""

        def second_put_and_unplug() -> None:
            store.put(BUCKET, "second", Stream(LARGE))
            raise Unplugged

        for at in (MIB + 1, len(LARGE)):
            with pytest.raises(Unplugged):
                store.put(BUCKET, "first", Stream(LARGE, {at: second_put_and_unplug}))
            assert store.get(BUCKET, "second").read() == LARGE
            assert_settled(stored)
        assert Resource.objects.get().reference_count == 1

    def test_two_overwrites_at_once_take_one_reference(self, store: ManagedStorage, stored: Stored) -> None:
        for path in ("a", "bystander"):
            store.put(BUCKET, path, b"shared")
        results(*(partial(store.put, BUCKET, "a", content_of(10, n)) for n in range(2)))
        assert store.get(BUCKET, "bystander").read() == b"shared"
        assert_settled(stored)

    def test_two_removes_at_once_take_one_reference(self, store: ManagedStorage, stored: Stored) -> None:
        for path in ("a", "bystander"):
            store.put(BUCKET, path, b"shared")
        done = outcomes(*(partial(store.remove, BUCKET, "a") for _ in range(2)))
        assert sorted(type(one).__name__ for one in done) == ["NoneType", "ResourceNotFound"]
        assert store.get(BUCKET, "bystander").read() == b"shared"
        assert_settled(stored)

    def test_a_late_failure_leaves_no_reference_that_dangles(
        self, store: ManagedStorage, stored: Stored, database: str
    ) -> None:
        """The database refuses the object, the last thing a put writes."""
        store.put(BUCKET, "shared", b"shared")
        store.put(BUCKET, "a", b"old")
        failing = partial(put_with_a_failing_last_statement, database, store)
        for content in (b"shared", b"new", Stream(LARGE)):
            with pytest.raises(Exception, match="late failure"):
                failing("a", content)
        assert store.get(BUCKET, "a").read() == b"old"
        assert_sound(stored)
        assert not PendingFile.objects.exists()
        assert set(Resource.objects.values_list("reference_count", flat=True)) == {1}


def put_with_a_failing_last_statement(
    database: str, store: ManagedStorage, path: str, content: bytes | Stream
) -> ManagedResource:
    """Put with a database that fails whenever an object is written, after everything else was."""

    def fail_on_objects(execute: Callable[..., object], sql: str, *arguments: object) -> object:
        answer = execute(sql, *arguments)
        if sql.startswith(("INSERT", "UPDATE")) and "_managedresource" in sql:
            raise OSError("late failure")
        return answer

    with connections[database].execute_wrapper(fail_on_objects):
        return store.put(BUCKET, path, content)


class TestLeaks:
    """Nothing stays that nobody refers to."""

    def test_overwriting_deletes_the_old_bytes(self, store: ManagedStorage, stored: Stored) -> None:
        for n in range(4):
            store.put(BUCKET, "a", content_of(MIB + 1, n))
        assert stored.names() == {Resource.objects.get().path}

    def test_a_failed_put_leaves_no_bytes(self, store: ManagedStorage, stored: Stored) -> None:
        for at in (0, MIB + 1, len(LARGE)):
            with pytest.raises(Unplugged):
                store.put(BUCKET, "a", Stream(LARGE, {at: unplug}))
        with pytest.raises(LengthMismatch):
            store.put(BUCKET, "a", Stream(LARGE), len(LARGE) + 1)
        assert_empty(stored)

    @pytest.mark.parametrize("storage_kind", ["gridfs"])
    def test_a_crash_amid_a_put_leaves_no_count_and_a_file_that_a_sweep_deletes(
        self, store: ManagedStorage, stored: Stored
    ) -> None:
        with child(put_and_stall) as process:
            for _ in POINTS:
                process.stdout.readline()
        wait_until_forgotten(stored)
        assert not Resource.objects.exists()
        assert PendingFile.objects.exists()
        end_leases_and_graces()
        sweep()
        assert_empty(stored)

    def test_a_failed_proof_leaks_no_count(self, store: ManagedStorage, stored: Stored) -> None:
        store.put(BUCKET, "a", b"shared")
        hash = sha384(b"shared")
        with pytest.raises(ResponseMismatch):
            store.proof_of_access_response(answer(b"SHARED", store.put_request(BUCKET, "b", hash), hash))
        for _ in range(3):
            store.put_request(BUCKET, "never answered", hash)
        late = answer(b"shared", store.put_request(BUCKET, "b", hash), hash)
        PutRequest.objects.update(expires_at=Now() - timedelta(seconds=1))
        with pytest.raises(RequestExpired):
            store.proof_of_access_response(late)
        assert Resource.objects.get().reference_count == 1
        store.remove(BUCKET, "a")
        assert_empty(stored)


class TestCorrectness:
    def test_a_truncated_body_is_not_stored(self, store: ManagedStorage, stored: Stored) -> None:
        for content in (b"", b"cut", LARGE):
            with pytest.raises(LengthMismatch):
                store.put_for_bucket("bucket", "a", Stream(content), len(content) + 1)
        assert_empty(stored)

    def test_pending_ends_with_the_lease(self, store: ManagedStorage, stored: Stored) -> None:
        arrived, go_on = Event(), Event()

        def wait() -> None:
            arrived.set()
            assert go_on.wait(SECONDS)

        upload = partial(store.put, BUCKET, "a", Stream(LARGE, {MIB + 1: wait}), check_hash=sha384(LARGE))
        with in_background(upload) as put:
            assert arrived.wait(SECONDS)
            try:
                for ask in (partial(store.get, BUCKET, "a"), partial(store.put_request, BUCKET, "b", sha384(LARGE))):
                    with pytest.raises(UploadPending):
                        ask()
                end_leases_and_graces()
                for ask in (partial(store.get, BUCKET, "a"), partial(store.put_request, BUCKET, "b", sha384(LARGE))):
                    with pytest.raises(ResourceNotFound):
                        ask()
                sweep()
                assert not PendingFile.objects.exists()
            finally:
                go_on.set()
            assert isinstance(put.exception(SECONDS), LeaseLost)
        assert_empty(stored)

    def test_a_content_is_found_by_its_hash_through_an_index(self, store: ManagedStorage, database: str) -> None:
        with transaction.atomic(database):
            if connections[database].vendor == "postgresql":
                with connections[database].cursor() as cursor:
                    # It would rather read a table of one page as a whole.
                    cursor.execute("SET LOCAL enable_seqscan = off")
            plan = Resource.objects.filter(scope="", sha384=sha384(b"1")).explain()
        assert re.search("USING INDEX .*sha384=|Index Scan using blobstore_resource_once_per_scope", plan)


class TestSecurity:
    def test_dots_in_a_path_do_not_leave_the_bucket(self, store: ManagedStorage, stored: Stored) -> None:
        store.put(OTHER, "a", b"secret")
        for path in (f"../{OTHER.bucket_id}/a", "../other/a", "/../other/a", "b/../../other/a", ".."):
            for work in (store.get, store.remove, partial(store.put, stream=b"mine"), store.stat):
                with pytest.raises(InvalidPath):
                    work(BUCKET, path)
        assert store.get(OTHER, "a").read() == b"secret"
        assert ManagedResource.objects.count() == 1
        assert_settled(stored)

    @pytest.mark.parametrize("protocol", ["hmac", "seed"])
    def test_empty_and_tiny_contents_are_stored_and_proven(
        self, store: ManagedStorage, stored: Stored, settings: Settings, protocol: str
    ) -> None:
        settings.BLOBSTORE = {"PROOF_PROTOCOL": protocol}
        for content in (b"", b"1", b"12"):
            store.put(BUCKET, f"put/{content!r}", content)
            asked = store.put_request(BUCKET, f"proven/{content!r}", sha384(content))
            store.proof_of_access_response(answer(content, asked, sha384(content)))
            assert store.get(BUCKET, f"proven/{content!r}").read() == content
        assert_settled(stored)

    def test_the_proof_of_one_byte_is_not_the_hash_of_nothing(self, store: ManagedStorage, stored: Stored) -> None:
        store.put(BUCKET, "a", b"1")
        asked = store.put_request(BUCKET, "b", sha384(b"1"))
        assert asked.ranges == ((0, 1),)
        with pytest.raises(ResponseMismatch):
            store.proof_of_access_response(PutResponse(asked.request_id, sha384(b"")))
        assert Resource.objects.get().reference_count == 1

    def test_the_last_byte_is_challenged(self) -> None:
        for length in (1, 2, 4096, WHOLE_UP_TO, WHOLE_UP_TO + 1, 2**40):
            assert max(start + size for start, size in draw_ranges(length, b"seed")) == length
        reached = {sum(draw_ranges(10, bytes([n]), algorithm="sha384")[0]) for n in range(64)}
        assert max(reached) == 10

    def test_who_lacks_only_the_last_byte_fails(self, store: ManagedStorage, stored: Stored) -> None:
        content = content_of(10_000)
        store.put(BUCKET, "a", content)
        asked = store.put_request(BUCKET, "b", sha384(content))
        with pytest.raises(ResponseMismatch):
            store.proof_of_access_response(answer(content[:-1] + bytes([content[-1] ^ 1]), asked, sha384(content)))
        assert_settled(stored)

    def test_ranges_cannot_be_told_without_the_servers_secret(self, store: ManagedStorage, settings: Settings) -> None:
        resource = pretend_to_hold(store, WHOLE_UP_TO * 2)
        here = store.put_request(BUCKET, "b", resource.sha384).ranges
        settings.SECRET_KEY = "another server"
        elsewhere = store.put_request(BUCKET, "b", resource.sha384).ranges
        assert len(here) == len(elsewhere) == 461
        assert len(set(here) & set(elsewhere)) < 10
        assert {size for _, size in here} == {SAMPLE_LENGTH}

    @pytest.mark.parametrize("protocol", ["hmac", "seed"])
    def test_asking_again_does_not_draw_again(self, store: ManagedStorage, settings: Settings, protocol: str) -> None:
        settings.BLOBSTORE = {"PROOF_PROTOCOL": protocol}
        resource = pretend_to_hold(store, WHOLE_UP_TO * 2)
        asked = [store.put_request(BUCKET, f"path/{n}", resource.sha384, requester="7") for n in range(10)]
        asked.append(store.put_request(OTHER, "a", resource.sha384, requester="7"))
        assert len({request.ranges for request in asked}) == 1
        assert store.put_request(BUCKET, "a", resource.sha384, requester="8").ranges != asked[0].ranges

    def test_wrong_answers_are_few_a_day(self, store: ManagedStorage, stored: Stored) -> None:
        store.put(BUCKET, "a", b"shared")
        hash = sha384(b"shared")
        spare = store.put_request(BUCKET, "b", hash)
        for _ in range(5):
            with pytest.raises(ResponseMismatch):
                store.proof_of_access_response(answer(b"SHARED", store.put_request(BUCKET, "b", hash), hash))
        with pytest.raises(TooManyFailures):
            store.put_request(BUCKET, "b", hash)
        with pytest.raises(TooManyFailures):
            store.proof_of_access_response(answer(b"shared", spare, hash))
        assert Resource.objects.get().reference_count == 1
        PutRequest.objects.update(created_at=F("created_at") - timedelta(days=1))
        store.proof_of_access_response(answer(b"shared", store.put_request(BUCKET, "b", hash), hash))

    def test_requests_cannot_be_guessed_answered_or_burnt_by_others(
        self, store: ManagedStorage, stored: Stored
    ) -> None:
        store.put(BUCKET, "a", b"shared")
        hash = sha384(b"shared")
        asked = [store.put_request(BUCKET, "b", hash, requester="7") for _ in range(20)]
        assert len({request.request_id for request in asked}) == 20
        assert {len(request.request_id) for request in asked} == {22}
        right = answer(b"shared", asked[0], hash)
        for stranger in ("", "8", "77"):
            with pytest.raises(RequestExpired, match="no put request"):
                store.proof_of_access_response(right, requester=stranger)
        assert Resource.objects.get().reference_count == 1
        assert store.proof_of_access_response(right, requester="7").path == "b"
        assert_settled(stored)

    def test_an_answer_fits_one_request_only(self, store: ManagedStorage, stored: Stored) -> None:
        """The nonce differs though the ranges are the same."""
        store.put(BUCKET, "a", b"shared")
        hash = sha384(b"shared")
        one, two = (store.put_request(BUCKET, "b", hash) for _ in range(2))
        assert one.nonce != two.nonce
        assert len(one.nonce) == 32
        recorded = answer(b"shared", one, hash)
        with pytest.raises(ResponseMismatch):
            store.proof_of_access_response(PutResponse(two.request_id, recorded.sha384))
        store.proof_of_access_response(recorded)
        with pytest.raises(RequestExpired):
            store.proof_of_access_response(recorded)
        assert_settled(stored)


class TestOperation:
    @pytest.mark.parametrize("storage_kind", ["gridfs"])
    def test_a_request_made_in_one_process_is_answered_in_another(self, store: ManagedStorage, stored: Stored) -> None:
        store.put(BUCKET, "a", LARGE)
        asked = store.put_request(BUCKET, "b", sha384(LARGE), requester="7")
        right = answer(LARGE, asked, sha384(LARGE))
        with child(answer_elsewhere, right.request_id, right.sha384) as process:
            assert printed(process).strip() == "b"
        assert store.get(BUCKET, "b").read() == LARGE
        assert_settled(stored)

    @pytest.mark.parametrize("storage_kind", ["memory"])
    def test_a_proof_being_checked_holds_up_no_other(
        self, store: ManagedStorage, stored: Stored, settings: Settings
    ) -> None:
        settings.STORAGES = {**settings.STORAGES, "blobstore": {"BACKEND": f"{__name__}.GatedStorage"}}

        def prove(content: bytes) -> str:
            asked = store.put_request(BUCKET, f"proven/{content!r}", sha384(content))
            return store.proof_of_access_response(answer(content, asked, sha384(content))).path

        gated = store.put(BUCKET, "gated", b"gated").resource.path
        store.put(BUCKET, "free", b"free")
        with GatedStorage.held(gated) as arrived, in_background(partial(prove, b"gated")) as held:
            try:
                assert arrived.wait(SECONDS)
                assert prove(b"free") == "proven/b'free'"
                store.put(BUCKET, "another", b"another")
                assert not held.done()
            finally:
                GatedStorage.go_on.set()
            assert held.result(SECONDS) == "proven/b'gated'"
        assert ManagedResource.objects.count() == 5

    def test_there_are_list_stat_copy_and_a_sweep(self, store: ManagedStorage, stored: Stored) -> None:
        managed = store.put(BUCKET, "photos/1", b"1")
        store.copy(managed, BUCKET, "photos/2")
        listed = ManagedResource.objects.within(BUCKET).under("photos/").order_by("path")
        assert [one.path for one in listed] == ["photos/1", "photos/2"]
        assert store.stat(BUCKET, "photos/2").resource.reference_count == 2
        assert sweep().total_files == 0
        assert_settled(stored)


class GatedStorage(InMemoryStorage):
    """A storage that is slow to open one file: it waits until it may go on."""

    gated: str | None = None
    arrived, go_on = Event(), Event()

    @classmethod
    @contextmanager
    def held(cls, path: str) -> Iterator[Event]:
        """Hold up whoever opens `path`, until `go_on` is set; yield what is set when somebody is."""
        cls.gated, cls.arrived, cls.go_on = path, Event(), Event()
        try:
            yield cls.arrived
        finally:
            cls.gated = None

    def _open(self, name: str, mode: str = "rb") -> object:
        if name == self.gated:
            self.arrived.set()
            assert self.go_on.wait(SECONDS)
        return super()._open(name, mode)


def answer_elsewhere(request_id: str, proof: str) -> None:
    """Answer a put request in a process that did not make it."""
    print(ManagedStorage().proof_of_access_response(PutResponse(request_id, proof), requester="7").path)


def pretend_to_hold(store: ManagedStorage, length: int) -> Resource:
    """Return a resource of `length` bytes that nobody stored: asking for a proof reads none of them."""
    id, _ = store.catalog.put(sha384(str(uuid4()).encode()), length)
    store.catalog.upload_complete(id, "no/such/file")
    return store.catalog.get(id)
