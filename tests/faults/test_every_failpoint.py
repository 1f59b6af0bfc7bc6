"""Whatever dies, fails or stops at any step of any operation, nothing is lost and nothing is left.

Each operation is run with a failpoint that it reaches failing, until each failpoint was hit. With the environment
variable BLOBSTORE_EVERY_STEP, each operation has each of its steps fail, which takes an hour.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings

import django_blobstore
from django_blobstore import resumable
from django_blobstore.failpoints import FailpointReached
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, PendingFile, PutRequest, ResumableUpload
from django_blobstore.storages import gridfs_writer
from django_blobstore.upkeep import sweep
from tests.conftest import EVERY_PAIR, ON_EVERY_DATABASE, ON_ONE_DATABASE
from tests.faults.dying import Doomed, Fate, armed, start
from tests.faults.operations import BATCH_BYTES, OPERATIONS, PUTS, Operation, put, state
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.stored import Stored, StoredInFiles

SOURCE = Path(django_blobstore.__file__).parent
SECONDS_FOR_A_SWEEP = 0.5
ONLY_WITH = {"gridfs": ("gridfs.", "audit.chunks_deleted"), "files": ("storage.",)}
EVERY_STEP = bool(os.environ.get("BLOBSTORE_EVERY_STEP"))

# So that several processes can share the work.
PARTS = 6 if EVERY_STEP else 2
IN_PARTS = pytest.mark.parametrize(
    "operations", [OPERATIONS[part::PARTS] for part in range(PARTS)], ids=[f"part{part}" for part in range(PARTS)]
)

pytestmark = pytest.mark.timeout(1200)


@dataclass
class Faults:
    """One configuration under fire, and what was hit in it."""

    stored: Stored
    directory: Path
    label: str
    hit: Counter[str] = field(default_factory=Counter)
    store: ManagedStorage = field(default_factory=ManagedStorage)

    def arrange(self, operation: Operation) -> None:
        """Store what `operation` begins with, and nothing else."""
        for path, content in operation.before.items():
            put(path, content)(self.store)
        operation.prepare(self)

    def clear(self) -> None:
        """Remove everything; after whatever happened before, nothing may stay."""
        PutRequest.objects.all().delete()
        ResumableUpload.objects.all().delete()
        self.store.remove_all(ManagedResource.objects.all())
        assert_empty(self.stored)

    def reached_by(self, operation: Operation) -> list[str]:
        """Return the failpoints that `operation` reaches where nothing fails, in order."""
        self.arrange(operation)
        log = self.directory / f"reached by {operation.name}"
        with armed("raise:none", log):
            operation.run(self.store)
        self.finish(operation)
        return log.read_text().split()

    def finish(self, operation: Operation) -> None:
        """Check what `operation` has done, and remove everything, which finds whatever should not be there."""
        assert state() == operation.after
        end_leases_and_graces()
        sweep()
        self.clear()

    def steps(self, operation: Operation) -> Iterator[str]:
        """Yield where `operation` is to fail: at the failpoints that nothing was hit at so far, or at every step."""
        names = self.reached_by(operation)
        if EVERY_STEP:
            yield from (str(number + 1) for number in range(len(names)))
        yield from (name for name in dict.fromkeys(names) if name not in self.hit)

    def run(self, operation: Operation, plan: str) -> Fate:
        """Run `operation` in a child process that follows `plan`."""
        return Doomed(lambda: operation.run(self.store), plan, self.directory).fate(self.stored)

    def report(self, what: str) -> None:
        """Print the figures."""
        print(f"\n{self.label}: {sum(self.hit.values())} {what} at {len(self.hit)} failpoints: {dict(self.hit)}")

    @property
    def expected(self) -> set[str]:
        """Every failpoint in the source that this kind of storage can reach."""
        named = re.compile(r'\breach\("([^"]+)"\)')
        names = {name for path in SOURCE.rglob("*.py") for name in named.findall(path.read_text())}
        others = tuple(
            prefix for kind, prefixes in ONLY_WITH.items() if kind != self.stored.kind for prefix in prefixes
        )
        return {name for name in names if "." in name and not name.startswith(others)} - {"room.step"}


@pytest.fixture
def faults(
    database: str, stored: Stored, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Faults:
    # No grace, so that deleting is part of the operations.
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    monkeypatch.setattr(gridfs_writer, "BATCH_BYTES", BATCH_BYTES)
    monkeypatch.setattr(resumable, "LOOK_SECONDS", 0)
    StoredInFiles(tmp_path / "elsewhere").stand_beside(stored, settings)
    return Faults(stored, tmp_path, f"{database}, {stored.kind}")


@contextmanager
def noted(operation: Operation, where: str) -> Iterator[None]:
    """Say which operation failed at which step when a check fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"This was {operation.name!r} failing at {where}.")
        raise


def test_every_failpoint_in_the_source_is_reached_by_an_operation(faults: Faults) -> None:
    reached = {name for operation in OPERATIONS for name in faults.reached_by(operation)}
    assert not faults.expected - reached, "an operation in tests/faults/operations.py must reach these"


@pytest.mark.slow
@IN_PARTS
def test_a_kill_at_any_step_loses_nothing_and_leaves_nothing_after_a_sweep(
    faults: Faults, operations: list[Operation]
) -> None:
    for operation in operations:
        each_step(operation, faults, kill_at)
    faults.report("kills")


# A failpoint raises no error of a database, so that it is the same to either.
@pytest.mark.slow
@pytest.mark.parametrize("database", ON_EVERY_DATABASE if EVERY_PAIR else ON_ONE_DATABASE, indirect=True)
@pytest.mark.parametrize("storage_kind", ["files", "gridfs"])
@IN_PARTS
def test_an_error_at_any_step_is_told_and_leaves_nothing_that_waits_for_a_lease(
    faults: Faults, operations: list[Operation]
) -> None:
    for operation in operations:
        each_step(operation, faults, fail_at)
    faults.report("errors")


@pytest.mark.slow
@pytest.mark.parametrize("operation", PUTS, ids=lambda operation: operation.name)
def test_an_upload_that_stops_until_it_was_swept_is_refused_and_leaves_nothing(
    faults: Faults, operation: Operation
) -> None:
    for where in faults.steps(operation):
        with noted(operation, where):
            faults.arrange(operation)
            stop_at(operation, faults, where)
            assert_settled(faults.stored)
            faults.clear()


def stop_at(operation: Operation, faults: Faults, where: str) -> None:
    """Stop there until a sweep has found the lease expired."""
    upload = Doomed(lambda: operation.run(faults.store), f"pause:{where}", faults.directory)
    assert upload.wait_until_stopped()
    waits = is_in_transaction(connections[faults.store.catalog.using])
    sweeper = start(lambda: (end_leases_and_graces(), sweep()))
    # If the upload stopped inside a transaction, the sweep may have to wait for its end.
    sweeper.join(SECONDS_FOR_A_SWEEP if waits else None)
    upload.resume()
    sweeper.join()
    fate = upload.fate(faults.stored)
    assert fate.exit_code == 0 or "LeaseLost" in fate.said, fate.said
    assert_sound(faults.stored)
    assert state() == (operation.after if fate.exit_code == 0 else operation.before)


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether another process is in the midst of a transaction that writes."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state LIKE 'idle in transaction%')")
            return bool(cursor.fetchone()[0])
    with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def each_step(operation: Operation, faults: Faults, fault_at: Callable[[Operation, Faults, str], str]) -> None:
    """Let steps of `operation` fail in turn, from the same beginning, and run it again after each."""
    for where in faults.steps(operation):
        with noted(operation, where):
            faults.arrange(operation)
            name = fault_at(operation, faults, where)
            assert name == where or where.isdecimal()
            operation.run(faults.store)
            faults.finish(operation)
            faults.hit[name] += 1


def kill_at(operation: Operation, faults: Faults, where: str) -> str:
    name = faults.run(operation, f"kill:{where}").killed_at
    if operation.sound:
        assert_sound(faults.stored)
        assert_settled(faults.stored)
        check_state(operation, acknowledged=not name)
    return name


def fail_at(operation: Operation, faults: Faults, where: str) -> str:
    log = faults.directory / f"{operation.name}-{where}"
    raised = None
    waiting = waiting_for_leases()
    with armed(f"raise:{where}", log):
        try:
            operation.run(faults.store)
        except FailpointReached as error:
            raised = error
    reached = log.read_text().split()
    assert operation.keeps_parts or waiting_for_leases() <= waiting
    if operation.sound:
        assert_sound(faults.stored)
        sweep()
        assert operation.keeps_parts or not PendingFile.objects.exists()
        check_state(operation, acknowledged=not raised)
    if where.isdecimal():
        return reached[int(where) - 1]
    return where if where in reached else ""


def waiting_for_leases() -> set[str]:
    return set(PendingFile.objects.filter(discard=False).values_list("path", flat=True))


def check_state(operation: Operation, *, acknowledged: bool) -> None:
    """Fail unless the store holds what `operation` began with or ends with, and the latter if it was `acknowledged`."""
    possible = [operation.after] if acknowledged else [operation.before, operation.after]
    assert state() in possible
