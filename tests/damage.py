"""Ways to damage what is stored behind the store's back: bytes, chunks, files and counts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bson import ObjectId
from django.db import connections
from pymongo import MongoClient
from pymongo.database import Database

from django_blobstore import usage
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.transactions import transact
from tests.routers import OneDatabase
from tests.stored import Stored, StoredInFiles, StoredInGridFS

LONG_AGO = datetime.now(UTC) - timedelta(days=2)


def flip(stored: Stored, path: str, position: int) -> None:
    """Change one bit of the stored byte at `position`."""
    if isinstance(stored, StoredInFiles):
        _rewrite(stored.directory / path, lambda data: _flipped(data, position))
        return
    with chunks_of(stored, path) as (database, id, prefix):
        for chunk in database[f"{prefix}.chunks"].find({"files_id": id}).sort("n"):
            if position < len(chunk["data"]):
                data = _flipped(chunk["data"], position)
                database[f"{prefix}.chunks"].update_one({"_id": chunk["_id"]}, {"$set": {"data": data}})
                return
            position -= len(chunk["data"])


def truncate(stored: Stored, path: str) -> None:
    """Cut the last byte off."""
    if isinstance(stored, StoredInFiles):
        _rewrite(stored.directory / path, lambda data: data[:-1])
        return
    with chunks_of(stored, path) as (database, id, prefix):
        last = database[f"{prefix}.chunks"].find_one({"files_id": id}, sort=[("n", -1)])
        cut = {"$set": {"data": last["data"][:-1]}}
        database[f"{prefix}.chunks"].update_one({"_id": last["_id"]}, cut)
        database[f"{prefix}.files"].update_one({"_id": id}, {"$inc": {"length": -1}})


def drop_chunk(stored: Stored, path: str, n: int) -> None:
    """Delete one chunk; of a plain file, the bytes from there on."""
    if isinstance(stored, StoredInFiles):
        _rewrite(stored.directory / path, lambda data: data[: n * 1000])
        return
    with chunks_of(stored, path) as (database, id, prefix):
        assert database[f"{prefix}.chunks"].delete_one({"files_id": id, "n": n}).deleted_count == 1


def drop_files_document(stored: StoredInGridFS, path: str) -> None:
    """Leave the chunks without a file."""
    with chunks_of(stored, path) as (database, id, prefix):
        database[f"{prefix}.files"].delete_one({"_id": id})


def make_old(stored: Stored) -> None:
    """Let everything stored seem to be written two days ago."""
    if isinstance(stored, StoredInFiles):
        for path in stored.directory.rglob("*"):
            os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
        return
    assert isinstance(stored, StoredInGridFS)
    with MongoClient[dict[str, Any]](stored.uri) as client:
        files, chunks = (client[stored.database][f"{stored.namespace}.{part}"] for part in ("files", "chunks"))
        files.update_many({}, {"$set": {"uploadDate": LONG_AGO}})
        for chunk in list(chunks.find()):
            chunks.delete_one({"_id": chunk["_id"]})
            chunks.insert_one({**chunk, "_id": _old_id()})


def add_chunks(stored: StoredInGridFS, id: Any, sizes: list[int]) -> None:
    """Store chunks of a file that is not there."""
    with MongoClient[dict[str, Any]](stored.uri) as client:
        chunks = client[stored.database][f"{stored.namespace}.chunks"]
        chunks.insert_many({"files_id": id, "n": n, "data": bytes(size)} for n, size in enumerate(sizes))


def count_chunks(stored: StoredInGridFS, id: Any) -> int:
    with MongoClient[dict[str, Any]](stored.uri) as client:
        return client[stored.database][f"{stored.namespace}.chunks"].count_documents({"files_id": {"$eq": id}})


def set_count(resource: Resource, count: int) -> None:
    """Let the reference count drift."""
    _execute(f"UPDATE {Resource._meta.db_table} SET reference_count = %s WHERE id = %s", [count, resource.pk])


def delete_row(managed: ManagedResource) -> None:
    """Delete an object without taking it from the reference count; only the totals go on being right."""
    _execute(f"DELETE FROM {ManagedResource._meta.db_table} WHERE id = %s", [managed.pk])
    correct_totals(managed)


def correct_totals(managed: ManagedResource) -> None:
    """Let the totals of the namespace of `managed` be right again."""
    using = OneDatabase.alias
    transact(using, partial(usage.correct, using, managed.namespace))


def delete_resource(resource: Resource) -> None:
    """Delete a resource that objects refer to, as a database lets its owner do."""
    vendor = connections[OneDatabase.alias].vendor
    off, on = {
        "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON"),
        "postgresql": ("SET session_replication_role = replica", "SET session_replication_role = DEFAULT"),
    }[vendor]
    _execute(off, [])
    _execute(f"DELETE FROM {Resource._meta.db_table} WHERE id = %s", [resource.pk])
    _execute(on, [])
    for managed in ManagedResource.objects.filter(resource_id=resource.pk):
        correct_totals(managed)


@contextmanager
def chunks_of(stored: Stored, path: str) -> Iterator[tuple[Database[dict[str, Any]], Any, str]]:
    assert isinstance(stored, StoredInGridFS)
    with MongoClient[dict[str, Any]](stored.uri) as client:
        database = client[stored.database]
        file = database[f"{stored.namespace}.files"].find_one({"filename": path})
        assert file is not None
        yield database, file["_id"], stored.namespace


def _execute(sql: str, parameters: list[Any]) -> None:
    with connections[OneDatabase.alias].cursor() as cursor:
        cursor.execute(sql, parameters)


def _rewrite(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def _old_id() -> ObjectId:
    fresh = ObjectId().binary
    return ObjectId(int(time.time() - 2 * 86400).to_bytes(4) + fresh[4:])
