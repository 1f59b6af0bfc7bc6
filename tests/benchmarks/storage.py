"""The storage alone against stock pymongo GridFS, bare inserts and finds, and S3 (moto, in a process of its own).

Ours is the path the store uses: `ResourceStorage` over `GridFSStorage`, the SHA-384 of what is put included. Everything
is acknowledged by the majority, on one mongod in memory. django-gridfs-storage takes part where it is installed.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import gridfs
from bson import ObjectId
from pymongo import MongoClient, WriteConcern

from example_project import processes
from tests.benchmarks.duel import Options, Row, duel
from tests.benchmarks.ground import MIB, Bytes, deployment

KIB = 1024
CHUNK = 255 * KIB
THREADS = 8
CONTENT = os.urandom(64 * MIB)
WITH_HASH, WITHOUT_HASH, CEILING = "stock upload + sha384", "stock upload", "bare inserts of the chunks"
# Of each size its name and how many are timed together: what one side leaves in the caches is not the other's fault.
SIZES = {64 * MIB: ("64 MiB", 2), MIB: ("1 MiB", 20), 4 * KIB: ("4 KiB", 100)}


def rows(options: Options) -> Iterator[Row]:
    with deployment() as directory, ThreadPoolExecutor(THREADS) as threads:
        sides = Sides(threads)
        yield from puts(sides, options.rounds)
        yield from gets(sides, options.rounds)
        yield ranges(sides, options.rounds)
        with moto(directory / "moto.log") as url:
            yield from against_s3(sides, url, min(options.rounds, 5))
        if find_spec("gridfs_storage"):
            yield from against_django_gridfs_storage(sides, options.rounds)


def puts(sides: Sides, rounds: int) -> Iterator[Row]:
    for size, at_least in ((64 * MIB, 1.5), (MIB, 1.35), (4 * KIB, 2.0)):
        (name, each), content = SIZES[size], CONTENT[:size]
        compare = partial(duel, rounds=rounds, each=each, between=sides.empty)
        yield compare(
            f"put {name}",
            partial(sides.put, content),
            partial(sides.stock_put, content),
            against=WITH_HASH,
            at_least=at_least,
        )
        yield compare(
            f"put {name}, no hash",
            partial(sides.put_unhashed, content),
            partial(sides.stock_put_unhashed, content),
            against=WITHOUT_HASH,
        )
        yield compare(f"put {name}", partial(sides.put, content), partial(sides.bare_put, content), against=CEILING)
    ours, stock = sides.at_once(sides.put), sides.at_once(sides.stock_put)
    compare = partial(duel, rounds=rounds, between=sides.empty)
    yield compare("160 puts of 4 KiB, 8 threads", ours, stock, against=WITH_HASH, at_least=2.0)


def gets(sides: Sides, rounds: int) -> Iterator[Row]:
    for size, at_least in ((64 * MIB, 1.8), (4 * KIB, 2.2)):
        (name, each), path, stored = SIZES[size], fresh_path(), ObjectId()
        sides.ours.put(path, CONTENT[:size])
        sides.stock.upload_from_stream_with_id(stored, "content", CONTENT[:size])
        ours = partial(sides.get, path, size)
        compare = partial(duel, f"get {name}", ours, rounds=rounds, each=each)
        yield compare(partial(sides.stock_get, stored), against="stock download_to_stream", at_least=at_least)
        yield compare(partial(sides.bare_get, stored), against="bare find of the chunks")
    yield duel(
        "160 gets of 4 KiB, 8 threads",
        sides.at_once(ours),
        sides.at_once(partial(sides.stock_get, stored)),
        against="stock download_to_stream",
        rounds=rounds,
    )


def ranges(sides: Sides, rounds: int) -> Row:
    """Compare reads of 2 KiB at the same places."""
    size, path = 512 * MIB, fresh_path()
    sides.ours.put(path, Bytes(size))  # type: ignore[arg-type]
    ours, stock = random.Random(1), random.Random(1)
    stored = sides.stock_of_ours.open_download_stream_by_name

    def stock_range() -> None:
        with stored(path) as file:
            file.seek(stock.randrange(size))
            file.read(2 * KIB)

    return duel(
        "2 KiB range of 512 MiB",
        lambda: sides.ours.read_range(path, ours.randrange(size), 2 * KIB),
        stock_range,
        against="GridOut seek + read",
        at_least=8,
        rounds=rounds,
        each=5,
    )


def against_s3(sides: Sides, url: str, rounds: int) -> Iterator[Row]:
    from storages.backends.s3 import S3Storage

    keys = {"access_key": "test", "secret_key": "test", "region_name": "us-east-1"}
    peer = S3Storage(bucket_name="benchmark", endpoint_url=url, **keys)
    peer.connection.create_bucket(Bucket="benchmark")
    yield from against_storage(sides, peer, "django-storages' S3Storage on moto", rounds)


def against_django_gridfs_storage(sides: Sides, rounds: int) -> Iterator[Row]:
    from django.conf import settings

    settings.DEFAULT_GRIDFS_URL = sides.uri
    from gridfs_storage.storage import GridFSStorage

    yield from against_storage(sides, GridFSStorage(), "django-gridfs-storage", rounds)


def against_storage(sides: Sides, peer: Any, against: str, rounds: int) -> Iterator[Row]:
    """Compare with another Django storage; what it is given is hashed before."""
    from django.core.files.base import ContentFile

    def save(content: bytes) -> str:
        hashlib.sha384(content).hexdigest()
        return str(peer.save(fresh_path(), ContentFile(content)))

    def read(name: str) -> None:
        with peer.open(name) as file:
            while file.read(MIB):
                pass

    for size in (64 * MIB, 4 * KIB):
        (name, each), content, path = SIZES[size], CONTENT[:size], fresh_path()
        compare = partial(duel, rounds=rounds, each=each, against=against)
        yield compare(f"put {name}", partial(sides.put, content), partial(save, content), between=sides.empty)
        sides.ours.put(path, content)
        yield compare(f"get {name}", partial(sides.get, path, size), partial(read, save(content)))


class Sides:
    """Ours and the stock driver on the same server, in collections of their own."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        from django_blobstore.resource_storage import ResourceStorage

        self.ours = ResourceStorage()
        self.ours.put(fresh_path(), b"made")
        storage: Any = self.ours.storage
        self.uri: str = storage.uri
        client = MongoClient[dict[str, Any]](self.uri)
        stock, ours = (
            client[name].with_options(write_concern=WriteConcern("majority")) for name in ("stock", storage.database)
        )
        self.stock = gridfs.GridFSBucket(stock)
        self.stock.upload_from_stream("made", b"made")
        self.stock_of_ours = gridfs.GridFSBucket(ours, storage.namespace)
        self._bare = stock["bare"]
        self._bare.create_index([("files_id", 1), ("n", 1)], unique=True)
        self._chunks = stock["fs.chunks"]
        ours_too = [ours[f"{storage.namespace}.{part}"] for part in ("files", "chunks")]
        self._all = [self._bare, stock["fs.files"], self._chunks, *ours_too]
        self._threads = threads

    def empty(self) -> None:
        """Delete all there is; the indexes stay."""
        for collection in self._all:
            collection.delete_many({})

    def put(self, content: bytes = CONTENT[: 4 * KIB]) -> None:
        self.ours.put(fresh_path(), content)

    def put_unhashed(self, content: bytes) -> None:
        self.ours.write(fresh_path(), BytesIO(content))

    def stock_put(self, content: bytes = CONTENT[: 4 * KIB]) -> None:
        hashed, source = hashlib.sha384(), BytesIO(content)
        with self.stock.open_upload_stream(fresh_path()) as upload:
            while block := source.read(MIB):
                hashed.update(block)
                upload.write(block)

    def stock_put_unhashed(self, content: bytes) -> None:
        self.stock.upload_from_stream(fresh_path(), content)

    def bare_put(self, content: bytes) -> None:
        """Insert 4 MiB of chunks at a time, one after the other, and nothing else."""
        file_id = ObjectId()
        starts = range(0, len(content), CHUNK)
        chunks = [
            {"files_id": file_id, "n": n, "data": content[start : start + CHUNK]} for n, start in enumerate(starts)
        ]
        for first in range(0, len(chunks), 16):
            self._bare.insert_many(chunks[first : first + 16])

    def get(self, path: str, length: int) -> None:
        with self.ours.get(path, length) as file:
            for _ in file.chunks():
                pass

    def stock_get(self, file_id: ObjectId) -> None:
        self.stock.download_to_stream(file_id, Nowhere())

    def bare_get(self, file_id: ObjectId) -> None:
        for chunk in self._chunks.find({"files_id": file_id}).sort("n"):
            _ = chunk["data"]

    def at_once(self, do: Callable[[], None]) -> Callable[[], None]:
        """Return what does it twenty times in each of eight threads."""

        def many() -> None:
            for _ in range(20):
                do()

        def all_done() -> None:
            for future in [self._threads.submit(many) for _ in range(THREADS)]:
                future.result()

        return all_done


class Nowhere:
    """A sink."""

    def write(self, data: bytes) -> int:
        return len(data)


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """Run an S3 server and yield its URL."""
    process = processes.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], log=log)
    try:
        deadline = time.monotonic() + 30
        while not (address := re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto did not start; its log ends:\n{processes.last_lines(log)}")
            time.sleep(0.1)
        yield address.group()
    finally:
        processes.stop(process)


def fresh_path() -> str:
    return uuid.uuid4().hex
