"""What a put, a get, a remove and a sweep do when mongod refuses, hangs up, dawdles or forgets to answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from pymongo.errors import OperationFailure
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import PendingFile
from django_blobstore.storages import GridFSStorage
from django_blobstore.upkeep import sweep
from tests.conftest import EVERY_PAIR
from tests.faults.dying import APP_NAME as DOOMED
from tests.faults.dying import wait_until_forgotten
from tests.faults.operations import HOME, State, state
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.mongo import failing
from tests.stored import ALIAS, Stored, StoredInGridFS
from tests.streams import MIB, Stream, content_of

SMALL = content_of(1000, 1)
# With it the writer takes two batches for `LARGE` and the reader several answers.
CHUNK_SIZE = 1024
LARGE, NEW = (content_of(2 * MIB + 1, label) for label in (2, 3))

# What mongod does is no matter of the database.
pytestmark = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True)
class Fault:
    """What mongod does to a command: `data` of failCommand, for the first `times` or always.

    Nobody who calls the store notices one that `is_survived`.
    """

    name: str
    data: dict[str, Any]
    times: int = 0
    is_survived: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def mode(self) -> Any:
        return {"times": self.times} if self.times else "alwaysOn"


HANGS_UP = {"closeConnection": True}
NO_PRIMARY = {"errorCode": 10107}
UNCONFIRMED = {"writeConcernError": {"code": 64, "errmsg": "timed out", "errInfo": {"wtimeout": True}}}
STEPS_DOWN = {"writeConcernError": {"code": 91, "errmsg": "shutting down"}, "errorLabels": ["RetryableWriteError"]}

# Each of the first, third, … does nearly the same as the one after it.
ON_ANY_COMMAND = [
    Fault("connection closed once", HANGS_UP, 1, is_survived=True),
    Fault("not primary once", NO_PRIMARY, 1, is_survived=True),
    Fault("never primary", NO_PRIMARY),
    Fault("connection always closed", HANGS_UP),
    Fault("ExceededTimeLimit", {"errorCode": 262}),
    Fault("MaxTimeMSExpired", {"errorCode": 50}),
    Fault("connection closed twice", HANGS_UP, 2),
    Fault("slow", {"blockConnection": True, "blockTimeMS": 200}, 3, is_survived=True),
]
ON_WRITES = [
    Fault("never confirmed", UNCONFIRMED),
    Fault("unconfirmed once", UNCONFIRMED, 1),
    Fault("done and then not primary", STEPS_DOWN, 1, is_survived=True),
]
WRITES = ["insert", "delete", "createIndexes"]
# Unless every one is asked for, half of the faults on each command, each of them on some.
MATRIX = [
    (command, fault)
    for row, command in enumerate([*WRITES, "find", "getMore"])
    for column, fault in enumerate(ON_ANY_COMMAND)
    if EVERY_PAIR or (row + column) % 2 == 0
]
MATRIX += [(command, fault) for command in WRITES for fault in ON_WRITES]


@pytest.fixture
def storage_kind() -> str:
    return "gridfs"


@pytest.fixture
def uri(stored: Stored, settings: Settings) -> str:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    assert isinstance(stored, StoredInGridFS)
    options = stored.options["OPTIONS"] | {"chunk_size": CHUNK_SIZE}
    settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options | {"OPTIONS": options}}
    return stored.uri


@pytest.mark.slow
@pytest.mark.parametrize(("command", "fault"), MATRIX, ids=str)
def test_what_is_acknowledged_is_stored_and_what_fails_leaves_nothing(
    stored: Stored, uri: str, command: str, fault: Fault
) -> None:
    store = ManagedStorage()
    if command != "createIndexes":  # else the first put under the fault creates them
        for path, content in BEFORE.items():
            store.put(HOME, path, content)
    expected = state()
    with failing(uri, command, mode=fault.mode, **fault.data) as end:
        failures = [change(store, expected) for change in CHANGES]
        failures += [read(store, path) for path in expected if path == "kept"]
        sweep()
        assert end() > 0
    if fault.is_survived:
        assert not any(failures)
    assert state() == expected
    assert_sound(stored)
    assert_settled(stored)


def put(path: str, content: bytes) -> Callable[[ManagedStorage, State], OSError | None]:
    """Return a change that tells the model only of what the store acknowledged."""

    def change(store: ManagedStorage, expected: State) -> OSError | None:
        failure = tried(lambda: store.put(HOME, path, Stream(content)))
        if not failure:
            expected[path] = content
        return failure

    return change


def remove(path: str) -> Callable[[ManagedStorage, State], OSError | None]:
    def change(store: ManagedStorage, expected: State) -> OSError | None:
        if expected.pop(path, None) is not None:
            store.remove(HOME, path)
        return None

    return change


BEFORE = {"kept": LARGE, "overwritten": SMALL[1:], "removed": SMALL}
CHANGES = [put("small", b"new"), put("large", NEW), put("overwritten", b"over"), remove("removed")]


def read(store: ManagedStorage, path: str) -> OSError | None:
    """Read the object at `path` to its end, which checks its SHA-384."""
    return tried(lambda: store.get(HOME, path).read())


def tried(work: Callable[[], object]) -> OSError | None:
    """Do `work` and return the error if it is one that says the server is to blame."""
    try:
        work()
    except (ConnectionError, TimeoutError) as error:
        return error
    return None


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_a_mongod_that_never_answers_is_a_timeout(stored: Stored, uri: str, settings: Settings, content: bytes) -> None:
    """A write that was not heard of may still be done: nothing refers to it, and the sweep finds it."""
    store = ManagedStorage()
    store.put(HOME, "kept", b"kept")
    with impatient(stored, settings):
        with blocking(uri, "insert"), pytest.raises(TimeoutError):
            store.put(HOME, "lost", Stream(content))
        with blocking(uri, "find"), pytest.raises(TimeoutError):
            store.get(HOME, "kept")
    assert state() == {"kept": b"kept"}
    assert_settled(stored)


@contextmanager
def impatient(stored: Stored, settings: Settings) -> Iterator[None]:
    """Have the storage give up an answer after a fifth of a second, and in the end wait until mongod has done it all.

    On a busy machine nothing but what is to fail may be asked meanwhile.
    """
    patient = settings.STORAGES
    hasty = {"client_options": {"socketTimeoutMS": 200, "appname": DOOMED}}
    settings.STORAGES = {**patient, ALIAS: stored.options | {"OPTIONS": stored.options["OPTIONS"] | hasty}}
    storage = storages[ALIAS]
    try:
        yield
    finally:
        settings.STORAGES = patient
        assert isinstance(storage, GridFSStorage)
        storage._bucket.database.client.close()
        wait_until_forgotten(stored)


def blocking(uri: str, command: str) -> AbstractContextManager[Callable[[], int]]:
    return failing(uri, command, appName=DOOMED, blockConnection=True, blockTimeMS=1000)


def test_a_full_mongod_is_told_as_a_full_disk(stored: Stored, uri: str) -> None:
    store = ManagedStorage()
    store.put(HOME, "kept", b"kept")
    with failing(uri, "insert", errorCode=14031), pytest.raises(OSError, match="no room left") as refused:
        store.put(HOME, "small", b"new")
    assert refused.value.errno == ENOSPC
    assert state() == {"kept": b"kept"}
    assert_sound(stored)
    assert not PendingFile.objects.exists()


def test_a_mongod_that_refuses_for_good_says_so_itself(stored: Stored, uri: str) -> None:
    with failing(uri, "insert", errorCode=13), pytest.raises(OperationFailure):
        ManagedStorage().put(HOME, "a", b"new")
    assert_empty(stored)


def test_every_verb_of_the_storage_tells_that_mongod_is_away(mongo_uri: str) -> None:
    away = {"uri": "mongodb://127.0.0.1:9", "client_options": {"serverSelectionTimeoutMS": 50}}
    storage = GridFSStorage(**away)
    verbs: list[Callable[[], object]] = [
        lambda: storage.exists("a"),
        lambda: storage.size("a"),
        lambda: storage.get_modified_time("a"),
        lambda: storage.listdir(""),
        lambda: list(storage.names()),
        lambda: storage.open("a"),
        lambda: storage.open_named("a", 1),
        lambda: list(storage.read_ranges("a", [(0, 1)])),
        lambda: storage.save("a", ContentFile(b"a")),
        lambda: storage.save_named("a", io.BytesIO(b"a")),
        lambda: storage.delete("a"),
        storage.ensure_indexes,
    ]
    for verb in verbs:
        with pytest.raises(ConnectionError, match="cannot be reached"):
            verb()
    assert "did not answer" in storage.problems()[0]


def test_a_sweep_waits_once_for_a_mongod_that_is_away(
    stored: Stored, uri: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store = ManagedStorage()
    for path in ("a", "b", "c"):
        store.put(HOME, path, path.encode())
    settings.BLOBSTORE = {}
    for path in ("a", "b", "c"):
        store.remove(HOME, path)
    end_leases_and_graces()
    caplog.clear()
    with failing(uri, "find", closeConnection=True):
        assert sweep().failed_files == 3
    assert len([record for record in caplog.records if "does not answer" in record.getMessage()]) == 1
    assert_settled(stored)
