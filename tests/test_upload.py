"""The way of a put: what it reads, writes and checks, in which order, and what is left when any step fails."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from functools import partial
from threading import Event

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import InMemoryStorage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_blobstore.errors import (
    BlobstoreError,
    ContentTooLarge,
    HashMismatch,
    InvalidHash,
    LeaseLost,
    LengthMismatch,
    UploadPending,
)
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, PendingFile, Resource
from django_blobstore.upkeep import sweep
from tests.faults.dying import wait_until_forgotten
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.stalled_puts import POINTS, put_and_stall
from tests.stored import Stored
from tests.streams import MIB, SeekableStream, Stream, content_of, sha384
from tests.together import child, in_background

BUCKET = Namespace("bucket")
SECONDS = 120
CHUNK = 512 * 1024  # of GridFS
LARGE = content_of(MIB + 70_000)
# For what depends on the stream and the storage only.
ON_SQLITE = pytest.mark.parametrize(
    "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
)


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


@pytest.mark.parametrize(
    "length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB - 1, MIB, MIB + 1, 5 * CHUNK, 5 * CHUNK + 1, 3 * MIB]
)
@ON_SQLITE
def test_content_of_any_length_comes_back_as_it_was(store: ManagedStorage, stored: Stored, length: int) -> None:
    content = content_of(length)
    for path, stream in [("whole", content), ("in pieces", Stream(content, at_most=99_991))]:
        managed = store.put(BUCKET, path, stream)
        assert (managed.resource.length, managed.resource.sha384) == (length, sha384(content))
        with store.get(BUCKET, path) as file:
            assert file.read() == content
    assert_settled(stored)
    assert Resource.objects.get().reference_count == 2


def streams_of(content: bytes) -> dict[str, object]:
    temporary = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is forgotten
    temporary.write(content)
    temporary.seek(0)
    return {
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "BytesIO": io.BytesIO(content),
        "file on disk": temporary,
        "ContentFile": ContentFile(content),
        "uploaded file": SimpleUploadedFile("name", content),
        "stream that reads short": Stream(content, at_most=1000),
    }


@pytest.mark.parametrize("length", [1000, MIB + 1])
@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_stream_is_anything_with_read_or_bytes(store: ManagedStorage, stored: Stored, length: int) -> None:
    content = content_of(length)
    for kind, stream in streams_of(content).items():
        store.put(BUCKET, kind, stream)
        assert store.get(BUCKET, kind).read() == content
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("text", ["text", "t" * (MIB + 1)])
def test_text_is_refused_and_leaves_nothing(store: ManagedStorage, stored: Stored, text: str) -> None:
    with pytest.raises(TypeError, match="bytes"):
        store.put(BUCKET, "a", io.StringIO(text))
    assert_empty(stored)


@ON_SQLITE
@pytest.mark.parametrize("length", [0, 1, 1000, MIB, MIB + 1, 2 * MIB])
@pytest.mark.parametrize("storage_kind", ["files"])
def test_no_more_than_the_length_is_read(store: ManagedStorage, stored: Stored, length: int) -> None:
    content = content_of(3 * MIB)
    for stream in (Stream(content), Stream(content, at_most=99_991)):
        managed = store.put(BUCKET, "a", stream, length)
        assert managed.resource.length == length
        assert stream.position == length
        assert store.get(BUCKET, "a").read() == content[:length]
    assert_settled(stored)


def test_no_more_than_the_length_is_read_of_content_already_stored(store: ManagedStorage, stored: Stored) -> None:
    content = content_of(2 * MIB)
    store.put(BUCKET, "a", content)
    stream = io.BytesIO(b"before" + content + b"after")
    stream.seek(6)
    store.put(BUCKET, "b", stream, len(content), check_hash=sha384(content))
    assert stream.read() == b"after"
    assert store.get(BUCKET, "b").read() == content
    assert_settled(stored)


@ON_SQLITE
def test_a_negative_length_means_all_there_is(store: ManagedStorage, stored: Stored) -> None:
    for length in (-1, -2, -1000):
        assert store.put(BUCKET, "a", b"four", length).resource.length == 4


def test_fewer_bytes_than_announced_are_refused_and_leave_nothing(store: ManagedStorage, stored: Stored) -> None:
    for size in (0, 5, MIB, MIB + 1, 2 * MIB):
        with pytest.raises(LengthMismatch) as refused:
            store.put(BUCKET, "a", Stream(content_of(size)), size + 1)
        assert (refused.value.expected, refused.value.actual) == (size + 1, size)
        assert_empty(stored)
    assert not Bucket.objects.exists()


def test_another_hash_than_announced_is_refused_and_leaves_nothing(store: ManagedStorage, stored: Stored) -> None:
    for content in (b"small", LARGE):
        with pytest.raises(HashMismatch) as refused:
            store.put(BUCKET, "a", Stream(content), check_hash=sha384(b"other"))
        assert (refused.value.expected, refused.value.actual) == (sha384(b"other"), sha384(content))
        with pytest.raises(HashMismatch, match="md5"):
            store.put(BUCKET, "a", content, digests={"md5": "0" * 32})
        assert_empty(stored)


def test_the_hash_of_other_stored_content_does_not_pass(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", LARGE)
    with pytest.raises(HashMismatch):
        store.put(BUCKET, "b", io.BytesIO(LARGE[:-1] + b"!"), check_hash=sha384(LARGE))
    assert_sound(stored)
    assert Resource.objects.get().reference_count == 1
    assert not PendingFile.objects.exists()


@ON_SQLITE
@pytest.mark.parametrize("bad", ["12", "g" * 96])
def test_what_is_no_hash_is_refused_before_a_byte_is_read(store: ManagedStorage, stored: Stored, bad: str) -> None:
    stream = Stream(LARGE)
    with pytest.raises(InvalidHash):
        store.put(BUCKET, "a", stream, check_hash=bad)
    assert stream.position == 0
    assert_empty(stored)


@ON_SQLITE
@pytest.mark.parametrize("limit", [10, 2 * MIB])
def test_content_over_the_limit_is_refused_and_leaves_nothing(
    store: ManagedStorage, stored: Stored, settings: Settings, limit: int
) -> None:
    settings.BLOBSTORE = {"MAX_LENGTH": limit}
    stream = Stream(content_of(limit + 1))
    with pytest.raises(ContentTooLarge) as refused:
        store.put(BUCKET, "a", stream, limit + 1)
    assert stream.position == 0
    assert refused.value.limit == limit
    with pytest.raises(ContentTooLarge):
        store.put(BUCKET, "a", stream)
    assert_empty(stored)
    assert store.put(BUCKET, "a", content_of(limit)).resource.length == limit


class Unplugged(Exception):
    """The cable was pulled."""


def pull_the_plug() -> None:
    raise Unplugged


@pytest.mark.parametrize("error", [Unplugged, KeyboardInterrupt])
def test_a_stream_that_breaks_leaves_nothing(store: ManagedStorage, stored: Stored, error: type[BaseException]) -> None:
    def break_off() -> None:
        raise error

    for at in (0, 1000, MIB + 1, 2 * MIB, 3 * MIB):
        with pytest.raises(error):
            store.put(BUCKET, "a", Stream(content_of(3 * MIB), {at: break_off}))
        assert_empty(stored)


def test_a_stream_that_breaks_leaves_the_old_object(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", b"old")
    with pytest.raises(Unplugged):
        store.put(BUCKET, "a", Stream(LARGE, {MIB + 1: pull_the_plug}))
    assert store.get(BUCKET, "a").read() == b"old"
    assert_sound(stored)
    assert not PendingFile.objects.exists()


def test_inside_an_atomic_block_a_put_refuses_and_leaves_nothing(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "known", b"known")
    for content in (b"known", b"new", Stream(LARGE)):
        with transaction.atomic(store.catalog.using), pytest.raises(RuntimeError, match=r"atomic .* durable=False"):
            store.put(BUCKET, "a", content)
    assert Resource.objects.get().reference_count == 1
    assert_sound(stored)
    assert not PendingFile.objects.exists()


def test_a_row_names_the_file_before_its_first_byte_and_until_the_object_does(
    store: ManagedStorage, stored: Stored
) -> None:
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((PendingFile.objects.arriving().count(), len(stored.names())))
        assert PendingFile.objects.count() == 1

    store.put(BUCKET, "a", Stream(content_of(3 * MIB), {MIB + 1: look, 2 * MIB + 1: look}))
    assert len(seen) == 2
    assert {pending for pending, _ in seen} == {1}
    assert not PendingFile.objects.exists()
    assert len(stored.names()) == 1


def writes(database: str, put: Callable[[], object]) -> list[str]:
    """Return the tables that `put` inserted rows into."""
    with CaptureQueriesContext(connections[database]) as captured:
        put()
    inserts = (query["sql"] for query in captured.captured_queries if query["sql"].startswith("INSERT"))
    return [sql.split("django_blobstore_")[1].split('"')[0].split()[0] for sql in inserts]


def test_small_content_that_is_stored_is_not_written_again(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    for content in (b"", b"small", content_of(MIB)):
        store.put(BUCKET, f"{len(content)}/a", content)
        before = stored.names()
        put_again = partial(store.put, BUCKET, f"{len(content)}/b", Stream(content, at_most=1000))
        assert "pendingfile" not in writes(database, put_again)
        assert stored.names() == before
    assert_sound(stored)


def test_large_content_that_is_stored_is_not_written_again_if_its_hash_is_told(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    store.put(BUCKET, "a", LARGE)
    before = stored.names()
    put = partial(store.put, BUCKET, "b", io.BytesIO(LARGE), check_hash=sha384(LARGE).upper())
    assert "pendingfile" not in writes(database, put)
    assert stored.names() == before
    assert_sound(stored)


def test_large_content_that_is_stored_becomes_no_second_file(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", LARGE)
    before = stored.names()
    store.put(BUCKET, "b", Stream(LARGE))
    assert stored.names() == before
    assert not PendingFile.objects.exists()
    assert Resource.objects.get().reference_count == 2


def test_content_that_vanishes_while_it_is_compared_is_stored_after_all(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    store.put(BUCKET, "a", LARGE)
    vanishing = SeekableStream(LARGE, lambda: store.remove(BUCKET, "a"))
    store.put(BUCKET, "b", vanishing, check_hash=sha384(LARGE))
    assert store.get(BUCKET, "b").read() == LARGE
    assert_settled(stored)
    assert Resource.objects.get().reference_count == 1


@pytest.mark.parametrize("storage_kind", ["files", "gridfs", "memory"])
@pytest.mark.parametrize("content", [b"small", LARGE])
def test_content_whose_bytes_are_missing_is_healed_by_the_next_put(
    store: ManagedStorage, stored: Stored, content: bytes
) -> None:
    lost = store.put(BUCKET, "a", content).resource
    stored.storage.delete(lost.path)
    store.catalog.mark_damaged(lost)
    store.put(BUCKET, "b", io.BytesIO(content), check_hash=sha384(content))
    assert [store.get(BUCKET, path).read() for path in "ab"] == [content, content]
    healed = Resource.objects.get()
    assert (healed.damaged_at, healed.reference_count) == (None, 2)
    assert healed.path != lost.path
    assert PendingFile.objects.get().path == lost.path
    assert_settled(stored)


def test_a_slow_stream_renews_its_lease_and_a_swept_one_loses_it(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"LEASE": 0.3}
    leases: list[object] = []

    def wait_and_look() -> None:
        time.sleep(0.11)
        leases.append(PendingFile.objects.get().lease_until)

    places = [MIB + 1 + 10 * n for n in range(4)]
    store.put(BUCKET, "a", Stream(LARGE, dict.fromkeys(places, wait_and_look)))
    assert len(set(leases)) >= 3
    assert leases == sorted(leases)
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["files", "gridfs", "memory"])
def test_a_swept_upload_is_told_so_and_leaves_nothing(
    store: ManagedStorage, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"LEASE": 0.001}
    swept: list[int] = []

    def stall_and_sweep() -> None:
        end_leases_and_graces()
        swept.append(sweep().abandoned_uploads)

    for at in (MIB + 1, 2 * MIB, 3 * MIB):
        with pytest.raises(LeaseLost):
            store.put(BUCKET, "a", Stream(content_of(3 * MIB + 5), {at: stall_and_sweep}))
        assert_empty(stored)
    assert swept == [1, 1, 1]


@pytest.mark.parametrize("storage_kind", ["files", "gridfs", "memory"])
def test_an_upload_swept_after_its_last_byte_leaves_nothing(store: ManagedStorage, stored: Stored) -> None:
    """The lease is not looked at any more when the rest is written: only the last transaction can tell."""

    def stall_and_sweep() -> None:
        end_leases_and_graces()
        sweep()

    with pytest.raises(LeaseLost):
        store.put(BUCKET, "a", Stream(LARGE, {len(LARGE): stall_and_sweep}))
    assert_empty(stored)


def test_a_path_is_pending_while_its_first_upload_is_under_way(store: ManagedStorage, stored: Stored) -> None:
    arrived, go_on = Event(), Event()

    def wait() -> None:
        arrived.set()
        assert go_on.wait(SECONDS)

    with in_background(lambda: store.put(BUCKET, "a", Stream(LARGE, {MIB + 1: wait}))) as put:
        assert arrived.wait(SECONDS)
        try:
            with pytest.raises(UploadPending) as pending:
                store.get(BUCKET, "a")
            assert pending.value.retry_after > 0
            for namespace, path in [(BUCKET, "b"), (Namespace(), "a"), (Namespace("bucket", "user"), "a")]:
                with pytest.raises(BlobstoreError, match="Nothing is stored"):
                    store.get(namespace, path)
        finally:
            go_on.set()
        put.result(SECONDS)
    assert store.get(BUCKET, "a").read() == LARGE
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["files", "gridfs"])
def test_a_process_killed_in_the_midst_of_puts_leaves_only_what_a_sweep_removes(
    store: ManagedStorage, stored: Stored
) -> None:
    store.put(BUCKET, "bystander", LARGE)
    with child(put_and_stall) as process:
        reached = {int(process.stdout.readline()) for _ in POINTS}
    wait_until_forgotten(stored)
    assert reached == set(POINTS)
    assert PendingFile.objects.filter(discard=False).count() == len(POINTS) - 1
    assert_sound(stored)
    assert sweep().deleted_files == 0
    assert_settled(stored)
    assert stored.names() == {Resource.objects.get().path}


@pytest.mark.parametrize("storage_kind", ["files", "gridfs"])
@pytest.mark.parametrize("content", [b"", LARGE])
def test_a_database_that_hangs_up_during_a_put_leaves_only_what_a_sweep_removes(
    store: ManagedStorage, stored: Stored, database: str, content: bytes
) -> None:
    if connections[database].vendor != "postgresql":
        pytest.skip("SQLite has no server to hang up.")
    store.put(BUCKET, "a", b"old")
    hang_up = partial(terminate, database, backend_of(database))
    with pytest.raises(OperationalError):
        store.put(BUCKET, "a", Stream(content, {len(content): hang_up}))
    connections[database].close()
    assert store.get(BUCKET, "a").read() == b"old"
    assert_sound(stored)
    assert_settled(stored)


def test_a_database_that_hangs_up_at_the_commit_of_a_put_leaves_only_what_a_sweep_removes(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    if connections[database].vendor != "postgresql":
        pytest.skip("SQLite has no server to hang up.")
    store.put(BUCKET, "a", LARGE)
    with hanging_up_at_the_commit(database):
        for path, content in [("a", b"new"), ("b", b"new"), ("c", Stream(LARGE))]:
            with pytest.raises(OperationalError):
                store.put(BUCKET, path, content)
            connections[database].close()
    assert store.get(BUCKET, "a").read() == LARGE
    assert Resource.objects.get().reference_count == 1
    assert_sound(stored)
    assert_settled(stored)


@contextmanager
def hanging_up_at_the_commit(database: str) -> Iterator[None]:
    """End each connection that wrote an object, when it commits."""
    with connections[database].cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION hang_up() RETURNS trigger AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$ LANGUAGE plpgsql;"
            " CREATE CONSTRAINT TRIGGER hang_up AFTER INSERT OR UPDATE ON django_blobstore_managedresource"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang_up()"
        )
    try:
        yield
    finally:
        with connections[database].cursor() as cursor:
            cursor.execute("DROP FUNCTION hang_up CASCADE")


def backend_of(database: str) -> int:
    with connections[database].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def terminate(database: str, backend: int) -> None:
    """End the connection `backend` from another one, as a restart of the server would."""

    def from_another_connection() -> None:
        with connections[database].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, %s)", [backend, 1000 * SECONDS])
            assert cursor.fetchone() == (True,)

    with in_background(from_another_connection) as ended:
        ended.result(SECONDS)


class RefusingStorage(InMemoryStorage):
    """A storage whose disk is full."""

    def _save(self, name: str, content: File) -> str:
        content.read(10)
        raise OSError(ENOSPC, "No space left on device")


def test_a_storage_that_refuses_leaves_nothing(store: ManagedStorage, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"STORAGE": "broken"}
    settings.STORAGES = {**settings.STORAGES, "broken": {"BACKEND": f"{__name__}.RefusingStorage"}}
    for content in (b"small", Stream(LARGE)):
        with pytest.raises(OSError, match="No space left"):
            ManagedStorage().put(BUCKET, "a", content)
    assert_empty(stored)
