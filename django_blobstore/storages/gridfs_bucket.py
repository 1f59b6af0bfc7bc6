"""How a GridFS bucket is reached: which client, collections, concerns and indexes, and how its files are found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import islice
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from bson import ObjectId
from bson.codec_options import CodecOptions
from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient, ReadPreference, WriteConcern
from pymongo.driver_info import DriverInfo
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.synchronous.collection import Collection
from pymongo.synchronous.database import Database

from django_blobstore.failpoints import reach
from django_blobstore.storages.gridfs_errors import is_interruption, told_as_os_errors
from django_blobstore.storages.stored_file import DamagedFile

T = TypeVar("T")
Document = dict[str, Any]

DEFAULT_DATABASE = "blobstore"
# A primary whose machine hangs is given up after the sum of connectTimeoutMS and heartbeatFrequencyMS; an election
# may take 12 s by MongoDB's own defaults.
DEFAULT_CLIENT_OPTIONS: Mapping[str, Any] = {
    "appname": "django-blobstore",
    "connectTimeoutMS": 5_000,
    "heartbeatFrequencyMS": 5_000,
    "serverSelectionTimeoutMS": 15_000,
    "wtimeoutMS": 30_000,
}
WRITER_THREADS = 16
DELETE_BATCH = 200
ATTEMPTS = 3
NAMESPACE_NOT_FOUND = 26

_FILES_INDEX = IndexModel([("filename", ASCENDING), ("uploadDate", ASCENDING)])
_CHUNKS_INDEX = IndexModel([("files_id", ASCENDING), ("n", ASCENDING)], unique=True)


class CorruptFile(DamagedFile):
    """The stored file `name` lacks chunk `n`, or has another one there than its length and chunk size ask for."""

    def __init__(self, name: str, n: int, reason: str) -> None:
        super().__init__(f"The stored file {name!r} is corrupt: chunk {n} {reason}. Restore or save it again.")
        self.name = name
        self.n = n
        self.reason = reason


@dataclass(frozen=True)
class GridFSFile:
    """What a files document says: `length` and `chunk_size` in bytes, `uploaded_at` an aware UTC time."""

    id: Any
    name: str
    length: int
    chunk_size: int
    uploaded_at: datetime | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any], name: str) -> GridFSFile:
        return cls(
            document["_id"], name, int(document["length"]), int(document["chunkSize"]), document.get("uploadDate")
        )

    @property
    def chunk_count(self) -> int:
        return -(-self.length // self.chunk_size)

    def chunk_length(self, n: int) -> int:
        """Return the bytes that chunk `n` must have."""
        return min(self.chunk_size, self.length - n * self.chunk_size)

    def check_chunk(self, n: int, chunk: Mapping[str, Any] | None) -> bytes:
        """Return the data of `chunk` if it is the whole chunk `n`; raise `CorruptFile` otherwise."""
        if chunk is None or chunk["n"] != n:
            raise CorruptFile(self.name, n, "is missing")
        data: bytes = chunk["data"]
        if len(data) != self.chunk_length(n):
            raise CorruptFile(self.name, n, f"has {len(data)} bytes instead of {self.chunk_length(n)}")
        return data


class Bucket:
    """The two collections of one GridFS bucket, shared by every storage of this process that names it.

    Everything is written with majority and read from the primary, whatever the uri asks for. Reads are local: content
    is never changed under its id, and what was acknowledged by the majority is on the primary in any case.
    """

    def __init__(self, client: MongoClient[Document], database: str, namespace: str) -> None:
        wtimeout = client.write_concern.document.get("wtimeout")
        named = client[database] if database else client.get_default_database(default=DEFAULT_DATABASE)
        self.database: Database[Document] = named.with_options(
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", wtimeout=wtimeout),
            read_concern=ReadConcern("local"),
        )
        self.files: Collection[Document] = self.database[f"{namespace}.files"]
        self.chunks: Collection[Document] = self.database[f"{namespace}.chunks"]
        self.streams = True
        self.threads = ThreadPoolExecutor(WRITER_THREADS, thread_name_prefix="gridfs-writer")
        self._finishing = 0
        self._counting = Lock()
        self._indexed = False
        self._lock = Lock()

    @contextmanager
    def finishing(self) -> Iterator[bool]:
        """Take part in the count of uploads of this process in their last step; say whether this is the only one."""
        with self._counting:
            self._finishing += 1
            is_only_one = self._finishing == 1
        try:
            yield is_only_one
        finally:
            with self._counting:
                self._finishing -= 1

    @told_as_os_errors()
    def latest(self, name: str) -> GridFSFile:
        """Return the newest revision stored as `name`, or raise FileNotFoundError."""
        newest_first = [("uploadDate", DESCENDING), ("_id", DESCENDING)]
        document = retried(lambda: self.files.find_one({"filename": name}, sort=newest_first))
        if document is None:
            raise FileNotFoundError(f"No file {name!r} is stored in {self.files.full_name}.")
        return GridFSFile.from_document(document, name)

    @told_as_os_errors()
    def has(self, name: str, *, besides: Any = None) -> bool:
        """Tell whether a file is stored as `name`, other than the one with the id `besides`."""
        query: Document = {"filename": name}
        if besides is not None:
            query["_id"] = {"$ne": besides}
        return self.files.find_one(query, {"_id": True}) is not None

    def names(self, after: str = "") -> Iterator[str]:
        """Yield each stored name after `after` once, in the order of their UTF-8 bytes."""
        previous = after or None
        found = self.files.find(_name_range(after), {"_id": False, "filename": True}, batch_size=1000)
        with told_as_os_errors():
            for document in found.sort("filename"):
                if document["filename"] != previous:
                    previous = document["filename"]
                    yield previous

    @told_as_os_errors()
    def list_folder(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the folders and files right under `prefix`, which is empty or ends with a slash; sorted."""
        folders: list[str] = []
        files: list[str] = []
        for entry in self.files.aggregate(_folder_pipeline(prefix)):
            (folders if entry["_id"]["deeper"] else files).append(entry["_id"]["head"])
        return sorted(folders), sorted(files)

    @told_as_os_errors()
    def rename(self, file_id: Any, name: str) -> None:
        """Give the file with the id `file_id` another name."""
        self.files.update_one({"_id": {"$eq": file_id}}, {"$set": {"filename": name}})

    @told_as_os_errors()
    def delete_names(self, names: Iterable[str]) -> None:
        """Delete every revision of each of `names`, and what dead uploads by `named_id` left; absent ones are fine."""
        remaining = iter(names)
        while batch := list(islice(remaining, DELETE_BATCH)):
            self.delete_ids(retried(partial(self._ids, batch)) + [named_id(name) for name in batch])

    def _ids(self, names: list[str]) -> list[Any]:
        found = self.files.find({"filename": {"$in": names}}, {"_id": True}, batch_size=2 * DELETE_BATCH)
        return [document["_id"] for document in found]

    @told_as_os_errors()
    def delete_older(self, name: str) -> None:
        """Delete every revision of `name` but the newest."""
        newest_first = [("uploadDate", DESCENDING), ("_id", DESCENDING)]
        revisions = self.files.find({"filename": name}, {"_id": True}).sort(newest_first)
        self.delete_ids([document["_id"] for document in revisions][1:])

    @told_as_os_errors()
    def delete_ids(self, ids: Sequence[Any]) -> None:
        """Delete the chunks, then the files documents of `ids`.

        In this order a delete cut short leaves a file that can still be named, and deleted again.
        """
        if ids:
            retried(lambda: self.chunks.delete_many({"files_id": {"$in": ids}}))
            reach("gridfs.chunks_deleted")
            retried(lambda: self.files.delete_many({"_id": {"$in": ids}}))

    @told_as_os_errors()
    def ensure_indexes(self) -> None:
        """Create the two indexes of the GridFS specification where they are missing; asks the server once.

        Drivers do so for an empty bucket only, so a restored one would never have them.
        """
        if self._indexed:
            return
        with self._lock:
            for collection, index in self._missing_indexes():
                retried(partial(collection.create_indexes, [index]))
            self._indexed = True

    def problems(self) -> list[str]:
        """Return what would make this bucket slow or unsafe, one sentence each."""
        try:
            return [*self._topology_problems(), *self._index_problems()]
        except PyMongoError as error:
            return [f"MongoDB did not answer for {self.files.full_name}: {error}"]

    def _topology_problems(self) -> list[str]:
        hello = self.database.client.admin.command("hello")
        if "setName" in hello or hello.get("msg") == "isdbgrid":
            return []
        return [
            f"{self.files.full_name} is on a standalone server: nothing is retried or replicated there. "
            "Run it as a replica set, of one member if need be."
        ]

    def _index_problems(self) -> Iterator[str]:
        for collection, wanted in self._indexes():
            told = f"{collection.full_name} has no index on {', '.join(wanted.document['key'])}"
            index = _index_of(collection, wanted)
            if index is None and collection.find_one({}, {"_id": True}):
                yield f"{told}; the next write creates it, or GridFSStorage.ensure_indexes()."
            elif index and wanted.document.get("unique") and not index.get("unique"):
                yield (
                    f"{told} that is unique: two uploads by one name could mix their chunks. Drop {index['name']!r}, "
                    "then have GridFSStorage.ensure_indexes() create it."
                )

    def _missing_indexes(self) -> list[tuple[Collection[Document], IndexModel]]:
        return [(collection, wanted) for collection, wanted in self._indexes() if not _index_of(collection, wanted)]

    def _indexes(self) -> list[tuple[Collection[Document], IndexModel]]:
        """Return the two indexes of the GridFS specification."""
        return [(self.files, _FILES_INDEX), (self.chunks, _CHUNKS_INDEX)]


def named_id(name: str) -> ObjectId:
    """Return the id of the only file ever saved as `name`, so that its chunks can be found before it is complete."""
    return ObjectId(sha256(name.encode()).digest()[:12])


def _name_range(start: str = "", end: str | None = None) -> Document:
    """Return the query for file names from `start` up to `end` (excluded), which the index on filename answers."""
    bounds = {"$gte": start} if end is None else {"$gte": start, "$lt": end}
    return {"filename": bounds}


def _folder_pipeline(prefix: str) -> list[Document]:
    # "0" is the character after "/": everything under a prefix lies before it.
    query = _name_range(prefix, prefix[:-1] + "0" if prefix else None)
    rest = {"$substrBytes": ["$filename", len(prefix.encode()), -1]}
    return [
        {"$match": query},
        {"$project": {"_id": False, "parts": {"$split": [rest, "/"]}}},
        {
            "$group": {
                "_id": {"head": {"$first": "$parts"}, "deeper": {"$gt": [{"$size": "$parts"}, 1]}},
            }
        },
        {"$match": {"_id.head": {"$ne": ""}}},
    ]


def retried(operation: Callable[[], T]) -> T:
    """Return what `operation` returns, repeating it if it is interrupted. It must be safe to do twice."""
    for _ in range(ATTEMPTS - 1):
        try:
            return operation()
        except PyMongoError as error:
            if not is_interruption(error):
                raise
    return operation()


def bucket_for(uri: str, database: str, namespace: str, client_options: Mapping[str, Any]) -> Bucket:
    """Return this process's bucket `namespace`, with a client shared by all buckets of equal `uri` and options."""
    client_key = (os.getpid(), uri, repr(sorted(client_options.items())))
    bucket_key = (*client_key, database, namespace)
    if bucket_key not in _buckets:
        with _creating:
            if client_key not in _clients:
                _clients[client_key] = _connect(uri, client_options)
            _buckets.setdefault(bucket_key, Bucket(_clients[client_key], database, namespace))
    return _buckets[bucket_key]


# A client must not be used after a fork, nor closed there: the parent's stay in these, under another process id.
_clients: dict[tuple[Any, ...], MongoClient[Document]] = {}
_buckets: dict[tuple[Any, ...], Bucket] = {}
_creating = Lock()


def _renew_lock() -> None:
    global _creating
    _creating = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _connect(uri: str, client_options: Mapping[str, Any]) -> MongoClient[Document]:
    in_uri = {key.lower() for key, _ in parse_qsl(uri.partition("?")[2])}
    defaults = {key: value for key, value in DEFAULT_CLIENT_OPTIONS.items() if key.lower() not in in_uri}
    return MongoClient(uri, **{"driver": DriverInfo("django-blobstore"), **defaults, **client_options})


def _index_of(collection: Collection[Document], wanted: IndexModel) -> Mapping[str, Any] | None:
    """Return the index on the keys of `wanted`, unique or not."""
    keys = list(wanted.document["key"].items())
    try:
        return next((index for index in collection.list_indexes() if list(index["key"].items()) == keys), None)
    except OperationFailure as error:
        if error.code == NAMESPACE_NOT_FOUND:
            return None
        raise
