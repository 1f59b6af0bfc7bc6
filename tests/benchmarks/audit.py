"""How much memory and time an audit takes over a million objects, contents, files and chunks.

Run ``python -m tests.benchmarks.audit [rows]``. The rows are made by SQL in SQLite and the files by bulk inserts in a
mongod; every thousandth count is wrong and every thousandth file has no row. The audit runs in a process of its own,
whose peak resident memory is printed; the same over a hundredth of the rows is done first. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from tests.benchmarks.ground import deployment, peak_mib

BATCH = 20_000
LONG_AGO = datetime.now(UTC) - timedelta(days=2)
NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "


def main(rows: int) -> None:
    print(f"{'rows of each kind':<20}{'peak RSS':>14}{'time':>12}  found", flush=True)
    with deployment():
        for first, last in ((1, rows // 100), (rows // 100 + 1, rows)):
            make_rows(first, last)
            make_files(first, last)
            subprocess.run([sys.executable, "-m", "tests.benchmarks.audit", "--audit"], check=True)


def make_rows(first: int, last: int) -> None:
    from django.db import connection

    numbers = NUMBERS.format(first=first, last=last)
    resource = (
        "INSERT INTO django_blobstore_resource"
        " (scope, sha384, sha256, length, path, storage, reference_count, created_at)"
        " SELECT '', printf('%096x', n), '', 1, printf('%02x/%02x%030x', n % 256, n % 256, n), 'blobstore',"
        " 1 + (n % 1000 = 0), '2020-01-01 00:00:00' FROM numbers"
    )
    managed = (
        'INSERT INTO django_blobstore_managedresource ("user", path, content_type, metadata, created_at, modified_at,'
        " resource_id) SELECT 'u', printf('%09d', n), '', '{}', '2020-01-01 00:00:00', '2020-01-01 00:00:00', r.id"
        " FROM numbers JOIN django_blobstore_resource r ON r.scope = '' AND r.sha384 = printf('%096x', n)"
    )
    with connection.cursor() as cursor:
        cursor.execute(numbers + resource)
        cursor.execute(numbers + managed)
        cursor.execute("ANALYZE")
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def make_files(first: int, last: int) -> None:
    from django_blobstore.resource_storage import ResourceStorage

    storage: Any = ResourceStorage().storage
    storage.ensure_indexes()
    paths = _paths(first, last)
    while batch := list(islice(paths, BATCH)):
        _insert(storage, batch)


def _paths(first: int, last: int) -> Iterator[str]:
    for n in range(first, last + 1):
        yield f"{n % 256:02x}/{n % 256:02x}{n:030x}"
        if n % 1000 == 0:
            yield f"{n % 256:02x}/{n % 256:02x}{n + 16**29:030x}"


def _insert(storage: Any, paths: list[str]) -> None:
    from bson import ObjectId

    from django_blobstore.storages.gridfs_bucket import named_id

    bucket, old = storage._bucket, int(LONG_AGO.timestamp()).to_bytes(4)
    bucket.files.insert_many(
        {"_id": named_id(path), "filename": path, "length": 1, "chunkSize": 261120, "uploadDate": LONG_AGO}
        for path in paths
    )
    bucket.chunks.insert_many(
        {"_id": ObjectId(old + ObjectId().binary[4:]), "files_id": named_id(path), "n": 0, "data": b"x"}
        for path in paths
    )


def audit_and_print() -> None:
    import django

    django.setup()
    from django_blobstore.upkeep import audit

    began = time.perf_counter()
    report = audit()
    seconds = time.perf_counter() - began
    kinds = ", ".join(f"{tally.found:,} {kind.value}" for kind, tally in report.findings.tallies.items())
    print(f"{report.contents:<20,}{peak_mib():>10.1f} MiB{seconds:>10.1f} s  {kinds} in {report.files:,} files")


if __name__ == "__main__":
    if sys.argv[1:] == ["--audit"]:
        audit_and_print()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
