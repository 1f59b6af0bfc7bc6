"""A database in which others are in the way: tried again, then a clear error, and nothing is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from threading import Barrier, BrokenBarrierError
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections, transaction
from pytest_django import Settings

from django_blobstore.catalog import ResourceCatalog
from django_blobstore.errors import CatalogBusy
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource
from django_blobstore.transactions import ATTEMPTS
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import Stream, content_of
from tests.together import SECONDS, results

HOME = Namespace(bucket="contention")
SMALL = content_of(1000)
LARGE = content_of(1_300_000)

on_postgresql = pytest.mark.parametrize(
    "database",
    [pytest.param("postgresql", marks=pytest.mark.django_db(transaction=True, databases=["postgres"]))],
    indirect=True,
)
on_sqlite = pytest.mark.parametrize(
    "database",
    [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True, databases=["default"]))],
    indirect=True,
)
in_files = pytest.mark.parametrize("storage_kind", ["files"])

# What PostgreSQL says of a deadlock and of transactions that cannot be put in an order.
CONFLICTS = {"deadlock": "40P01", "serialization failure": "40001"}


@pytest.fixture
def store() -> ManagedStorage:
    return ManagedStorage()


@pytest.fixture
def options(database: str) -> Iterator[dict[str, Any]]:
    """OPTIONS of the database, for connections opened from now on; what a test changes is put back."""
    connections.close_all()
    settings = connections[database].settings_dict
    before = settings["OPTIONS"]
    settings["OPTIONS"] = dict(before)
    try:
        yield settings["OPTIONS"]
    finally:
        connections.close_all()
        settings["OPTIONS"] = before


@contextmanager
def refusing(database: str, code: str, times: int) -> Iterator[None]:
    """Let PostgreSQL refuse to add or delete objects with the error `code`, `times` times in all."""
    # A sequence is not rolled back, so it counts the attempts.
    _execute(
        database,
        "CREATE SEQUENCE attempts",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('attempts') <= {times} THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '{code}'; END IF; "
        "RETURN coalesce(NEW, OLD); END $$",
        f"CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON {ManagedResource._meta.db_table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    try:
        yield
    finally:
        _execute(
            database,
            f"DROP TRIGGER refuse ON {ManagedResource._meta.db_table}",
            "DROP FUNCTION refuse",
            "DROP SEQUENCE attempts",
        )


@on_postgresql
@in_files
@pytest.mark.parametrize("code", CONFLICTS.values(), ids=CONFLICTS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_conflict_is_tried_again(
    database: str, stored: Stored, store: ManagedStorage, code: str, content: bytes
) -> None:
    with refusing(database, code, ATTEMPTS - 1):
        store.put(HOME, "a", Stream(content))
    assert store.get(HOME, "a").read() == content
    assert not PendingFile.objects.exists()
    assert_sound(stored)


@on_postgresql
@in_files
@pytest.mark.parametrize("code", CONFLICTS.values(), ids=CONFLICTS)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_conflict_without_end_is_told_and_leaves_nothing(
    database: str, stored: Stored, store: ManagedStorage, code: str, content: bytes
) -> None:
    with refusing(database, code, 2**31), pytest.raises(CatalogBusy):
        store.put(HOME, "a", Stream(content))
    assert_empty(stored)


@on_postgresql
@in_files
def test_a_conflict_inside_a_transaction_of_the_caller_is_the_callers(
    database: str, stored: Stored, store: ManagedStorage
) -> None:
    store.put(HOME, "a", SMALL)
    with refusing(database, "40001", 1), pytest.raises(OperationalError), transaction.atomic(using=database):
        store.remove(HOME, "a")
    assert store.get(HOME, "a").read() == SMALL
    assert_settled(stored)


@on_postgresql
def test_of_two_that_wait_for_each_other_one_is_tried_again(database: str) -> None:
    first, second = (Resource.objects.create(sha384=digit * 96, length=1) for digit in "12")
    both_hold_one = Barrier(2)
    attempts = count(1)

    def lock(*resources: Resource) -> int:
        number = next(attempts)
        for resource in resources:
            Resource.objects.select_for_update().get(pk=resource.pk)
            with suppress(BrokenBarrierError):
                both_hold_one.wait(SECONDS) if number <= 2 and resource is resources[0] else None
        return number

    catalog = ResourceCatalog()
    done = results(
        lambda: catalog.transact(lambda: lock(first, second)), lambda: catalog.transact(lambda: lock(second, first))
    )
    # The one that is tried again may come before the other has noticed, and then that one is tried again, too.
    assert max(done) > 2


@on_postgresql
@in_files
@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_counts_hold_at_stricter_isolation(
    database: str, stored: Stored, store: ManagedStorage, options: dict[str, Any], level: psycopg.IsolationLevel
) -> None:
    options["isolation_level"] = level
    contents = [content_of(100, number) for number in range(2)]

    def work(number: int) -> list[Any]:
        done = []
        for step in range(12):
            try:
                store.put(HOME, f"{(number + step) % 3}", contents[(number * step) % 2])
            except CatalogBusy as busy:
                done.append(busy)
        return done

    results(*(partial(work, number) for number in range(4)))
    assert_sound(stored)
    assert_settled(stored)


@pytest.fixture
def lock(database: str, options: dict[str, Any]) -> Callable[[], Any]:
    """Return what another writer does that holds SQLite's lock until the context ends; we wait a tenth of a second."""
    options["timeout"] = 0.1
    name = connections[database].settings_dict["NAME"]

    @contextmanager
    def locked() -> Iterator[None]:
        with closing(sqlite3.connect(name, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    return locked


@on_sqlite
@in_files
def test_a_database_locked_for_long_is_told_and_leaves_nothing(
    database: str, stored: Stored, store: ManagedStorage, lock: Callable[[], Any]
) -> None:
    with lock(), pytest.raises(CatalogBusy):
        store.put(HOME, "a", SMALL)
    assert_empty(stored)


@on_sqlite
@in_files
def test_a_database_locked_for_long_removes_nothing(
    database: str, stored: Stored, store: ManagedStorage, lock: Callable[[], Any]
) -> None:
    store.put(HOME, "a", SMALL)
    with lock(), pytest.raises(CatalogBusy):
        store.remove(HOME, "a")
    assert store.get(HOME, "a").read() == SMALL
    assert_settled(stored)


@on_sqlite
@in_files
def test_a_database_locked_while_bytes_arrive_leaves_what_a_sweep_finds(
    database: str, stored: Stored, store: ManagedStorage, lock: Callable[[], Any]
) -> None:
    holding = lock()
    stream = Stream(LARGE, {1_200_000: holding.__enter__})
    with pytest.raises(CatalogBusy):
        store.put(HOME, "a", stream)
    holding.__exit__(None, None, None)
    assert_sound(stored)
    assert not ManagedResource.objects.exists()
    assert_settled(stored)
    assert_empty(stored)


@on_sqlite
@in_files
def test_a_database_locked_for_a_while_is_waited_for(
    database: str, stored: Stored, store: ManagedStorage, lock: Callable[[], Any], settings: Settings
) -> None:
    holding = lock()
    attempts = []

    def let_go(_execute: Any, sql: str, *rest: Any) -> Any:
        attempts.append(sql)
        if len(attempts) == 3:
            holding.__exit__(None, None, None)
        return _execute(sql, *rest)

    holding.__enter__()
    with connections[database].execute_wrapper(let_go):
        store.put(HOME, "a", SMALL)
    assert store.get(HOME, "a").read() == SMALL
    assert_settled(stored)


def _execute(database: str, *statements: str) -> None:
    with connections[database].cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
