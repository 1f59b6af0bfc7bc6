"""The whole store, catalog and verification included, against stock pymongo GridFS, which has neither.

The catalog is in PostgreSQL with fsync, its data and mongod's in memory. Every content put is new unless a row says
otherwise. The rows without a target say what the twins for coroutines cost.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import count
from typing import Any

from bson import ObjectId

from tests.benchmarks.duel import Options, Row, duel
from tests.benchmarks.ground import MIB, deployment
from tests.benchmarks.storage import CONTENT, SIZES, Sides

KIB = 1024
THREADS = 16
AT_ONCE = 64
PUT, GET = "stock upload + sha384, no catalog", "stock download_to_stream, no catalog"


def rows(options: Options) -> Iterator[Row]:
    with deployment(postgresql=True), ThreadPoolExecutor(THREADS) as threads:
        sides = StoreSides(threads)
        yield from puts(sides, options.rounds)
        yield from gets(sides, options.rounds)
        yield put_again(sides, options.rounds)
        yield from coroutines(sides, options.rounds)
        sides.close()


def puts(sides: StoreSides, rounds: int) -> Iterator[Row]:
    for size, at_least in ((64 * MIB, 1.3), (4 * KIB, 0.8)):
        name, each = SIZES[size]
        yield duel(
            f"ManagedStorage.put {name}",
            partial(sides.put, size),
            partial(sides.stock_put, size),
            against=PUT,
            at_least=at_least,
            rounds=rounds,
            each=each,
            between=sides.empty,
        )


def gets(sides: StoreSides, rounds: int) -> Iterator[Row]:
    for size, at_least in ((64 * MIB, 1.7), (4 * KIB, 1.0)):
        (name, each), stored = SIZES[size], ObjectId()
        sides.put(size, "got")
        sides.stock.upload_from_stream_with_id(stored, "content", CONTENT[:size])
        ours, stock = partial(sides.get, "got"), partial(sides.stock_get, stored)
        compare = partial(duel, f"ManagedStorage.get {name}", ours, against=GET, rounds=rounds, each=each)
        yield compare(stock, at_least=at_least)
    sides.empty()


def put_again(sides: StoreSides, rounds: int) -> Row:
    """Compare a put of what is stored already, whose hash is said, with hashing it."""
    sha384 = hashlib.sha384(CONTENT).hexdigest()
    sides.store.put(sides.here, "stored", CONTENT)

    def put() -> None:
        sides.store.put(sides.here, "again", BytesIO(CONTENT), check_hash=sha384)

    def only_hash() -> None:
        stream, running = BytesIO(CONTENT), hashlib.sha384()
        while block := stream.read(MIB):
            running.update(block)

    return duel("put 64 MiB stored already", put, only_hash, against="sha384 alone", at_least=0.85, rounds=rounds)


def coroutines(sides: StoreSides, rounds: int) -> Iterator[Row]:
    """Compare many calls at once from one event loop with as many from sixteen threads."""
    sides.put(4 * KIB, "got")
    sides.put(64 * MIB, "large")
    for work, number, do, sync in (
        ("256 agets of 4 KiB, 64 at once", 256, partial(sides.aget, "got"), partial(sides.get, "got")),
        ("256 aputs of 4 KiB, 64 at once", 256, sides.aput, partial(sides.put, 4 * KIB)),
        ("4 agets of 64 MiB at once", 4, partial(sides.aget, "large"), partial(sides.get, "large")),
    ):
        ours, peer = partial(in_one_loop, do, number), partial(sides.in_threads, sync, number)
        yield duel(work, ours, peer, against=f"{THREADS} threads of the sync API", rounds=rounds)


class StoreSides(Sides):
    """The store beside the stock driver."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        super().__init__(threads)
        from django_blobstore.managed import ManagedStorage, Namespace

        self.store = ManagedStorage()
        self.here = Namespace(bucket="benchmark")
        self._numbers = count(1)

    def put(self, size: int, path: str = "") -> None:
        number = next(self._numbers)
        self.store.put(self.here, path or str(number), Fresh(size, number))

    def stock_put(self, size: int) -> None:
        hashed, source = hashlib.sha384(), Fresh(size, next(self._numbers))
        with self.stock.open_upload_stream("content") as upload:
            while block := source.read(MIB):
                hashed.update(block)
                upload.write(block)

    def get(self, path: str) -> None:
        with self.store.get(self.here, path) as file:
            for _ in file.chunks():
                pass

    async def aget(self, path: str) -> None:
        async with await self.store.aget(self.here, path) as file:
            async for _ in file:
                pass

    async def aput(self) -> None:
        number = next(self._numbers)
        await self.store.aput(self.here, str(number), Fresh(4 * KIB, number))

    def in_threads(self, do: Callable[[], None], number: int) -> None:
        for future in [self._threads.submit(do) for _ in range(number)]:
            future.result()

    def empty(self) -> None:
        """Forget every object and delete every byte."""
        from django_blobstore.models import ManagedResource, PendingFile

        self.store.remove_all(ManagedResource.objects.all())
        PendingFile.objects.all().delete()
        super().empty()

    def close(self) -> None:
        """Let go of the database."""
        from django.db import connections

        from django_blobstore import offload

        for threads in (self._threads, offload._threads):
            threads.shutdown()
        connections.close_all()


class Fresh:
    """`size` bytes that no other number gives."""

    def __init__(self, size: int, number: int) -> None:
        self.size = size
        self.number = number
        self.position = 0

    def read(self, size: int) -> bytes:
        start, self.position = self.position, min(self.position + size, self.size)
        block = CONTENT[start : self.position]
        return block if start else self.number.to_bytes(16) + block[16:]


def in_one_loop(do: Callable[[], Coroutine[Any, Any, None]], number: int) -> None:
    """Do it `number` times, at most 64 at once."""

    async def one(turn: asyncio.Semaphore) -> None:
        async with turn:
            await do()

    async def all_of_them() -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(turn) for _ in range(number)))

    asyncio.run(all_of_them())
