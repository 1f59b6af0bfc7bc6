"""What long runs outside pytest stand on: a directory, and a database of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from django.db import connections

from tests import servers
from tests.routers import OneDatabase
from tests.settings import TEST_DIRECTORY


def ground() -> Path:
    """Return the directory for what is kept during the run."""
    TEST_DIRECTORY.mkdir(exist_ok=True)
    return TEST_DIRECTORY


@contextmanager
def database(kind: str) -> Iterator[None]:
    """Make the tables in an empty database of `kind` and send all queries there."""
    alias = {"sqlite": "default", "postgresql": "postgres"}[kind]
    server = servers.postgresql(TEST_DIRECTORY / "postgresql") if kind == "postgresql" else nullcontext({})
    with server as address, OneDatabase.using(alias):
        connections[alias].settings_dict.update(address)
        connections[alias].creation.create_test_db(verbosity=0, autoclobber=True)
        yield
        connections.close_all()
