"""Which refusals of a database mean "another transaction was in the way", and how often it is then asked again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

from django.db import Error, connections, transaction

from django_blobstore.errors import CatalogBusy
from django_blobstore.failpoints import reach

T = TypeVar("T")

ATTEMPTS = 5

# Deadlock, serialization failure, unique violation, and a bucket deleted meanwhile (foreign key).
_TRANSIENT_SQLSTATES = {"40P01", "40001", "23505", "23503"}
_TRANSIENT_SQLITE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CONSTRAINT_UNIQUE",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_FOREIGNKEY",
)


def transact(using: str, work: Callable[[], T], *, durable: bool = False) -> T:
    """Run `work` in a transaction of the database `using`, up to five times while others are in the way.

    Inside a transaction of the caller it runs once: only whoever began that can run it again. Raises `CatalogBusy`
    after the last time, and `RuntimeError`, as Django does, if it is to be `durable` inside a transaction.
    """
    return _tried(using, work, lambda: _durable(using) if durable else transaction.atomic(using=using))


def commit_alone(using: str, statement: Callable[[], T]) -> T:
    """Run `statement`, which sends a single one, committed as soon as it is done: the least a transaction can cost.

    Raises like `transact` with `durable`.
    """
    if connections[using].get_autocommit():
        return _tried(using, statement, nullcontext)
    return transact(using, statement, durable=True)


@contextmanager
def _durable(using: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(transaction.atomic(using=using, durable=True))
        except RuntimeError as error:
            raise RuntimeError(
                "This is committed by itself, so that a crash leaves no file nobody knows, and cannot be part of an "
                "atomic block: call it outside, or after the commit (transaction.on_commit). "
                "ManagedStorage.put(…, durable=False) makes the object with the block."
            ) from error
        yield


def _tried(using: str, work: Callable[[], T], transaction_of: Callable[[], AbstractContextManager[Any]]) -> T:
    attempts = 1 if connections[using].in_atomic_block else ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with transaction_of():
                done = work()
            reach("catalog.committed")
            return done
        except Error as error:
            if not _is_transient(error) or attempts == 1:
                raise
            if attempt == attempts:
                raise CatalogBusy(attempts) from error
        time.sleep(random.uniform(0, 0.02 * 2**attempt))
    raise AssertionError("unreachable")


def _is_transient(error: Error) -> bool:
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) in _TRANSIENT_SQLSTATES:
        return True
    # Python names SQLite's extended codes, such as SQLITE_BUSY_SNAPSHOT.
    return getattr(cause, "sqlite_errorname", "").startswith(_TRANSIENT_SQLITE)
