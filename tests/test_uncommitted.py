"""A put inside a caller's transaction: it comes and goes with it, and a sweep finds what a rollback forgot."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages
from django.db import connections, transaction
from django.test import TestCase
from pytest_django import Settings

from django_blobstore import uncommitted
from django_blobstore.errors import HashMismatch
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource
from django_blobstore.upkeep import audit, sweep
from tests.faults.dying import start
from tests.invariants import assert_empty, assert_settled, assert_sound, end_leases_and_graces
from tests.stored import ALIAS, Stored
from tests.streams import MIB, Stream, content_of

BUCKET = Namespace("bucket")
LARGE = content_of(MIB + 70_000)


class Wanted(Exception):
    """Raised to have a transaction rolled back."""


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


def roll_back(using: str, *work: Callable[[], object]) -> None:
    def fail() -> None:
        with transaction.atomic(using=using):
            for step in work:
                step()
            raise Wanted

    with pytest.raises(Wanted):
        fail()


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_put_is_there_once_the_transaction_is_committed(
    store: ManagedStorage, stored: Stored, database: str, content: bytes
) -> None:
    with transaction.atomic(using=database):
        store.put(BUCKET, "a", Stream(content), durable=False)
        assert store.get(BUCKET, "a").read() == content
    assert_sound(stored)
    assert stored.names() == {Resource.objects.get().path}
    assert not PendingFile.objects.exists()


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_put_that_is_rolled_back_leaves_nothing_after_a_sweep(
    store: ManagedStorage, stored: Stored, database: str, content: bytes
) -> None:
    roll_back(database, lambda: store.put(BUCKET, "a", Stream(content), durable=False))
    assert not ManagedResource.objects.exists()
    end_leases_and_graces()
    assert sweep(dry_run=True).deleted_files == 1
    assert stored.names()
    assert sweep().deleted_files == 1
    assert_empty(stored)


def test_more_rolled_back_files_than_one_query_asks_for_are_all_found(
    store: ManagedStorage, stored: Stored, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncommitted, "BATCH", 2)
    store.put(BUCKET, "kept", b"kept")
    lost = [partial(store.put, BUCKET, f"{n}", f"lost {n}".encode(), durable=False) for n in range(5)]
    roll_back(database, *lost)
    hexadecimal = Resource.objects.get().path.rpartition("/")[2]
    storages[ALIAS].save(f"{uncommitted.FOLDER}/{hexadecimal}", ContentFile(b""))
    end_leases_and_graces()
    assert sweep().deleted_files == 5
    assert store.get(BUCKET, "kept").read() == b"kept"
    if not uncommitted.commits_apart(database):
        assert stored.names() == {Resource.objects.get().path}


def test_a_rolled_back_put_of_stored_content_writes_nothing(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    store.put(BUCKET, "a", b"content")
    before = stored.names()
    roll_back(database, lambda: store.put(BUCKET, "b", b"content", durable=False))
    assert stored.names() == before
    assert Resource.objects.get().reference_count == 1
    assert_settled(stored)


def test_a_rolled_back_put_in_place_of_another_leaves_the_other(
    store: ManagedStorage, stored: Stored, database: str, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    store.put(BUCKET, "a", b"first")
    roll_back(database, lambda: store.put(BUCKET, "a", b"second", durable=False))
    assert store.get(BUCKET, "a").read() == b"first"
    assert_settled(stored)
    assert len(stored.names()) == 1


def test_a_refused_put_leaves_the_transaction_usable(store: ManagedStorage, stored: Stored, database: str) -> None:
    with transaction.atomic(using=database):
        with pytest.raises(HashMismatch):
            store.put(BUCKET, "a", Stream(LARGE), check_hash="0" * 96, durable=False)
        store.put(BUCKET, "b", b"content", durable=False)
    assert_sound(stored)
    assert_settled(stored)
    assert [managed.path for managed in ManagedResource.objects.all()] == ["b"]


def test_a_rolled_back_savepoint_takes_only_its_own_put(store: ManagedStorage, stored: Stored, database: str) -> None:
    with transaction.atomic(using=database):
        store.put(BUCKET, "kept", Stream(LARGE), durable=False)
        roll_back(database, lambda: store.put(BUCKET, "lost", b"lost", durable=False))
    assert_settled(stored)
    assert [managed.path for managed in ManagedResource.objects.all()] == ["kept"]
    assert stored.names() == {Resource.objects.get().path}


def test_a_process_that_dies_in_its_transaction_leaves_nothing_after_a_sweep(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    def die() -> None:
        with transaction.atomic(using=database):
            store.put(BUCKET, "a", Stream(LARGE), durable=False)
            os.kill(os.getpid(), signal.SIGKILL)

    process = start(die)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert stored.names()
    assert_settled(stored)
    assert_empty(stored)


def test_a_file_that_was_committed_stays_though_its_note_does_too(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    store.put(BUCKET, "a", b"content")
    hexadecimal = Resource.objects.get().path.rpartition("/")[2]
    storages[ALIAS].save(f"{uncommitted.FOLDER}/{hexadecimal}", ContentFile(b""))
    if not uncommitted.commits_apart(database):
        assert not audit().findings.tallies
        assert sweep().deleted_files == 0
        assert stored.names() == {Resource.objects.get().path}
    assert store.get(BUCKET, "a").read() == b"content"


def test_a_test_case_that_forgets_its_rows_keeps_no_row_apart(
    store: ManagedStorage, stored: Stored, database: str
) -> None:
    class Case(TestCase):
        databases = {database}

        def runTest(self) -> None:
            with transaction.atomic(using=database):
                store.put(BUCKET, "a", Stream(LARGE), durable=False)
            assert store.get(BUCKET, "a").read() == LARGE

    case = Case()
    result = case.run()
    assert result is not None
    assert result.wasSuccessful(), result.errors
    assert not PendingFile.objects.exists()


def test_a_storage_that_is_away_does_not_stop_a_sweep(
    store: ManagedStorage, stored: Stored, settings: Settings, tmp_path: Path
) -> None:
    settings.BLOBSTORE = {"STORAGE": "nowhere"}
    assert sweep().deleted_files == 0


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_note_that_cannot_be_deleted_is_left_to_a_sweep(
    store: ManagedStorage, stored: Stored, database: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuse(storage: FileSystemStorage, name: str) -> None:
        raise PermissionError(name)

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "delete", refuse)
        with transaction.atomic(using=database):
            store.put(BUCKET, "a", b"content", durable=False)
    assert store.get(BUCKET, "a").read() == b"content"
    assert_settled(stored)
    assert stored.names() == {Resource.objects.get().path}


def test_another_isolation_level_does_not_commit_apart(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connections[database]
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"isolation_level": "SERIALIZABLE"})
    assert not uncommitted.commits_apart(database)
