"""What readers give, what they ask the server for, and how they notice that something is wrong with it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import gridfs
import pytest
from django.core.files.base import ContentFile

from django_blobstore.storages import GridFSStorage, gridfs_reader
from django_blobstore.storages.gridfs_bucket import CorruptFile
from tests.mongo import Commands, failing
from tests.stored import StoredInGridFS

CHUNK = 512 * 1024
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 6 * CHUNK, 6 * CHUNK + 1, 20 * 2**20]


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("block", [-1, 70_001, 2**20])
def test_what_a_stock_driver_wrote_is_read(
    storage: GridFSStorage, stock: gridfs.GridFSBucket, size: int, block: int
) -> None:
    data = os.urandom(size)
    stock.upload_from_stream("content", data)
    with storage.open("content") as file:
        assert b"".join(iter(lambda: file.read(block), b"")) == data
        assert (file.size, len(file), file.tell()) == (size, size, size)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000, 2**20, 15 * 2**20])
def test_any_chunk_size_is_read(storage: GridFSStorage, stock: gridfs.GridFSBucket, chunk_size: int) -> None:
    data = os.urandom(2 * min(chunk_size, 2**20) + 5)
    stock.upload_from_stream("content", data, chunk_size_bytes=chunk_size)
    with storage.open("content") as file:
        assert file.read() == data
    assert storage.read_range("content", 3, len(data)) == data[3:]


@pytest.mark.parametrize("file_id", [17, "a name", {"a": 1, "b": 2}])
def test_ids_of_any_type_are_read_and_deleted(
    storage: GridFSStorage, stock: gridfs.GridFSBucket, file_id: object
) -> None:
    stock.upload_from_stream_with_id(file_id, "content", b"abc", metadata={"by": "somebody"})
    with storage.open("content") as file:
        assert file.read() == b"abc"
    storage.delete("content")
    assert storage._bucket.chunks.count_documents({}) == 0


def test_the_newest_revision_is_read(storage: GridFSStorage, stock: gridfs.GridFSBucket) -> None:
    for revision in (b"one", b"two!", b"three"):
        stock.upload_from_stream("content", revision)
    with storage.open("content") as file:
        assert file.read() == b"three"
    assert storage.size("content") == 5


def test_seeking_reads_as_from_a_local_file(storage: GridFSStorage) -> None:
    data = os.urandom(3 * CHUNK + 99)
    storage.save("content", ContentFile(data))
    local = io.BytesIO(data)
    with storage.open("content") as file:
        for offset, whence, size in [
            (5, os.SEEK_SET, 10),
            (-3, os.SEEK_CUR, 7),
            (CHUNK - 1, os.SEEK_SET, 2),
            (-CHUNK, os.SEEK_END, 2 * CHUNK),
            (0, os.SEEK_SET, CHUNK),
            (10, os.SEEK_END, 5),
            (0, os.SEEK_SET, -1),
        ]:
            assert file.seek(offset, whence) == local.seek(offset, whence)
            assert file.read(size) == local.read(size)
            assert file.tell() == local.tell()


def test_seeking_before_the_start_is_refused(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(b"abc"))
    with storage.open("content") as file, pytest.raises(ValueError, match="before the start"):
        file.seek(-4, os.SEEK_END)


def test_a_file_is_iterated_by_lines_and_by_chunks(storage: GridFSStorage) -> None:
    data = b"one\r\ntwo\n" * 60_000
    storage.save("content", ContentFile(data))
    with storage.open("content") as file:
        assert list(file) == data.splitlines(keepends=True)
        assert b"".join(file.chunks(1000)) == data
        file.seek(0)
        assert file.readline() == b"one\r\n"
        assert io.TextIOWrapper(file.file, encoding="ascii").readline() == "two\n"


def test_a_file_is_read_into_a_buffer(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(bytes(CHUNK) + b"end"))
    buffer = bytearray(CHUNK + 100)
    with storage.open("content") as file:
        assert file.file.readinto(buffer) == CHUNK + 3
    assert buffer[CHUNK : CHUNK + 4] == b"end\0"


def test_a_closed_file_is_opened_again_from_the_storage(storage: GridFSStorage) -> None:
    storage.save("pyproject.toml", ContentFile(b"not the local file"))
    file = storage.open("pyproject.toml")
    assert file.size == 18
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with file.open() as again:
        assert again.read() == b"not the local file"


@pytest.mark.parametrize("name", ["missing", "", "../missing"])
def test_a_missing_file_is_not_found(storage: GridFSStorage, name: str) -> None:
    for use in (storage.open, storage.size, storage.get_modified_time):
        with pytest.raises(FileNotFoundError, match=r"No file .* is stored"):
            use(name)
    with pytest.raises(FileNotFoundError):
        storage.read_range(name, 0, 1)
    with pytest.raises(FileNotFoundError):
        storage.open_named(name, 1)


def lose(storage: GridFSStorage, n: int) -> None:
    storage._bucket.chunks.delete_one({"n": n})


def cut(storage: GridFSStorage, n: int) -> None:
    storage._bucket.chunks.update_one({"n": n}, {"$set": {"data": b"short"}})


@pytest.mark.parametrize("damage", [lose, cut])
@pytest.mark.parametrize(("n", "count"), [(0, 1), (0, 3), (1, 3), (2, 3), (7, 30), (29, 30)])
def test_a_missing_or_short_chunk_is_an_error(
    storage: GridFSStorage, damage: Callable[[GridFSStorage, int], None], n: int, count: int
) -> None:
    storage.save("content", ContentFile(bytes(count * CHUNK)))
    damage(storage, n)
    with storage.open("content") as file, pytest.raises(CorruptFile) as raised:
        file.read()
    assert (raised.value.name, raised.value.n) == ("content", n)
    with pytest.raises(CorruptFile):
        storage.read_range("content", n * CHUNK, 10)


@pytest.mark.parametrize("count", [1, 2, 6, 9])
def test_an_extra_chunk_is_an_error(storage: GridFSStorage, count: int) -> None:
    storage.save("content", ContentFile(bytes(count * CHUNK)))
    file = storage._bucket.latest("content")
    storage._bucket.chunks.insert_one({"files_id": file.id, "n": count, "data": b"extra"})
    with storage.open("content") as opened, pytest.raises(CorruptFile, match="should not be there"):
        opened.read()


@pytest.mark.parametrize("times", [1, 3])
def test_a_download_goes_on_after_its_connection_broke(storage: GridFSStorage, mongo_uri: str, times: int) -> None:
    data = os.urandom(40 * CHUNK)
    storage.save("content", ContentFile(data))
    with storage.open("content") as file:
        received = file.read(7 * CHUNK)
        with failing(mongo_uri, "getMore", mode={"times": times}, closeConnection=True):
            received += file.read()
    assert received == data


def test_a_download_whose_server_stays_away_is_an_error(storage: GridFSStorage, mongo_uri: str) -> None:
    storage.save("content", ContentFile(bytes(40 * CHUNK)))
    with storage.open("content") as file:
        file.read(CHUNK)
        with (
            failing(mongo_uri, "getMore", "find", closeConnection=True),
            pytest.raises(ConnectionError, match="'content' broke off at byte"),
        ):
            file.read()


@pytest.mark.parametrize("whole_chunks", [True, False])
def test_whoever_reads_on_after_such_an_error_misses_nothing(
    storage: GridFSStorage, mongo_uri: str, monkeypatch: pytest.MonkeyPatch, whole_chunks: bool
) -> None:
    monkeypatch.setattr(gridfs_reader, "PAUSE", 0)
    data = os.urandom(12 * CHUNK)
    storage.save("content", ContentFile(data))
    with storage.open("content") as file:
        read = file.read1 if whole_chunks else file.read
        received = [read(CHUNK)]
        with failing(mongo_uri, "getMore", "find", closeConnection=True), pytest.raises(ConnectionError):
            received.extend(read(CHUNK) for _ in range(12))
        received += [read(CHUNK) for _ in range(12 - len(received))]
    assert b"".join(received) == data


def test_a_file_that_is_not_whole_is_told_as_such_each_time(storage: GridFSStorage) -> None:
    storage.save("content", ContentFile(bytes(4 * CHUNK)))
    storage._bucket.chunks.delete_one({"n": 2})
    with storage.open("content") as file:
        file.read(2 * CHUNK)
        for _ in range(2):
            with pytest.raises(CorruptFile, match="chunk 2"):
                file.read1(CHUNK)


@pytest.mark.parametrize("size", [0, 2, 3, CHUNK, CHUNK + 1, 10 * CHUNK])
@pytest.mark.parametrize("assumed", [0, 1, 3, CHUNK, CHUNK + 1])
def test_opening_by_known_length_never_believes_a_wrong_one(storage: GridFSStorage, size: int, assumed: int) -> None:
    data = os.urandom(size)
    storage.save_named("content", io.BytesIO(data))
    with storage.open_named("content", assumed) as file:
        assert file.read() == data


CHUNK_SIZES = [300, 500, 800, 1000, 1500, CHUNK]


LENGTHS = [1, 300, 500, 800, 900, 1000, 1500, 2500, 10_000, CHUNK, CHUNK + 1]


@pytest.mark.parametrize("saved_by", CHUNK_SIZES)
def test_a_file_outlives_the_chunk_size_it_was_saved_by(bucket: StoredInGridFS, saved_by: int) -> None:
    options = bucket.options["OPTIONS"]
    contents = {length: os.urandom(length) for length in LENGTHS}
    for length, data in contents.items():
        GridFSStorage(**options, chunk_size=saved_by).save_named(f"{length}", io.BytesIO(data))
    for opened_by in CHUNK_SIZES:
        storage = GridFSStorage(**options, chunk_size=opened_by)
        for length, data in contents.items():
            with storage.open_named(f"{length}", length) as file:
                assert file.read() == data, (length, opened_by)
                file.seek(length // 2)
                assert file.read() == data[length // 2 :], (length, opened_by)
            part = storage.read_range(f"{length}", length // 3, 700)
            assert part == data[length // 3 : length // 3 + 700], (length, opened_by)


@pytest.mark.parametrize("saved_by", [255 * 1024, 2**19, 2**20, 2**21])
def test_a_large_file_outlives_the_chunk_size_it_was_saved_by(bucket: StoredInGridFS, saved_by: int) -> None:
    data = os.urandom(2**21 + 17)
    options = bucket.options["OPTIONS"]
    GridFSStorage(**options, chunk_size=saved_by).save_named("content", io.BytesIO(data))
    for opened_by in (2**17, 255 * 1024, 2**20, 2**22):
        storage = GridFSStorage(**options, chunk_size=opened_by)
        for start in (0, 1, 2**19, 2**20 + 3, 2**21 - 1, 2**21 + 16):
            with storage.open_named("content", len(data), start) as file:
                assert file.tell() == 0
                file.seek(start)
                assert file.read() == data[start:]
                file.seek(0)
                assert file.read() == data


@pytest.mark.parametrize("length", [1, 2**20, 2**21])
@pytest.mark.parametrize("start", [0, 2**20 - 1])
def test_a_file_that_is_not_there_is_not_found_when_it_is_opened(
    storage: GridFSStorage, length: int, start: int
) -> None:
    with pytest.raises(FileNotFoundError, match="'content'"):
        storage.open_named("content", length, start)


def test_a_reader_that_stops_early_leaves_its_connection_usable(storage: GridFSStorage, commands: Commands) -> None:
    storage.save("content", ContentFile(bytes(40 * CHUNK)))
    commands.clear()
    for _ in range(5):
        with storage.open("content") as file:
            file.read(100)
    assert commands.sent == ["find files", "find chunks"] * 5
    assert len({event.connection_id for event in commands.events}) == 1
    assert len({event.server_connection_id for event in commands.events}) == 1


def test_whole_reads_keep_their_connection(storage: GridFSStorage, commands: Commands) -> None:
    storage.save("content", ContentFile(bytes(40 * CHUNK)))
    commands.clear()
    for _ in range(3):
        with storage.open("content") as file:
            file.read()
    assert "getMore chunks" in commands.sent
    assert len({event.server_connection_id for event in commands.events}) == 1


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (5, 0), (0, 1), (CHUNK - 1, 2), (CHUNK, CHUNK), (0, 10**9), (2 * CHUNK + 9, 5), (2 * CHUNK + 10, 5)],
)
def test_a_range_is_the_slice_of_the_content(storage: GridFSStorage, start: int, length: int) -> None:
    data = os.urandom(2 * CHUNK + 10)
    storage.save("content", ContentFile(data))
    assert storage.read_range("content", start, length) == data[start : start + length]


def test_many_ranges_come_in_the_order_asked_for_by_few_queries(storage: GridFSStorage, commands: Commands) -> None:
    data = os.urandom(32 * CHUNK + 5)
    storage.save("content", ContentFile(data))
    commands.clear()
    ranges = [(i * CHUNK // 2 + 3, 4096) for i in range(64)] + [(10, 10), (len(data) - 5, 50), (9 * CHUNK, 15 * CHUNK)]
    assert list(storage.read_ranges("content", ranges)) == [data[start : start + n] for start, n in ranges]
    assert commands.sent.count("find files") == 1
    assert len(commands.sent) <= 8


@pytest.mark.parametrize("wanted", [(-1, 5), (0, -1)])
def test_a_negative_range_is_refused(storage: GridFSStorage, wanted: tuple[int, int]) -> None:
    storage.save("content", ContentFile(b"abc"))
    with pytest.raises(ValueError, match="0 or more"):
        storage.read_range("content", *wanted)


def test_eight_threads_read_at_once(storage: GridFSStorage) -> None:
    data = os.urandom(20 * CHUNK)
    storage.save("content", ContentFile(data))

    def read(i: int) -> bool:
        with storage.open("content") as file:
            return bytes(file.read()) == data and storage.read_range("content", i, 9) == data[i : i + 9]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(24)))
