"""What each verb costs: the commands sent and the chunks that come back, counted, so that noise hides nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from threading import Thread, current_thread

import pytest
from django.core.files.base import ContentFile
from pymongo.monitoring import CommandStartedEvent, CommandSucceededEvent

from django_blobstore.storages import GridFSStorage
from tests.mongo import Commands

CHUNK = 512 * 1024
MIB = 2**20


class Exchanges(Commands):
    """Every command sent, the threads that sent them, and the numbers of the chunks in the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[int] = []
        self.threads: set[Thread] = set()

    def started(self, event: CommandStartedEvent) -> None:
        super().started(event)
        self.threads.add(current_thread())

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self.chunks += [document["n"] for document in _documents(event) if "n" in document]

    def clear(self) -> None:
        super().clear()
        self.chunks.clear()
        self.threads.clear()


def _documents(event: CommandSucceededEvent) -> Iterator[dict[str, object]]:
    cursor = event.reply.get("cursor", {})
    yield from cursor.get("firstBatch", ())
    yield from cursor.get("nextBatch", ())


@pytest.fixture
def commands() -> Exchanges:
    return Exchanges()


@pytest.fixture
def storage(storage: GridFSStorage, commands: Exchanges) -> GridFSStorage:
    storage.ensure_indexes()
    commands.clear()
    return storage


@pytest.mark.parametrize("size", [1, 4096, CHUNK])
def test_a_small_put_is_two_inserts(storage: GridFSStorage, commands: Exchanges, size: int) -> None:
    storage.save_named("content", io.BytesIO(bytes(size)))
    assert sorted(commands.sent) == ["insert chunks", "insert files"]
    assert len(commands.threads) == 2


def test_a_small_put_beside_others_is_two_inserts_by_the_thread_of_the_caller(
    storage: GridFSStorage, commands: Exchanges
) -> None:
    with storage._bucket.finishing():
        storage.save_named("content", io.BytesIO(b"abc"))
    assert commands.sent == ["insert chunks", "insert files"]
    assert commands.threads == {current_thread()}
    with storage._bucket.finishing() as is_only_one:
        assert is_only_one


def test_an_empty_put_is_one_insert(storage: GridFSStorage, commands: Exchanges) -> None:
    storage.save_named("content", io.BytesIO(b""))
    assert commands.sent == ["insert files"]


@pytest.mark.parametrize(("size", "batches"), [(MIB, 2), (4 * MIB, 4), (64 * MIB, 21)])
def test_a_large_put_is_an_insert_per_batch_and_one(
    storage: GridFSStorage, commands: Exchanges, size: int, batches: int
) -> None:
    storage.save_named("content", io.BytesIO(bytes(size)))
    assert sorted(commands.sent) == ["insert chunks"] * batches + ["insert files"]


def test_a_small_save_by_django_is_four_commands(storage: GridFSStorage, commands: Exchanges) -> None:
    storage.save("content", ContentFile(b"abc"))
    assert commands.sent == ["find files", "insert chunks", "insert files", "find files"]


@pytest.mark.parametrize("size", [1, 4096, CHUNK, CHUNK + 1, MIB])
def test_a_get_of_known_length_up_to_one_mebibyte_is_one_find(
    storage: GridFSStorage, commands: Exchanges, size: int
) -> None:
    data = os.urandom(size)
    storage.save_named("content", io.BytesIO(data))
    commands.clear()
    with storage.open_named("content", size) as file:
        assert b"".join(file.chunks()) == data
    assert commands.sent == ["find chunks"]
    assert commands.chunks == list(range(-(-size // CHUNK)))


@pytest.mark.parametrize("size", [1, MIB])
def test_a_get_by_name_up_to_one_mebibyte_is_two_finds(storage: GridFSStorage, commands: Exchanges, size: int) -> None:
    storage.save_named("content", io.BytesIO(bytes(size)))
    commands.clear()
    with storage.open("content") as file:
        file.read()
    assert commands.sent == ["find files", "find chunks"]
    assert commands.chunks == list(range(-(-size // CHUNK)))


def test_a_large_get_sends_each_chunk_once_and_asks_only_for_the_first(
    storage: GridFSStorage, commands: Exchanges
) -> None:
    storage.save_named("content", io.BytesIO(bytes(40 * CHUNK)))
    commands.clear()
    with storage.open_named("content", 40 * CHUNK) as file:
        assert sum(map(len, file.chunks())) == 40 * CHUNK
    # 2 chunks at a time. The getMore are told of, though an exhaust cursor sends none.
    assert commands.sent == ["find chunks", "find chunks"] + ["getMore chunks"] * 19
    assert commands.chunks == list(range(40))


def test_a_get_that_stops_early_sends_one_mebibyte(storage: GridFSStorage, commands: Exchanges) -> None:
    storage.save_named("content", io.BytesIO(bytes(40 * CHUNK)))
    commands.clear()
    with storage.open_named("content", 40 * CHUNK) as file:
        next(file.chunks())
    assert commands.sent == ["find chunks"]
    assert commands.chunks == [0, 1]


def test_a_get_that_starts_further_on_is_one_query_of_the_chunks_it_touches(
    storage: GridFSStorage, commands: Exchanges
) -> None:
    data = os.urandom(4 * CHUNK + 1)
    storage.save_named("content", io.BytesIO(data))
    for start, chunk in [(2 * CHUNK + 5, 2), (4 * CHUNK, 4)]:
        commands.clear()
        with storage.open_named("content", len(data), start) as file:
            file.seek(start)
            assert file.read(9) == data[start : start + 9]
        assert commands.sent == ["find chunks"]
        assert commands.chunks == [chunk]


@pytest.mark.parametrize(
    ("start", "length", "touched"),
    [(0, 2048, [0]), (3 * CHUNK - 1, 2, [2, 3]), (7 * CHUNK, CHUNK, [7]), (40 * CHUNK - 5, 100, [39])],
)
def test_a_range_is_one_query_of_the_chunks_it_touches(
    storage: GridFSStorage, commands: Exchanges, start: int, length: int, touched: list[int]
) -> None:
    data = os.urandom(40 * CHUNK)
    storage.save_named("content", io.BytesIO(data))
    commands.clear()
    assert storage.read_range("content", start, length) == data[start : start + length]
    assert commands.sent == ["find files", "find chunks"]
    assert commands.chunks == touched


def test_reading_after_a_seek_is_one_query_of_the_chunks_it_touches(
    storage: GridFSStorage, commands: Exchanges
) -> None:
    storage.save_named("content", io.BytesIO(bytes(40 * CHUNK)))
    commands.clear()
    with storage.open("content") as file:
        file.seek(20 * CHUNK - 1)
        file.read(2)
    assert commands.sent == ["find files", "find chunks"]
    assert commands.chunks == [19, 20]


@pytest.mark.parametrize("count", [1, 200])
def test_a_remove_of_up_to_two_hundred_is_three_commands(
    storage: GridFSStorage, commands: Exchanges, count: int
) -> None:
    names = [f"{i}" for i in range(count)]
    for name in names:
        storage.save_named(name, io.BytesIO(b"abc"))
    commands.clear()
    storage.delete_many(names)
    assert commands.sent == ["find files", "delete chunks", "delete files"]
    assert storage._bucket.chunks.count_documents({}) == 0
