"""The kinds of storage that tests run on: how each is configured, and how to see everything that is left in it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from django.core.files.storage import Storage, storages
from pymongo import MongoClient
from pytest_django import Settings

from django_blobstore.storages import gridfs_bucket
from django_blobstore.storages.gridfs_bucket import retried

ALIAS = "blobstore"
ELSEWHERE = "elsewhere"
# Ends the key of the client that nearly all tests share, which stays.
NO_OPTIONS = repr([])


class Stored:
    """An empty storage under an alias, "blobstore" by default, and what a test may ask about it.

    `options` is its entry in STORAGES. `names` looks past the storage, at the bytes themselves, where it can. Where a
    store spans several, those under other aliases are `beside` the one of new files.
    """

    kind: str
    options: dict[str, Any]
    alias: str = ALIAS
    beside: tuple[Stored, ...] = ()

    @property
    def storage(self) -> Storage:
        """The storage as Django makes it."""
        return storages[self.alias]

    def stand_beside(self, other: Stored, settings: Any) -> None:
        """Become, under the alias "elsewhere", a second storage of the store that has `other`."""
        self.alias = ELSEWHERE
        settings.STORAGES = {**settings.STORAGES, ELSEWHERE: self.options}
        other.beside = (*other.beside, self)

    def names_everywhere(self) -> set[str]:
        """Return what `names` does, of all storages of the store."""
        return self.names().union(*(other.names() for other in self.beside))

    def names(self) -> set[str]:
        """Return the name of every file there is, and of every fragment that no file owns."""
        return set(_walk(self.storage, ""))

    def clear(self) -> None:
        """Remove every byte."""
        for name in self.names():
            self.storage.delete(name)


class StoredInMemory(Stored):
    kind = "memory"
    options = {"BACKEND": "django.core.files.storage.InMemoryStorage"}


@dataclass
class StoredInFiles(Stored):
    directory: Path
    kind = "files"

    def __post_init__(self) -> None:
        location = {"location": str(self.directory)}
        self.options = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": location}

    def names(self) -> set[str]:
        found = (Path(folder, file) for folder, _, files in os.walk(self.directory) for file in files)
        return {path.relative_to(self.directory).as_posix() for path in found}


@dataclass
class StoredInGridFS(Stored):
    uri: str
    database: str
    namespace: str = "blobs"
    kind = "gridfs"

    def __post_init__(self) -> None:
        location = {"uri": self.uri, "database": self.database, "namespace": self.namespace}
        self.options = {"BACKEND": "django_blobstore.storages.GridFSStorage", "OPTIONS": location}

    @cached_property
    def client(self) -> MongoClient[dict[str, Any]]:
        """A way to MongoDB past the storage."""
        return MongoClient(self.uri)

    def names(self) -> set[str]:
        files, chunks = (self.client[self.database][f"{self.namespace}.{part}"] for part in ("files", "chunks"))
        filenames = {file["_id"]: file["filename"] for file in files.find()}
        orphans = set(chunks.distinct("files_id")) - set(filenames)
        return set(filenames.values()) | {f"chunks without a file: {file_id}" for file_id in orphans}

    def clear(self) -> None:
        # The collections stay: a running site made their indexes once and would not again.
        for part in ("files", "chunks"):
            self.client[self.database][f"{self.namespace}.{part}"].delete_many({})


@dataclass
class StoredInS3(Stored):
    url: str
    bucket: str
    kind = "s3"

    def __post_init__(self) -> None:
        location = {"bucket_name": self.bucket, "endpoint_url": self.url, "region_name": "us-east-1"}
        keys = {"access_key": "test", "secret_key": "test"}
        self.options = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": location | keys}


@contextmanager
def used_by_all(stored: Stored, settings: Settings) -> Iterator[Stored]:
    """Make `stored`, which stays between tests, the storage of this one, and leave it empty."""
    settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
    assert stored.storage  # see the fixture `stored` in tests/conftest.py
    yield stored
    stored.clear()


@contextmanager
def in_gridfs(uri: str) -> Iterator[StoredInGridFS]:
    """Yield a storage in a MongoDB database of its own, which is dropped afterwards."""
    stored = StoredInGridFS(uri, f"test_{uuid.uuid4().hex}")
    try:
        yield stored
    finally:
        # MongoDB does not repeat it by itself when the primary of a set has changed.
        retried(lambda: stored.client.drop_database(stored.database))
        stored.client.close()
        _end_threads(stored.database)


def _end_threads(database: str) -> None:
    """End the threads of the storages in `database`, and clients that only they used.

    Those of a thousand tests, each waking up from time to time, would take more of the processor than the tests.
    """
    buckets, clients = gridfs_bucket._buckets, gridfs_bucket._clients
    for key in [key for key, bucket in buckets.items() if bucket.database.name == database]:
        buckets.pop(key).threads.shutdown(wait=False)
    used = {id(bucket.database.client) for bucket in buckets.values()}
    for key in [key for key, client in clients.items() if id(client) not in used and key[-1] != NO_OPTIONS]:
        clients.pop(key).close()


@contextmanager
def in_s3(url: str) -> Iterator[StoredInS3]:
    """Yield a storage in an S3 bucket of its own."""
    stored = StoredInS3(url, f"test-{uuid.uuid4().hex}")
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket=stored.bucket)
    yield stored


def _walk(storage: Storage, directory: str) -> Iterator[str]:
    folders, names = storage.listdir(directory)
    yield from (directory + name for name in names)
    for folder in folders:
        yield from _walk(storage, f"{directory}{folder}/")
