"""What is stored, byte for byte, when an upload succeeds, and that nothing is when it does not."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gridfs
import pytest
from bson import Int64, ObjectId
from django.core.files.base import ContentFile
from pymongo.errors import OperationFailure

from django_blobstore.storages import GridFSStorage
from tests.mongo import Commands, failing
from tests.stored import StoredInGridFS

CHUNK = 512 * 1024
BATCH = 8 * CHUNK
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, BATCH - 1, BATCH, BATCH + 1, 20 * 2**20]
NOT_RETRIED = 2  # BadValue


class Trickle:
    """A stream that gives fewer bytes than asked for, and may break after `breaks_at` of them."""

    def __init__(self, data: bytes, *, breaks_at: int | None = None, error: BaseException | None = None) -> None:
        self._stream = io.BytesIO(data if breaks_at is None else data[:breaks_at])
        self._breaks = breaks_at is not None
        self._error = error or RuntimeError("the sender went away")

    def read(self, n: int, /) -> bytes:
        data = self._stream.read(min(n, 70_001))
        if not data and self._breaks:
            raise self._error
        return data


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("size", EDGES)
def test_a_stock_driver_reads_what_we_wrote(
    storage: GridFSStorage, stock: gridfs.GridFSBucket, size: int, named: bool
) -> None:
    data = os.urandom(size)
    if named:
        storage.save_named("content", Trickle(data))
    else:
        storage.save("content", ContentFile(data))
    assert stock.open_download_stream_by_name("content").read() == data


@pytest.mark.parametrize("chunk_size", [1, 7, 1000, 2**20, 4 * 2**20])
def test_a_stock_driver_reads_any_chunk_size(
    bucket: StoredInGridFS, stock: gridfs.GridFSBucket, chunk_size: int
) -> None:
    storage = GridFSStorage(**bucket.options["OPTIONS"], chunk_size=chunk_size)
    data = os.urandom(3 * chunk_size + 1)
    storage.save_named("content", io.BytesIO(data))
    with stock.open_download_stream_by_name("content") as stored:
        assert (stored.read(), stored.chunk_size) == (data, chunk_size)


def test_the_files_document_is_that_of_the_specification(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(b"abc"))
    document = storage._bucket.files.find_one()
    assert document is not None
    assert set(document) == {"_id", "length", "chunkSize", "uploadDate", "filename"}
    assert isinstance(document["_id"], ObjectId)
    assert isinstance(document["length"], Int64)
    assert (document["length"], document["chunkSize"], document["filename"]) == (3, CHUNK, "content")


@pytest.mark.parametrize("size", [10, BATCH + 5, 3 * BATCH])
def test_a_short_read_is_not_the_end_of_the_content(storage: GridFSStorage, size: int) -> None:
    data = os.urandom(size)
    storage.save("content", Trickle(data))  # type: ignore[arg-type]
    with storage.open("content") as file:
        assert file.read() == data


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("breaks_at", [0, 100, CHUNK, BATCH + 1, 5 * BATCH])
@pytest.mark.parametrize("error", [RuntimeError("the sender went away"), KeyboardInterrupt()])
def test_a_source_that_breaks_leaves_nothing(
    storage: GridFSStorage, bucket: StoredInGridFS, breaks_at: int, named: bool, error: BaseException
) -> None:
    source: Any = Trickle(bytes(6 * BATCH), breaks_at=breaks_at, error=error)
    with pytest.raises(type(error)):
        storage.save_named("content", source) if named else storage.save("content", source)
    assert bucket.names() == set()


@pytest.mark.parametrize("size", [10, BATCH + 1, 6 * BATCH])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("collection", ["chunks", "files"])
def test_a_refused_insert_leaves_nothing(
    storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str, size: int, named: bool, collection: str
) -> None:
    storage.ensure_indexes()
    namespace = f"{bucket.database}.{bucket.namespace}.{collection}"
    source: Any = ContentFile(bytes(size))
    with (
        failing(mongo_uri, "insert", errorCode=NOT_RETRIED, namespace=namespace),
        pytest.raises(OperationFailure),
    ):
        storage.save_named("content", source) if named else storage.save("content", source)
    assert bucket.names() == set()


def test_a_batch_refused_late_leaves_nothing(storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str) -> None:
    storage.ensure_indexes()
    late = {"mode": {"skip": 3}, "errorCode": NOT_RETRIED}
    with failing(mongo_uri, "insert", **late), pytest.raises(OperationFailure):
        storage.save("content", ContentFile(bytes(8 * BATCH)))
    assert bucket.names() == set()


@pytest.mark.parametrize("named", [False, True])
def test_a_write_that_the_majority_did_not_confirm_leaves_nothing(
    storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str, named: bool
) -> None:
    storage.ensure_indexes()
    unconfirmed = {"code": 64, "errmsg": "waiting for replication timed out"}
    source: Any = ContentFile(b"abc")
    with failing(mongo_uri, "insert", writeConcernError=unconfirmed), pytest.raises(TimeoutError):
        storage.save_named("content", source) if named else storage.save("content", source)
    if named:  # what is not answered may come later still: the caller deletes the name in the end
        storage.delete("content")
    assert bucket.names() == set()


@pytest.mark.parametrize("size", [10, 5 * BATCH])
def test_an_insert_whose_connection_broke_is_done_once(storage: GridFSStorage, mongo_uri: str, size: int) -> None:
    data = os.urandom(size)
    storage.ensure_indexes()
    with failing(mongo_uri, "insert", mode={"times": 1}, closeConnection=True):
        storage.save("content", ContentFile(data))
    with storage.open("content") as file:
        assert file.read() == data


def test_a_delete_whose_connection_broke_after_a_failure_is_repeated(
    storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str
) -> None:
    storage.ensure_indexes()
    with (
        failing(mongo_uri, "delete", mode={"times": 2}, closeConnection=True),
        pytest.raises(RuntimeError, match="the sender went away"),
    ):
        storage.save("content", Trickle(bytes(3 * BATCH), breaks_at=2 * BATCH))  # type: ignore[arg-type]
    assert bucket.names() == set()


def test_what_could_not_be_undone_is_noted_on_the_error(
    storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str
) -> None:
    source: Any = Trickle(bytes(3 * BATCH), breaks_at=2 * BATCH)
    with failing(mongo_uri, "delete", closeConnection=True), pytest.raises(RuntimeError) as raised:
        storage.save_named("content", source)
    assert "could not be deleted either" in raised.value.__notes__[0]
    assert len(bucket.names()) == 1
    storage.delete("content")
    assert bucket.names() == set()


def test_deleting_a_name_removes_the_chunks_of_an_upload_that_died(
    storage: GridFSStorage, bucket: StoredInGridFS
) -> None:
    upload = storage._upload("content", named=True)
    upload.write(bytes(2 * BATCH))
    upload._settle()
    assert len(bucket.names()) == 1
    storage.delete_many(["content", "another"])
    assert bucket.names() == set()


@pytest.mark.parametrize("first", [b"", b"first"])
@pytest.mark.parametrize("second", [b"", b"second", bytes(CHUNK), bytes(CHUNK + 1), bytes(3 * CHUNK), bytes(8 * BATCH)])
def test_a_name_is_saved_as_named_only_once(storage: GridFSStorage, first: bytes, second: bytes) -> None:
    storage.save_named("content", io.BytesIO(first))
    with pytest.raises(FileExistsError, match="content"):
        storage.save_named("content", io.BytesIO(second))
    with storage.open("content") as file:
        assert file.read() == first
    assert storage._bucket.chunks.count_documents({}) == (1 if first else 0)


@pytest.mark.parametrize("length", [10, 3 * CHUNK, 8 * BATCH])
def test_a_name_whose_first_upload_died_is_refused_and_what_is_there_stays(storage: GridFSStorage, length: int) -> None:
    died = storage._upload("content", named=True)
    died.write(bytes(CHUNK))
    died._settle()
    with pytest.raises(FileExistsError, match="content"):
        storage.save_named("content", io.BytesIO(bytes(length)))
    assert storage._bucket.chunks.count_documents({}) == 1
    assert storage._bucket.files.count_documents({}) == 0


def test_everything_is_written_with_majority_even_if_the_uri_says_otherwise(
    bucket: StoredInGridFS, commands: Commands
) -> None:
    options = bucket.options["OPTIONS"] | {"uri": bucket.uri + "&w=1&journal=false"}
    storage = GridFSStorage(**options, client_options={"event_listeners": [commands]})
    storage.save("content", ContentFile(bytes(BATCH + 1)))
    storage.delete("content")
    writes = [event.command for event in commands.events if event.command_name in ("insert", "delete", "createIndexes")]
    assert {write["writeConcern"]["w"] for write in writes} == {"majority"}
    assert not any("j" in write["writeConcern"] for write in writes)


def test_the_files_document_comes_after_the_last_chunk(storage: GridFSStorage, commands: Commands) -> None:
    storage.save("content", ContentFile(bytes(5 * BATCH)))
    inserts = [command for command in commands.sent if command.startswith("insert")]
    assert inserts == ["insert chunks"] * 8 + ["insert files"]


def test_an_open_file_is_visible_once_closed(storage: GridFSStorage) -> None:
    file = storage.open("content", "wb")
    assert file.write(b"abc") == 3
    assert file.write("äö") == 4
    assert not storage.exists("content")
    file.close()
    file.close()
    assert storage.size("content") == 7
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")


def fill_and_break(file: Any) -> None:
    file.write(bytes(2 * BATCH))
    raise ZeroDivisionError


def test_an_open_file_left_by_an_exception_is_discarded(storage: GridFSStorage, bucket: StoredInGridFS) -> None:
    storage.save("content", ContentFile(b"old"))
    with pytest.raises(ZeroDivisionError), storage.open("content", "wb") as file:
        fill_and_break(file)
    with storage.open("content") as old:
        assert old.read() == b"old"
    assert storage._bucket.chunks.count_documents({}) == 1


def test_a_write_that_fails_discards_the_open_file(
    storage: GridFSStorage, bucket: StoredInGridFS, mongo_uri: str
) -> None:
    storage.ensure_indexes()
    file = storage.open("content", "wb")
    with failing(mongo_uri, "insert", errorCode=NOT_RETRIED), pytest.raises(OperationFailure):
        file.write(bytes(9 * BATCH))
    assert file.closed
    assert bucket.names() == set()


def test_opening_for_writing_replaces_every_older_revision(
    storage: GridFSStorage, stock: gridfs.GridFSBucket, bucket: StoredInGridFS
) -> None:
    for revision in (b"one", b"two"):
        stock.upload_from_stream("content", revision)
    storage._bucket.files.update_one({}, {"$currentDate": {"uploadDate": True}})
    with storage.open("content", "wb") as file:
        file.write(b"three")
    with storage.open("content") as newest:
        assert newest.read() == b"three"
    assert storage._bucket.files.count_documents({}) == storage._bucket.chunks.count_documents({}) == 1


def test_a_replacement_wins_over_a_file_from_the_future(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(b"old"))
    future = {"$set": {"uploadDate": storage.get_modified_time("content").replace(year=2999)}}
    storage._bucket.files.update_one({}, future)
    with storage.open("content", "wb") as file:
        file.write(b"new")
    with storage.open("content") as file:
        assert file.read() == b"new"


def test_concurrent_saves_under_one_name_all_stay(storage: GridFSStorage) -> None:
    contents = [bytes([i]) * 1000 for i in range(8)]

    def save(data: bytes) -> str:
        return storage.save("content", ContentFile(data))

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(save, contents))
    assert len(set(names)) == 8
    for name, data in zip(names, contents, strict=True):
        with storage.open(name) as file:
            assert file.read() == data


def test_eight_threads_upload_at_once(storage: GridFSStorage) -> None:
    def save(i: int) -> None:
        storage.save_named(f"{i}", io.BytesIO(bytes([i]) * (BATCH + 1000 * i)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(save, range(24)))
    assert {storage.size(f"{i}") for i in range(24)} == {BATCH + 1000 * i for i in range(24)}
    for i in range(24):
        assert storage.read_range(f"{i}", BATCH - 1, 2) == (bytes([i]) * 2 if i else bytes(1))


def test_a_server_that_stays_away_is_an_error(mongo_uri: str, storage: GridFSStorage) -> None:
    storage.ensure_indexes()
    with failing(mongo_uri, "insert", closeConnection=True), pytest.raises(ConnectionError):
        storage.save("content", ContentFile(b"abc"))
