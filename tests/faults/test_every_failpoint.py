"""Whatever dies, fails or stops at any step of any operation, nothing is lost and nothing is left.

Each operation is run with the n-th failpoint that it reaches failing, for n = 1, 2, 3 and so on until it gets through.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
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

# So that several processes can share the work.
PARTS = 6
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
    reached: set[str] = field(default_factory=set)
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

    def run(self, operation: Operation, plan: str) -> Fate:
        """Run `operation` in a child process that follows `plan`."""
        fate = Doomed(lambda: operation.run(self.store), plan, self.directory).fate(self.stored)
        self.reached.update(fate.reached)
        return fate

    def report(self, what: str) -> None:
        """Print the figures, and fail if a failpoint that was reached was not hit."""
        print(f"\n{self.label}: {sum(self.hit.values())} {what} at {len(self.hit)} failpoints: {dict(self.hit)}")
        assert self.reached <= set(self.hit)

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
def noted(operation: Operation, number: int) -> Iterator[None]:
    """Say which operation failed at which step when a check fails."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"This was {operation.name!r} with failpoint number {number} failing.")
        raise


def test_every_failpoint_in_the_source_is_reached_by_an_operation(faults: Faults) -> None:
    for operation in OPERATIONS:
        faults.arrange(operation)
        with armed("raise:none", log := faults.directory / "reached"):
            operation.run(faults.store)
        faults.reached.update(log.read_text().split())
        end_leases_and_graces()
        sweep()
        faults.clear()
    assert not faults.expected - faults.reached, "an operation in tests/faults/operations.py must reach these"


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
    for number in count(1):
        with noted(operation, number):
            faults.arrange(operation)
            stopped = stop_at(operation, faults, number)
            assert_settled(faults.stored)
            faults.clear()
        if not stopped:
            return


def stop_at(operation: Operation, faults: Faults, number: int) -> bool:
    """Stop at failpoint `number` until a sweep has found the lease expired; say whether there was such a failpoint."""
    upload = Doomed(lambda: operation.run(faults.store), f"pause:{number}", faults.directory)
    stopped = upload.wait_until_stopped()
    sweeper = start(lambda: (end_leases_and_graces(), sweep()))
    # If the upload stopped inside a transaction, the sweep waits for its end.
    sweeper.join(SECONDS_FOR_A_SWEEP)
    upload.resume()
    sweeper.join()
    fate = upload.fate(faults.stored)
    assert fate.exit_code == 0 or "LeaseLost" in fate.said, fate.said
    assert_sound(faults.stored)
    assert state() == (operation.after if fate.exit_code == 0 else operation.before)
    return stopped


def each_step(operation: Operation, faults: Faults, fault_at: Callable[[Operation, Faults, int], str]) -> None:
    """Let each step of `operation` fail in turn, from the same beginning, and run it again after each."""
    for number in count(1):
        with noted(operation, number):
            faults.arrange(operation)
            name = fault_at(operation, faults, number)
            operation.run(faults.store)
            assert state() == operation.after
            end_leases_and_graces()
            sweep()
            faults.clear()  # which finds whatever should not be there
        if not name:
            return
        faults.hit[name] += 1


def kill_at(operation: Operation, faults: Faults, number: int) -> str:
    fate = faults.run(operation, f"kill:{number}")
    name = fate.killed_at
    if operation.sound:
        assert_sound(faults.stored)
        assert_settled(faults.stored)
        check_state(operation, acknowledged=not name)
    return name


def fail_at(operation: Operation, faults: Faults, number: int) -> str:
    log = faults.directory / f"{operation.name}-{number}"
    raised = False
    waiting = waiting_for_leases()
    with armed(f"raise:{number}", log):
        try:
            operation.run(faults.store)
        except FailpointReached:
            raised = True
    reached = log.read_text().split()
    if len(reached) < number:  # after an error it may clean up, by failpoints of its own
        faults.reached.update(reached)
    assert operation.keeps_parts or waiting_for_leases() <= waiting
    if operation.sound:
        assert_sound(faults.stored)
        sweep()
        assert operation.keeps_parts or not PendingFile.objects.exists()
        check_state(operation, acknowledged=not raised)
    return reached[number - 1] if len(reached) >= number else ""


def waiting_for_leases() -> set[str]:
    return set(PendingFile.objects.filter(discard=False).values_list("path", flat=True))


def check_state(operation: Operation, *, acknowledged: bool) -> None:
    """Fail unless the store holds what `operation` began with or ends with, and the latter if it was `acknowledged`."""
    possible = [operation.after] if acknowledged else [operation.before, operation.after]
    assert state() in possible
