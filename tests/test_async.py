"""The store for coroutines: it does what the store does, blocks no event loop and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from typing import Any

import pytest
from django.db import connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncClient
from django.urls import re_path

from django_blobstore.errors import BlobstoreError, ContentDamaged, HashMismatch, LengthMismatch, ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource
from django_blobstore.serving import body
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import MIB, SeekableStream, Stream, content_of, sha384

HERE = Namespace(bucket="photos")
SMALL = content_of(4096)
LARGE = content_of(3 * MIB + 12_345)
SECONDS = 120

store = ManagedStorage()


async def in_blocks(content: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield b""
        await asyncio.sleep(0)
        yield content[start : start + size]


class Reader:
    """What many asynchronous files are: readable by `read`, and iterable by lines, which is something else."""

    def __init__(self, content: bytes) -> None:
        self.stream = Stream(content, at_most=200_000)

    async def read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return self.stream.read(size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a line"


async def read_all(path: str, blocks: list[bytes] | None = None) -> bytes:
    blocks = [] if blocks is None else blocks
    async with await store.aget(HERE, path) as file:
        async for block in file:
            blocks.append(block)
    return b"".join(blocks)


streams: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "a stream": Stream,
    "a seekable stream": lambda content: SeekableStream(content, lambda: None),
    "an asynchronous iterable": in_blocks,
    "an asynchronous reader": Reader,
}


def test_whatever_can_be_read_can_be_put_and_read_back(database: str, stored: Stored) -> None:
    async def scenario(kind: str, content: bytes) -> None:
        managed = await store.aput(HERE, "a", streams[kind](content), content_type="text/plain", metadata={"n": 1})
        assert (managed.resource.sha384, managed.resource.length) == (sha384(content), len(content)), kind
        found = await store.astat(HERE, "a")
        assert (found.pk, found.content_type, found.metadata) == (managed.pk, "text/plain", {"n": 1})
        assert await read_all("a") == content, kind
        async with await store.aopen(found) as file:
            assert await file.aread(10) + await file.aread() == content, kind
        await store.aremove(HERE, "a")
        with pytest.raises(ResourceNotFound):
            await store.aget(HERE, "a")

    for kind, content in product(streams, (b"", SMALL, LARGE)):
        asyncio.run(scenario(kind, content))
        assert_settled(stored)
    assert_empty(stored)


@pytest.mark.parametrize("kind", streams)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_content_that_is_not_what_was_said_leaves_nothing(
    database: str, stored: Stored, kind: str, content: bytes
) -> None:
    async def scenario() -> None:
        with pytest.raises(HashMismatch):
            await store.aput(HERE, "a", streams[kind](content), check_hash=sha384(b"other"))
        with pytest.raises(LengthMismatch):
            await store.aput(HERE, "a", streams[kind](content), len(content) + 1)

    asyncio.run(scenario())
    assert_empty(stored)


def test_content_stored_already_is_only_referred_to(database: str, stored: Stored) -> None:
    store.put(HERE, "a", LARGE)

    async def scenario() -> None:
        await asyncio.gather(*(store.aput(HERE, f"{n}", in_blocks(LARGE)) for n in range(3)))

    asyncio.run(scenario())
    assert Resource.objects.get().reference_count == 4
    assert_settled(stored)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_stream_that_breaks_leaves_nothing_and_its_error_is_the_callers(
    database: str, stored: Stored, content: bytes
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield content
        raise ConnectionResetError("the client went away")

    async def scenario() -> None:
        with pytest.raises(ConnectionResetError, match="the client went away"):
            await store.aput(HERE, "a", breaking())

    asyncio.run(scenario())
    assert_empty(stored)


def test_damaged_bytes_are_not_handed_out(database: str, stored: Stored) -> None:
    store.put(HERE, "a", LARGE)
    path = Resource.objects.get().path
    stored.storage.delete(path)
    store.resource_storage.put(path, b"x" + LARGE[1:])

    async def scenario() -> None:
        got: list[bytes] = []
        with pytest.raises(ContentDamaged):
            await read_all("a", got)
        assert [len(block) for block in got] == [MIB] * 3

    asyncio.run(scenario())
    assert Resource.objects.get().damaged_at is not None


def test_iteration_can_end_early_and_begin_again(database: str, stored: Stored) -> None:
    store.put(HERE, "a", LARGE)

    async def scenario() -> None:
        file = await store.aget(HERE, "a")
        blocks = file.achunks(1000)
        assert await anext(blocks) == LARGE[:1000]
        await blocks.aclose()  # type: ignore[attr-defined]
        assert b"".join([block async for block in file.achunks()]) == LARGE
        await file.aclose()
        assert file.closed

    asyncio.run(scenario())


async def until(condition: Callable[[], Any]) -> None:
    """Wait in the event loop until `condition` holds, which is asked in a thread."""
    deadline = time.monotonic() + SECONDS
    while not await asyncio.to_thread(asked, condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def asked(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    finally:
        connections.close_all()


async def cancelled(put: Awaitable[Any], *, once: Callable[[], Any]) -> None:
    """Cancel `put` as soon as `once` holds, and return when it has ended."""
    task = asyncio.ensure_future(put)
    await until(lambda: once() or task.done())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def stalling(content: bytes) -> AsyncIterator[bytes]:
    yield content
    await asyncio.sleep(3600)


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_cancelled_put_of_an_asynchronous_stream_changes_nothing_and_leaves_nothing(
    database: str, stored: Stored, before: bytes | None
) -> None:
    if before is not None:
        store.put(HERE, "a", before)
    names = stored.names()

    async def scenario() -> None:
        await cancelled(store.aput(HERE, "a", stalling(LARGE)), once=PendingFile.objects.exists)

    asyncio.run(scenario())
    assert stored.names() == names
    assert not PendingFile.objects.exists()
    if before is None:
        assert_empty(stored)
    else:
        assert store.get(HERE, "a").read() == before
    assert_settled(stored)


def test_a_put_cancelled_before_it_has_a_mib_leaves_nothing(database: str, stored: Stored) -> None:
    async def scenario() -> None:
        began = asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            yield SMALL
            began.set()
            await asyncio.sleep(3600)

        await cancelled(store.aput(HERE, "a", stream()), once=began.is_set)

    asyncio.run(scenario())
    assert_empty(stored)


def test_a_cancelled_put_of_a_blocking_stream_stops_reading_and_leaves_nothing(database: str, stored: Stored) -> None:
    reading, go_on, read_on = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        reading.set()
        assert go_on.wait(SECONDS)

    async def scenario() -> None:
        stream = Stream(LARGE, {2 * MIB: block, 2 * MIB + 1000: read_on.set}, at_most=MIB)
        put = asyncio.ensure_future(store.aput(HERE, "a", stream))
        await until(reading.is_set)
        put.cancel()
        await asyncio.sleep(0.1)
        assert not put.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await put

    asyncio.run(scenario())
    assert not read_on.is_set()
    assert_empty(stored)


def test_a_put_cancelled_twice_does_not_wait_and_leaves_what_a_sweep_removes(database: str, stored: Stored) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def block() -> None:
        reading.set()
        assert go_on.wait(SECONDS)

    async def scenario() -> None:
        put = asyncio.ensure_future(store.aput(HERE, "a", Stream(LARGE, {2 * MIB: block})))
        await until(reading.is_set)
        for _ in range(2):
            put.cancel()
            await asyncio.sleep(0.05)
        assert put.cancelled()
        assert await asyncio.to_thread(asked, PendingFile.objects.count) == 1
        go_on.set()
        await until(lambda: not PendingFile.objects.exists())

    asyncio.run(scenario())
    assert_empty(stored)


def test_cancelling_at_any_moment_leaves_all_or_nothing(database: str, stored: Stored) -> None:
    async def scenario() -> None:
        for delay in range(0, 120, 12):
            put = asyncio.ensure_future(store.aput(HERE, f"{delay}", in_blocks(content_of(2 * MIB, delay))))
            await asyncio.sleep(delay / 1000)
            put.cancel()
            await asyncio.wait([put])
            if not put.cancelled():
                put.result()

    asyncio.run(scenario())
    assert not PendingFile.objects.exists()
    assert_sound(stored)
    assert_settled(stored)


def test_a_stream_may_read_the_store_and_put_into_it(database: str, stored: Stored) -> None:
    """Nobody waits for a thread that waits for him, however many do this at once."""
    store.put(HERE, "source", LARGE)

    async def copied(n: int) -> AsyncIterator[bytes]:
        async with await store.aget(HERE, "source") as file:
            async for block in file:
                yield block
        await store.aput(HERE, f"inner/{n}", in_blocks(LARGE + b"!"))
        yield str(n).encode()

    async def scenario() -> None:
        await asyncio.gather(*(store.aput(HERE, f"outer/{n}", copied(n)) for n in range(20)))

    asyncio.run(scenario())
    assert ManagedResource.objects.count() == 41
    assert_settled(stored)


def test_puts_run_at_the_same_time(database: str, stored: Stored) -> None:
    together = threading.Barrier(4, timeout=SECONDS)

    async def scenario() -> None:
        contents = [content_of(2 * MIB, n) for n in range(4)]
        puts = (
            store.aput(HERE, str(n), Stream(content, {MIB + 1: together.wait})) for n, content in enumerate(contents)
        )
        await asyncio.gather(*puts)

    asyncio.run(scenario())
    assert ManagedResource.objects.count() == 4
    assert_settled(stored)


def test_the_event_loop_goes_on_while_bytes_move(database: str, stored: Stored) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        blocked.set()
        assert go_on.wait(SECONDS)

    async def scenario() -> None:
        put = asyncio.ensure_future(store.aput(HERE, "a", Stream(LARGE, {MIB: wait})))
        await until(blocked.is_set)
        await store.aput(HERE, "b", SMALL)
        assert await read_all("b") == SMALL
        await store.aremove(HERE, "b")
        assert not put.done()
        go_on.set()
        await put

    asyncio.run(scenario())
    assert store.get(HERE, "a").read() == LARGE


def test_no_database_connection_stays_open_unless_the_settings_say_so(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    connect = type(connections[database]).connect

    def noted(self: Any) -> None:
        opened.append(self)
        connect(self)

    monkeypatch.setattr(type(connections[database]), "connect", noted)

    async def scenario() -> None:
        await asyncio.gather(*(store.aput(HERE, str(n), content_of(1000 + n)) for n in range(8)))
        await store.aput(HERE, "large", in_blocks(LARGE))
        with pytest.raises(BlobstoreError):
            await store.aget(HERE, "nothing")

    asyncio.run(scenario())
    assert opened
    assert all(connection.connection is None for connection in opened)


async def view(request: HttpRequest, path: str) -> HttpResponseBase:
    if request.method == "PUT":
        managed = await store.aput(HERE, path, request)
        return HttpResponse(managed.resource.sha384)
    return StreamingHttpResponse(body(request, await store.aget(HERE, path)))


urlpatterns = [re_path("^(.+)$", view)]


@pytest.mark.urls(__name__)
def test_asynchronous_views_put_and_get_at_the_same_time(database: str, stored: Stored) -> None:
    contents = [content_of(length, length) for length in (1, 4096, MIB + 1, len(LARGE))]

    async def there_and_back(content: bytes) -> None:
        client = AsyncClient()
        url = f"/{len(content)}"
        assert (await client.put(url, content)).content.decode() == sha384(content)
        answer: Any = await client.get(url)
        assert b"".join([block async for block in answer.streaming_content]) == content
        await asyncio.to_thread(answer.close)

    async def scenario() -> None:
        await asyncio.gather(*map(there_and_back, contents))

    asyncio.run(scenario())
    assert ManagedResource.objects.count() == len(contents)
    assert_settled(stored)


def test_it_works_inside_another_loop_of_the_same_process(database: str, stored: Stored) -> None:
    for n in range(2):
        asyncio.run(store.aput(HERE, "a", in_blocks(content_of(2 * MIB, n))))  # type: ignore[arg-type]
        assert asyncio.run(read_all("a")) == content_of(2 * MIB, n)


@pytest.mark.parametrize("wrong", [7, "text", ["text"]])
def test_what_cannot_be_read_is_refused(database: str, stored: Stored, wrong: Any) -> None:
    async def scenario() -> None:
        with pytest.raises((TypeError, AttributeError)):
            await store.aput(HERE, "a", wrong)

    asyncio.run(scenario())
    assert_empty(stored)
