"""What lies in a GridFS bucket, found without holding more of it than a batch."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import bson
from bson import MaxKey, ObjectId
from pymongo import ASCENDING

from django_blobstore.storages.gridfs import GridFSStorage
from django_blobstore.storages.gridfs_bucket import Bucket, Document, named_id, retried
from django_blobstore.storages.gridfs_errors import told_as_os_errors

__all__ = ["Batch", "Fragment", "delete_fragments", "fragments", "lengths", "named_id"]

BATCH = 1000

_ID = "id"
_BY_FILE = [("files_id", ASCENDING), ("n", ASCENDING)]


@dataclass(frozen=True)
class Fragment:
    """The chunks of the file `id`, which is not there: `length` bytes, the last written at `modified_at` if known."""

    id: Any
    length: int
    modified_at: datetime | None


@dataclass(frozen=True)
class Batch:
    """Of the chunks of `files` ids, those whose file is not there; `place` is where the next batch begins."""

    fragments: list[Fragment]
    files: int
    place: str


@told_as_os_errors()
def lengths(storage: GridFSStorage, names: Sequence[str]) -> dict[str, int]:
    """Return the length in bytes of the newest revision of each of `names` that is there."""
    query = {"filename": {"$in": list(names)}}
    found = storage._bucket.files.find(query, {"_id": False, "filename": True, "length": True})
    oldest_first = found.sort([("uploadDate", ASCENDING), ("_id", ASCENDING)])
    return {document["filename"]: int(document["length"]) for document in oldest_first}


def fragments(storage: GridFSStorage, *, place: str = "") -> Iterator[Batch]:
    """Yield the chunks without a files document, by the ids of all, from the `place` of a batch before on."""
    bucket = storage._bucket
    with told_as_os_errors():
        for ids in _ids_of_chunks(bucket, place):
            known = {_key(document["_id"]) for document in bucket.files.find({"_id": {"$in": ids}}, {"_id": True})}
            unknown = [id for id in ids if _key(id) not in known]
            found = bucket.chunks.aggregate(_totals(unknown)) if unknown else ()
            yield Batch([_fragment(document) for document in found], len(ids), _place_after(ids[-1]))


@told_as_os_errors()
def delete_fragments(storage: GridFSStorage, id: Any) -> bool:
    """Delete the chunks `id` unless they have a files document by now; say whether they were."""
    bucket = storage._bucket
    if bucket.files.find_one({"_id": {"$eq": id}}, {"_id": True}):
        return False
    retried(lambda: bucket.chunks.delete_many({"files_id": {"$eq": id}}))
    return True


def _ids_of_chunks(bucket: Bucket, place: str) -> Iterator[list[Any]]:
    """Yield each distinct files_id there is, in batches, by reading the index from the last one of the batch before."""
    bucket.ensure_indexes()
    query = bucket.chunks.find({}, {"_id": False, "files_id": True}).hint(_BY_FILE).batch_size(BATCH).limit(BATCH)
    # The index has them in order, but a sharded cluster merges those of its shards in any, unless it is told.
    query.sort(_BY_FILE)
    if place:
        query.min(_after(_id_at(place)))
    while ids := [id for id, _ in groupby(chunk["files_id"] for chunk in query)]:
        yield ids
        query = query.clone().min(_after(ids[-1]))


def _after(id: Any) -> list[Any]:
    """Return where in the index the chunks of `id` end; no comparison, which would find ids of the same type only."""
    return [("files_id", id), ("n", MaxKey())]


def _place_after(id: Any) -> str:
    """Write `id`, which may be any BSON value, as text."""
    return urlsafe_b64encode(bson.encode({_ID: id})).decode()


def _id_at(place: str) -> Any:
    return bson.decode(urlsafe_b64decode(place))[_ID]


def _key(id: Any) -> Any:
    """Return what stands for `id` in a set: an id may be any BSON value, a document too."""
    return id if isinstance(id, Hashable) else repr(id)


def _totals(ids: list[Any]) -> list[Document]:
    length, newest = {"$sum": {"$binarySize": "$data"}}, {"$max": "$_id"}
    return [
        {"$match": {"files_id": {"$in": ids}}},
        {"$group": {"_id": "$files_id", "length": length, "newest": newest}},
    ]


def _fragment(document: Document) -> Fragment:
    newest = document["newest"]
    return Fragment(
        document["_id"], document["length"], newest.generation_time if isinstance(newest, ObjectId) else None
    )
