"""The sweep: what it deletes, what it leaves alone, and what a storage that refuses leads to."""

from __future__ import annotations

import uuid
from copy import copy
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import PendingFile, PutRequest, Resource
from django_blobstore.upkeep import SweepReport, sweep
from tests.invariants import assert_settled, assert_sound, end_leases_and_graces
from tests.stored import Stored
from tests.streams import sha384
from tests.together import results

HERE = Namespace(bucket="photos")
UNREACHABLE = {
    "BACKEND": "django_blobstore.storages.GridFSStorage",
    "OPTIONS": {"uri": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50"},
}


class Stubborn(FileSystemStorage):
    """A storage that does not delete files whose name says so."""

    def delete(self, name: str) -> None:
        if "stubborn" in name:
            raise PermissionError(f"{name} stays.")
        super().delete(name)


class Away(FileSystemStorage):
    """A storage whose server does not answer; it counts how often it was asked."""

    asked = 0

    def delete(self, name: str) -> None:
        Away.asked += 1
        raise ConnectionError("Nobody is there.")


def leave(stored: Stored, *names: str, storage: str = "blobstore", **columns: Any) -> None:
    """Leave files that are due, unless `columns` say otherwise, 10 bytes each."""
    for name in names:
        if storage == "blobstore":
            stored.storage.save(name, ContentFile(b"0123456789"))
        state = columns or {"discard": True, "due_at": Now(), "length": 10}
        PendingFile.objects.create(path=name, storage=storage, **state)


def pending() -> set[str]:
    return set(PendingFile.objects.values_list("path", flat=True))


def test_with_nothing_to_do_it_does_nothing(database: str, stored: Stored) -> None:
    assert sweep() == SweepReport()


def test_an_abandoned_upload_is_deleted_with_what_arrived(database: str, stored: Stored) -> None:
    leave(stored, "aa/one", lease_until=Now() - timedelta(seconds=1), offset=10)
    assert sweep() == SweepReport(total_files=1, abandoned_uploads=1, deleted_files=1, deleted_bytes=10)
    assert (pending(), stored.names()) == (set(), set())


def test_an_abandoned_upload_of_which_nothing_arrived_is_forgotten(database: str, stored: Stored) -> None:
    PendingFile.objects.create(path="aa/none", storage="blobstore", lease_until=Now())
    assert sweep().deleted_files == 1
    assert pending() == set()


def test_a_live_upload_and_a_file_in_its_grace_stay(database: str, stored: Stored) -> None:
    leave(stored, "aa/arriving", lease_until=Now() + timedelta(hours=1))
    leave(stored, "aa/later", discard=True, due_at=Now() + timedelta(hours=1))
    assert sweep() == SweepReport()
    assert pending() == stored.names() == {"aa/arriving", "aa/later"}


def test_content_in_use_is_left_alone_and_unreferenced_content_goes_after_its_grace(
    database: str, stored: Stored
) -> None:
    store = ManagedStorage()
    for path in ("kept", "removed"):
        store.put(HERE, path, path.encode() * 10)
    store.remove(HERE, "removed")
    assert sweep() == SweepReport()
    assert len(stored.names()) == 2
    end_leases_and_graces()
    assert sweep() == SweepReport(total_files=1, deleted_files=1, deleted_bytes=70)
    assert store.get(HERE, "kept").read() == b"kept" * 10
    assert_sound(stored)


def test_without_grace_nothing_is_left_for_the_sweep(database: str, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    ManagedStorage().put(HERE, "a", b"content")
    ManagedStorage().remove(HERE, "a")
    assert (pending(), stored.names()) == (set(), set())


def test_a_dry_run_tells_the_same_and_changes_nothing(database: str, stored: Stored) -> None:
    leave(stored, "aa/abandoned", lease_until=Now() - timedelta(seconds=1), offset=10)
    leave(stored, "aa/due", "aa/due too")
    leave(stored, "aa/arriving", lease_until=Now() + timedelta(hours=1), offset=10)
    make_requests()
    before = list(PendingFile.objects.order_by("path").values()), stored.names()
    foreseen = sweep(dry_run=True)
    assert (list(PendingFile.objects.order_by("path").values()), stored.names()) == before
    assert PutRequest.objects.count() == 3
    assert foreseen == sweep() == SweepReport(3, 1, 3, 30, 0, 1)


def make_requests() -> None:
    """Leave three put requests, one of which is of no use any more."""
    store = ManagedStorage()
    store.put(Namespace(user="holder"), "a", b"content")
    ids = [store.put_request(HERE, "a", sha384(b"content")).request_id for _ in range(3)]
    yesterday = F("created_at") - timedelta(days=1)
    PutRequest.objects.filter(pk__in=ids[:2]).update(created_at=yesterday)
    PutRequest.objects.filter(pk__in=[ids[0], ids[2]]).update(expires_at=Now() - timedelta(seconds=1))


def test_only_old_requests_past_their_time_are_forgotten(database: str, stored: Stored) -> None:
    make_requests()
    assert sweep().forgotten_requests == 1
    assert PutRequest.objects.count() == 2
    assert sweep().forgotten_requests == 0


@pytest.mark.parametrize("elsewhere", [None, UNREACHABLE], ids=["not in STORAGES", "unreachable"])
def test_files_of_a_storage_that_is_away_wait_and_all_others_go(
    database: str, stored: Stored, settings: Settings, elsewhere: Any
) -> None:
    if elsewhere:
        settings.STORAGES = settings.STORAGES | {"elsewhere": elsewhere}
    leave(stored, "aa/far", "aa/farther", storage="elsewhere")
    leave(stored, "aa/near")
    report = sweep()
    assert (report.total_files, report.deleted_files, report.failed_files) == (3, 1, 2)
    assert (pending(), stored.names()) == ({"aa/far", "aa/farther"}, set())
    assert not PendingFile.objects.due().exists(), "They must not be tried again at once."


def test_files_that_waited_are_deleted_once_their_storage_is_back(
    database: str, stored: Stored, settings: Settings
) -> None:
    leave(stored, "aa/one")
    storages = settings.STORAGES
    settings.STORAGES = {name: storages[name] for name in storages if name != "blobstore"}
    assert sweep().failed_files == 1
    settings.STORAGES = storages
    assert sweep() == SweepReport(), "It waits a little first."
    assert_settled(stored)
    assert stored.names() == set()


def test_one_file_that_stays_keeps_no_other_one(database: str, settings: Settings, tmp_path: Any) -> None:
    stubborn = {"BACKEND": f"{__name__}.Stubborn", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = settings.STORAGES | {"elsewhere": stubborn}
    names = ["a", "stubborn", "z"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        PendingFile.objects.create(path=name, storage="elsewhere", discard=True, due_at=Now(), length=1)
    assert sweep() == SweepReport(total_files=3, deleted_files=2, deleted_bytes=2, failed_files=1)
    assert pending() == {path.name for path in tmp_path.iterdir()} == {"stubborn"}


def test_a_server_that_is_away_is_asked_once_a_batch(database: str, settings: Settings, tmp_path: Any) -> None:
    away = {"BACKEND": f"{__name__}.Away", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = settings.STORAGES | {"elsewhere": away}
    rows = (PendingFile(path=f"{n}", storage="elsewhere", discard=True, due_at=Now()) for n in range(300))
    PendingFile.objects.bulk_create(rows)
    Away.asked = 0
    assert sweep().failed_files == 300
    assert Away.asked == 2
    assert PendingFile.objects.count() == 300


def test_a_sweep_comes_to_an_end_even_if_what_it_could_not_delete_is_due_again(database: str, stored: Stored) -> None:
    leave(stored, "aa/one", "aa/two", storage="elsewhere")
    assert sweep(on_progress=lambda _: end_leases_and_graces()).failed_files == 2
    assert pending() == {"aa/one", "aa/two"}


def test_many_files_go_in_batches_and_each_is_told_of(database: str, stored: Stored) -> None:
    files = [f"{number % 7}/{uuid.uuid4().hex}" for number in range(450)]
    leave(stored, *files[:10])
    rows = (PendingFile(path=path, storage="blobstore", discard=True, due_at=Now(), length=10) for path in files[10:])
    PendingFile.objects.bulk_create(rows)
    told: list[SweepReport] = []
    report = sweep(on_progress=lambda report: told.append(copy(report)))
    assert [(one.deleted_files, one.total_files) for one in told] == [(200, 450), (400, 450), (450, 450)]
    assert report == SweepReport(total_files=450, deleted_files=450, deleted_bytes=4500)
    assert (pending(), stored.names()) == (set(), set())


def test_two_sweeps_at_once_get_along(database: str, stored: Stored) -> None:
    ManagedStorage().put(HERE, "a", b"content")
    leave(stored, *(f"aa/{number}" for number in range(60)))
    reports = results(sweep, sweep)
    assert sum(report.failed_files for report in reports) == 0
    assert (pending(), stored.names()) == (set(), {Resource.objects.get().path})
    assert_settled(stored)
