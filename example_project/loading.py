"""How a bucket of many objects is made in little time, as if each of them had been put: rows and files in bulk."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from hashlib import sha256, sha384
from io import BytesIO
from itertools import islice
from typing import Any

from django.core.files.storage import Storage
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource, Usage
from django_blobstore.resource_storage import ResourceStorage, fresh_path
from django_blobstore.storages import GridFSStorage
from django_blobstore.storages.gridfs_bucket import named_id

BATCH = 2_000
LEASE = timedelta(hours=2)
APART = timedelta(seconds=30)
OBJECT_COLUMNS = ("bucket_id", "user", "path", "resource_id", "content_type", "metadata", "created_at", "modified_at")

# Of a hundred contents so many have so many bytes.
SIZES = [200] * 60 + [1_000] * 30 + [4_000] * 9 + [32_000]

Progress = Callable[[str, int, int], object]


class BucketNotEmpty(Exception):
    """A bucket can be loaded only once, or its paths would be there twice."""


@dataclass(frozen=True)
class File:
    """A stored content: the storage path of its file, its hashes in hex and its length."""

    path: str
    sha384: str
    sha256: str
    length: int


def load_bucket(
    name: str, *, objects: int = 1_000_000, contents: int = 100_000, on_progress: Progress = lambda *_: None
) -> Bucket:
    """Make the bucket `name` of `objects` objects that refer to `contents` contents of its own, some far more often.

    Each file is named by a `PendingFile` until the one transaction that writes the rows, so that nothing stays of a run
    that was killed once a sweep has followed. Raises `BucketNotEmpty`.
    """
    bucket, _ = Bucket.objects.get_or_create(uuid=Namespace.of_bucket(name).bucket_id, defaults={"name": name})
    if bucket.managed_resources.exists():
        raise BucketNotEmpty(f"There are objects in the bucket {bucket}; choose another name.")
    shared = _references(objects, min(contents, objects))
    files = list(_stored_files(bucket, min(contents, objects), on_progress))
    connection = connections[ManagedStorage().catalog.using]
    with transaction.atomic(connection.alias):
        PendingFile.objects.filter(bucket=bucket, discard=False).delete()
        keys = _write_resources(bucket, files, shared, on_progress)
        _write_objects(connection, bucket, keys, shared, on_progress)
        lengths = [file.length for file in files]
        logical = sum(lengths[number] for number in shared)
        Usage.objects.create(
            bucket=bucket, stripe=0, object_count=objects, logical_bytes=logical, stored_bytes=sum(lengths)
        )
    with connection.cursor() as cursor:
        # What a database does by itself, but later.
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
    return bucket


def path_of(number: int) -> tuple[str, str]:
    """Return the path of an object and its media type: a few on top, a large folder, and a tree of small ones."""
    if number < 10:
        return f"notes-{number}.txt", "text/plain"
    if number % 20 == 0:
        return f"inbox/{number:09}.eml", "message/rfc822"
    if number % 20 == 1:
        return f"logs/{2020 + number % 7}/{number % 12 + 1:02}/{number:09}.log", "text/plain"
    folder = number // 250
    kind = ("drafts", "photos", "final")[number % 3]
    return f"clients/{folder % 97:02}/projects/{folder // 97:04}/{kind}/{number:09}.jpg", "image/jpeg"


def _references(objects: int, contents: int) -> array[int]:
    """Return the number of the content of each object: each content once, and the first ones again and again."""
    chance = random.Random(0)
    numbers = array("L", range(contents))
    numbers.extend(int(contents * chance.random() ** 3) for _ in range(objects - contents))
    chance.shuffle(numbers)
    return numbers


def _stored_files(bucket: Bucket, count: int, on_progress: Progress) -> Iterator[File]:
    """Write the contents to the storage, a batch at a time."""
    storage = ResourceStorage()
    for first in range(0, count, BATCH):
        contents = [_content(bucket, number) for number in range(first, min(first + BATCH, count))]
        files = [File(fresh_path(), sha384(c).hexdigest(), sha256(c).hexdigest(), len(c)) for c in contents]
        lease = timezone.now() + LEASE
        PendingFile.objects.bulk_create(
            PendingFile(path=file.path, storage=storage.alias, bucket=bucket, length=file.length, lease_until=lease)
            for file in files
        )
        _write_files(storage, [file.path for file in files], contents)
        yield from files
        on_progress("contents", first + len(files), count)


def _content(bucket: Bucket, number: int) -> bytes:
    """Return bytes that no other bucket has."""
    title = f"{bucket.pk} {number}\n".encode()
    return title.ljust(SIZES[number % len(SIZES)], b".")


def _write_files(storage: ResourceStorage, paths: Sequence[str], contents: Sequence[bytes]) -> None:
    if isinstance(storage.storage, GridFSStorage):
        _insert_into_gridfs(storage.storage, paths, contents)
        return
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(storage.write, paths, map(BytesIO, contents)))


def _insert_into_gridfs(storage: Storage, paths: Sequence[str], contents: Sequence[bytes]) -> None:
    """Write files of one chunk each as GridFS has them; the storage has no way to save many at once."""
    bucket: Any = storage._bucket  # type: ignore[attr-defined]
    bucket.ensure_indexes()
    ids = [named_id(path) for path in paths]
    now = timezone.now()
    bucket.chunks.insert_many(
        [{"files_id": id, "n": 0, "data": content} for id, content in zip(ids, contents, strict=True)], ordered=False
    )
    bucket.files.insert_many(
        [
            {"_id": id, "filename": path, "length": len(content), "chunkSize": storage.chunk_size, "uploadDate": now}
            for id, path, content in zip(ids, paths, contents, strict=True)
        ],
        ordered=False,
    )


def _write_resources(bucket: Bucket, files: Sequence[File], shared: array[int], on_progress: Progress) -> list[int]:
    """Write the row of each content with its count; return their primary keys."""
    store = ManagedStorage()
    scope, alias = store.scope_of(Namespace(bucket=bucket.pk)), store.resource_storage.alias
    keys: list[int] = []
    rows = (
        Resource(scope=scope, storage=alias, reference_count=count, **asdict(file))
        for file, count in zip(files, _counts(shared, len(files)), strict=True)
    )
    while batch := list(islice(rows, BATCH)):
        # Past the QuerySet of ours, which refuses what it cannot count; it is counted here.
        keys += [resource.pk for resource in Resource._base_manager.bulk_create(batch)]
        on_progress("resources", len(keys), len(files))
    return keys


def _counts(shared: array[int], contents: int) -> list[int]:
    counts = [0] * contents
    for number in shared:
        counts[number] += 1
    return counts


def _write_objects(
    connection: BaseDatabaseWrapper, bucket: Bucket, keys: Sequence[int], shared: array[int], on_progress: Progress
) -> None:
    """Write the row of each object, the way in which the database takes the most rows at a time."""
    rows = _object_rows(connection, bucket, keys, shared)
    columns = ", ".join(f'"{column}"' for column in OBJECT_COLUMNS)
    into = f"{ManagedResource._meta.db_table} ({columns})"
    done = 0
    with connection.cursor() as cursor:
        while batch := list(islice(rows, BATCH)):
            if connection.vendor == "postgresql":
                with cursor.copy(f"COPY {into} FROM STDIN") as copy:
                    for row in batch:
                        copy.write_row(row)
            else:
                values = ", ".join(["%s"] * len(OBJECT_COLUMNS))
                cursor.executemany(f"INSERT INTO {into} VALUES ({values})", batch)
            done += len(batch)
            on_progress("objects", done, len(shared))


def _object_rows(
    connection: BaseDatabaseWrapper, bucket: Bucket, keys: Sequence[int], shared: array[int]
) -> Iterator[tuple[Any, ...]]:
    key = Bucket._meta.pk.get_db_prep_value(bucket.pk, connection)
    first = timezone.now() - len(shared) * APART
    for number, content in enumerate(shared):
        path, content_type = path_of(number)
        moment = connection.ops.adapt_datetimefield_value(first + number * APART)
        yield key, "", path, keys[content], content_type, "{}", moment, moment
