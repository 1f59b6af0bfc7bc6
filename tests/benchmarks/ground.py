"""What every benchmark stands on: a mongod and a catalog of its own, and how memory is read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import django

from example_project.mongod import Mongod

MIB = 1024 * 1024
SQLITE = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "USER": "postgres",
    "CONN_MAX_AGE": None,
    "OPTIONS": {"server_side_binding": True, "prepare_threshold": 3},
}
_BLOCK = os.urandom(MIB)


class Bytes:
    """`length` bytes that no two blocks of repeat, made as they are read."""

    def __init__(self, length: int) -> None:
        self.left = length

    def read(self, size: int) -> bytes:
        block = (self.left.to_bytes(8) + _BLOCK[8:])[: min(size, self.left)]
        self.left -= len(block)
        return block


@contextmanager
def deployment(*, postgresql: bool = False, on_disk: bool = False, **blobstore: Any) -> Iterator[Path]:
    """Run mongod in memory unless `on_disk`, make a catalog, set Django up on both and yield a directory to work in.

    The catalog is in SQLite, or in PostgreSQL with fsync and lasting connections.
    """
    with (
        tempfile.TemporaryDirectory(dir=None if on_disk else "/dev/shm") as directory,
        Mongod(Path(directory, "mongod") if on_disk else None) as mongod,
    ):
        location = {"uri": mongod.uri, "database": "benchmark", "namespace": "blobs"}
        storages = {"blobstore": {"BACKEND": "django_blobstore.storages.GridFSStorage", "OPTIONS": location}}
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/catalog.sqlite3", "OPTIONS": SQLITE}
        given = {"database": POSTGRESQL if postgresql else sqlite, "storages": storages, "blobstore": blobstore}
        os.environ["BLOBSTORE_TEST_DEPLOYMENT"] = json.dumps(given)
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        django.setup()
        from django.core.management import call_command  # needs Django set up

        with _postgresql(Path(directory, "postgresql")) if postgresql else nullcontext():
            call_command("migrate", verbosity=0)
            yield Path(directory)


@contextmanager
def _postgresql(directory: Path) -> Iterator[None]:
    from django.db import connections

    from tests import servers  # needs Django's settings

    with servers.postgresql(directory, durable=True) as address:
        connections["default"].settings_dict.update(address)
        yield
        connections.close_all()


def reset_peak(pid: int | str = "self") -> None:
    """Let the peak memory of a process begin anew from what it has now (Linux)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int | str = "self") -> float:
    """Return the peak resident memory of a process since the last `reset_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
