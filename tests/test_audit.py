"""What `audit` finds, what it mends, and what it leaves alone, in each of its four layers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone
from pytest_django import Settings

from django_blobstore.catalog import ResourceCatalog
from django_blobstore.errors import ContentDamaged, CountBypassed, ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource, Usage
from django_blobstore.resource_storage import fresh_path
from django_blobstore.storages import hooks
from django_blobstore.storages.gridfs_bucket import named_id
from django_blobstore.upkeep import AuditReport, Finding, Kind, audit, strangers
from django_blobstore.upkeep.strangers import Strangers
from tests import damage
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored, StoredInFiles, StoredInGridFS
from tests.streams import content_of, sha384
from tests.together import in_background

BIG = content_of(600_000)
# Its name as an attribute of the package is that of the function.
AUDIT: Any = sys.modules["django_blobstore.upkeep.audit"]


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    """A store with two objects of one content, one of another, and an upload under way."""
    store = ManagedStorage()
    store.put_for_bucket("b", "one", BIG)
    store.put_for_bucket("b", "same", BIG)
    store.put_for_bucket("b", "two", b"two")
    return store


@pytest.fixture
def everything_is_old(store: ManagedStorage, stored: Stored) -> None:
    damage.make_old(stored)
    Resource.objects.update(created_at=damage.LONG_AGO)


def found(report: AuditReport) -> dict[str, tuple[int, int, int]]:
    return {kind.value: (tally.found, tally.bytes, tally.fixed) for kind, tally in report.findings.tallies.items()}


def resource_at(path: str) -> Resource:
    return ManagedResource.objects.get(path=path).resource


def orphan(stored: Stored, content: bytes = b"orphan") -> str:
    return hooks.save(stored.storage, fresh_path(), ContentFile(content))


def test_a_sound_store_has_no_findings(store: ManagedStorage, everything_is_old: None) -> None:
    for fix in (False, True):
        report = audit(fix=fix)
        assert found(report) == {}
        assert (report.objects, report.contents, report.files, report.unread) == (3, 2, 2, {})


@pytest.mark.parametrize(
    ("count", "kind"), [(1, Kind.COUNT_TOO_LOW), (3, Kind.COUNT_TOO_HIGH), (10**12, Kind.COUNT_TOO_HIGH)]
)
def test_a_count_that_drifted_is_found_and_set_right(
    store: ManagedStorage, everything_is_old: None, stored: Stored, count: int, kind: Kind
) -> None:
    damage.set_count(resource_at("one"), count)
    assert found(audit()) == {kind: (1, len(BIG), 0)}
    assert resource_at("one").reference_count == count
    assert found(audit(fix=True)) == {kind: (1, len(BIG), 1)}
    assert resource_at("one").reference_count == 2
    assert found(audit()) == {}
    assert_sound(stored)


def test_a_content_whose_objects_were_all_deleted_goes_with_its_file(
    store: ManagedStorage, everything_is_old: None, stored: Stored
) -> None:
    path = resource_at("two").path
    damage.delete_row(ManagedResource.objects.get(path="two"))
    assert found(audit()) == {Kind.CONTENT_WITHOUT_OBJECT: (1, 3, 0)}
    assert path in stored.names()
    assert found(audit(fix=True)) == {Kind.CONTENT_WITHOUT_OBJECT: (1, 3, 1)}
    assert_settled(stored)
    assert path not in stored.names()


def test_wrong_totals_are_found_told_and_corrected(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for namespace in (Namespace("bucket"), Namespace(user="7"), Namespace()):
        store.put(namespace, "a", b"xxx")
    assert found(audit()) == {}
    Usage.objects.filter(user="7").update(object_count=5, logical_bytes=0)
    Usage.objects.exclude(bucket=None).delete()
    report = audit()
    assert found(report) == {Kind.TOTALS_WRONG: (2, 0, 0)}
    assert "object_count off by +4, logical_bytes off by -3" in [finding.detail for finding in report.findings.sample]
    assert found(audit(fix=True)) == {Kind.TOTALS_WRONG: (2, 0, 2)}
    assert found(audit()) == {}
    assert_sound(stored)


def test_the_file_of_such_a_content_is_deleted_at_once_without_a_grace(
    store: ManagedStorage, everything_is_old: None, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    path = resource_at("two").path
    damage.delete_row(ManagedResource.objects.get(path="two"))
    audit(fix=True)
    assert path not in stored.names()
    assert not PendingFile.objects.exists()


def test_references_of_the_caller_are_kept_if_said_and_if_young(store: ManagedStorage, everything_is_old: None) -> None:
    catalog = ResourceCatalog()
    catalog.put(sha384(b"two"), 3)
    young, _ = catalog.put(sha384(b"elsewhere"), 9)
    assert found(audit(fix=True, outside_references=True)) == {}
    assert resource_at("two").reference_count == 2
    assert found(audit(fix=True)) == {Kind.COUNT_TOO_HIGH: (1, 3, 1)}
    assert Resource.objects.filter(pk=young).exists()


def test_with_references_of_the_caller_a_count_that_is_too_low_still_rises(
    store: ManagedStorage, everything_is_old: None
) -> None:
    damage.set_count(resource_at("one"), 1)
    assert found(audit(fix=True, outside_references=True)) == {Kind.COUNT_TOO_LOW: (1, len(BIG), 1)}
    assert resource_at("one").reference_count == 2


def test_a_missing_file_is_marked_and_healed_by_the_next_put(
    store: ManagedStorage, everything_is_old: None, stored: Stored
) -> None:
    stored.storage.delete(resource_at("one").path)
    assert found(audit()) == {Kind.FILE_MISSING: (1, len(BIG), 0)}
    assert resource_at("one").is_sound
    assert found(audit(fix=True)) == {Kind.FILE_MISSING: (1, len(BIG), 0)}
    assert resource_at("one").missing
    assert found(audit()) == {Kind.DAMAGED: (1, len(BIG), 0)}
    with pytest.raises(ContentDamaged):
        store.get_for_bucket("b", "same").read()
    store.put_for_bucket("b", "three", BIG)
    assert found(audit()) == {}
    assert (resource_at("one").missing, resource_at("one").damaged_at) == (False, None)
    assert store.get_for_bucket("b", "same").read() == BIG
    assert_settled(stored)


def test_a_file_of_another_length_is_marked_as_damaged(
    store: ManagedStorage, everything_is_old: None, stored: Stored
) -> None:
    damage.truncate(stored, resource_at("one").path)
    report = audit(fix=True)
    assert found(report) == {Kind.FILE_OF_OTHER_LENGTH: (1, len(BIG), 0)}
    assert f"it has {len(BIG) - 1} bytes instead of {len(BIG)}" in report.findings.sample[0].detail
    assert resource_at("one").damaged_at
    assert not resource_at("one").missing


def test_a_file_that_no_row_names_is_deleted(store: ManagedStorage, stored: Stored) -> None:
    path = orphan(stored)
    damage.make_old(stored)
    assert found(audit()) == {Kind.FILE_WITHOUT_ROW: (1, 6, 0)}
    assert path in stored.names()
    assert found(audit(fix=True)) == {Kind.FILE_WITHOUT_ROW: (1, 6, 1)}
    assert path not in stored.names()
    assert_settled(stored)


@pytest.mark.parametrize("named_by", ["arriving", "discarded"])
def test_a_file_that_a_pending_file_names_is_left_to_the_sweep(
    store: ManagedStorage, stored: Stored, named_by: str
) -> None:
    times = {"arriving": {"lease_until": timezone.now()}, "discarded": {"discard": True, "due_at": timezone.now()}}
    PendingFile.objects.create(path=orphan(stored), storage="blobstore", **times[named_by])
    damage.make_old(stored)
    assert found(audit(fix=True)) == {}
    assert len(stored.names()) == 3


def test_a_young_file_is_left_alone_however_short_the_guard(store: ManagedStorage, stored: Stored) -> None:
    path = orphan(stored)
    assert found(audit(fix=True, older_than=timedelta(0))) == {}
    assert path in stored.names()


def test_files_that_others_keep_in_the_same_storage_are_mentioned_and_never_deleted(
    store: ManagedStorage, stored: Stored
) -> None:
    names = [hooks.save(stored.storage, name, ContentFile(b"theirs")) for name in ("logo.png", "ab/cd/e", "ab/abc")]
    damage.make_old(stored)
    report = audit(fix=True)
    assert found(report) == {Kind.FILE_NOT_OURS: (3, 18, 0)}
    assert report.findings.left == 0
    assert stored.names().issuperset(names)


@pytest.mark.parametrize("storage_kind", ["files"])
def test_files_whose_names_no_row_could_have_are_mentioned_too(store: ManagedStorage, stored: StoredInFiles) -> None:
    for name in (b"stray\xff", b"z\xff"):
        (stored.directory / os.fsdecode(name)).write_bytes(b"theirs")
    report = audit(fix=True)
    assert found(report) == {Kind.FILE_NOT_OURS: (2, 12, 0)}
    assert {finding.name for finding in report.findings.sample} == {r"stray\udcff", r"z\udcff"}
    assert report.unread == {}
    assert len(stored.names()) == 4


def test_a_file_named_twice_stays_with_its_resource(
    store: ManagedStorage, everything_is_old: None, stored: Stored
) -> None:
    path = resource_at("two").path
    PendingFile.objects.create(path=path, storage="blobstore", discard=True, due_at=timezone.now())
    assert found(audit()) == {Kind.FILE_NAMED_TWICE: (1, 3, 0)}
    assert found(audit(fix=True)) == {Kind.FILE_NAMED_TWICE: (1, 3, 1)}
    assert_settled(stored)
    assert store.get_for_bucket("b", "two").read() == b"two"


@pytest.mark.parametrize("storage_kind", ["gridfs"])
@pytest.mark.parametrize("id", [named_id("gone"), 7, "seven", {"a": 1}], ids=str)
def test_chunks_without_a_file_are_deleted(store: ManagedStorage, stored: StoredInGridFS, id: Any) -> None:
    damage.add_chunks(stored, id, [10, 10, 5])
    assert found(audit(fix=True)) == {}
    damage.make_old(stored)
    assert found(audit()) == {Kind.CHUNKS_WITHOUT_FILE: (1, 25, 0)}
    assert damage.count_chunks(stored, id) == 3
    assert found(audit(fix=True)) == {Kind.CHUNKS_WITHOUT_FILE: (1, 25, 1)}
    assert damage.count_chunks(stored, id) == 0
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_chunks_of_more_files_than_a_batch_holds_are_all_found(
    store: ManagedStorage, stored: StoredInGridFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_blobstore.storages.gridfs_inventory.BATCH", 2)
    for id in (1, 2.5, "a", "b", named_id("c"), named_id("d"), None):
        damage.add_chunks(stored, id, [1, 1, 1])
    damage.make_old(stored)
    assert found(audit(fix=True)) == {Kind.CHUNKS_WITHOUT_FILE: (7, 21, 7)}
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_chunks_of_an_upload_under_way_are_never_touched(store: ManagedStorage, stored: StoredInGridFS) -> None:
    path = fresh_path()
    PendingFile.objects.create(path=path, storage="blobstore", lease_until=timezone.now() + timedelta(hours=1))
    damage.add_chunks(stored, named_id(path), [10])
    damage.make_old(stored)
    assert found(audit(fix=True)) == {}
    assert len(stored.names()) == 3


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_chunks_of_a_resource_whose_files_document_was_lost_are_kept(
    store: ManagedStorage, everything_is_old: None, stored: StoredInGridFS
) -> None:
    damage.drop_files_document(stored, resource_at("one").path)
    assert found(audit(fix=True)) == {Kind.FILE_MISSING: (1, len(BIG), 0)}
    assert found(audit(fix=True)) == {Kind.DAMAGED: (1, len(BIG), 0)}
    assert len(stored.names()) == 2


def test_a_storage_that_is_gone_from_the_settings_is_unread_and_nothing_of_it_is_marked(
    store: ManagedStorage, stored: Stored
) -> None:
    Resource.objects.filter(length=3).update(storage="gone")
    report = audit(fix=True)
    assert found(report) == {}
    assert list(report.unread) == ["gone"]
    assert not Resource.objects.damaged().exists()


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_directory_that_is_not_mounted_makes_nothing_missing(
    store: ManagedStorage, stored: StoredInFiles, caplog: pytest.LogCaptureFixture
) -> None:
    stored.directory.rename(stored.directory.with_name("elsewhere"))
    report = audit(fix=True)
    assert found(report) == {}
    assert "is not there; mount or restore it" in report.unread["blobstore"]
    assert not Resource.objects.damaged().exists()


def test_more_rows_and_files_than_a_batch_holds_are_all_looked_at(
    store: ManagedStorage, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (AUDIT, strangers):
        monkeypatch.setattr(module, "BATCH", 2)
    for number in range(5):
        store.put_for_bucket("b", f"{number}", content_of(10, number))
        orphan(stored)
    damage.make_old(stored)
    Resource.objects.update(created_at=damage.LONG_AGO)
    for number in range(5):
        damage.set_count(resource_at(f"{number}"), 2)
    heard: list[Finding] = []
    report = audit(fix=True, on_finding=heard.append)
    assert found(report) == {Kind.COUNT_TOO_HIGH: (5, 50, 5), Kind.FILE_WITHOUT_ROW: (5, 30, 5)}
    assert heard == report.findings.sample
    assert (report.contents, report.files) == (7, 12)
    assert_settled(stored)


def test_progress_tells_each_stage_and_ends_at_its_total(store: ManagedStorage, stored: Stored) -> None:
    told: list[tuple[str, int, int]] = []
    audit(on_progress=lambda *stage: told.append(stage))
    assert told[:4] == [("objects", 3, 3), ("contents", 2, 2), ("totals", 1, 1), ("files of blobstore", 2, 2)]


def test_an_object_whose_content_is_gone_goes_too(store: ManagedStorage, everything_is_old: None) -> None:
    damage.delete_resource(resource_at("two"))
    assert found(audit())[Kind.OBJECT_WITHOUT_CONTENT] == (1, 0, 0)
    report = audit(fix=True)
    assert found(report) == {Kind.OBJECT_WITHOUT_CONTENT: (1, 0, 1), Kind.FILE_WITHOUT_ROW: (1, 3, 1)}
    assert not ManagedResource.objects.filter(path="two").exists()
    assert store.put_for_bucket("b", "two", b"two").was_created


@pytest.mark.parametrize(
    "change",
    [
        lambda: ManagedResource.objects.first().delete(),  # type: ignore[union-attr]
        lambda: ManagedResource.objects.all().delete(),
        lambda: ManagedResource.objects.update(resource=Resource.objects.last()),
        lambda: ManagedResource.objects.update(resource_id=1),
        lambda: ManagedResource.objects.bulk_create([ManagedResource(path="x", resource=resource_at("two"))]),
        lambda: ManagedResource.objects.bulk_update(list(ManagedResource.objects.all()), ["resource"]),
        lambda: Resource.objects.update(reference_count=9),
        lambda: Resource.objects.bulk_update(list(Resource.objects.all()), ["reference_count"]),
    ],
    ids=["delete", "delete many", "update", "update id", "bulk create", "bulk update", "count", "bulk counts"],
)
def test_a_change_that_nobody_counts_is_refused(
    store: ManagedStorage, stored: Stored, change: Callable[[], object]
) -> None:
    before = list(ManagedResource.objects.order_by("pk").values())
    with pytest.raises(CountBypassed, match="ManagedStorage"):
        change()
    assert list(ManagedResource.objects.order_by("pk").values()) == before
    assert_sound(stored)


def test_other_columns_of_objects_can_be_updated(store: ManagedStorage) -> None:
    assert ManagedResource.objects.update(content_type="text/plain") == 3


def test_beside_live_traffic_a_fixing_audit_harms_nothing(
    store: ManagedStorage, stored: Stored, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    # Without any guard by age, as if everything here had taken hours.
    monkeypatch.setattr(Strangers, "_is_old", lambda *_: True)
    contents = [content_of(length, length) for length in (10, 2_000, 300_000, 1_500_000)]
    rounds = 40

    def work(worker: int) -> int:
        done = 0
        for number in range(rounds):
            path, content = f"{(worker + number) % 3}", contents[(worker * 7 + number) % 4]
            store.put(Namespace(user="u"), path, content)
            done += 1
            if number % 3 == 0:
                with suppress(ResourceNotFound):
                    store.remove(Namespace(user="u"), f"{number % 3}")
        return done

    with in_background(lambda: work(1)) as one, in_background(lambda: work(2)) as two:
        audits: list[AuditReport] = []
        while not (one.done() and two.done()):
            audits.append(audit(fix=True, older_than=timedelta(0)))
    assert (one.result(), two.result()) == (rounds, rounds)
    assert [found(report) for report in audits if found(report)] == []
    assert all(not report.unread for report in audits)
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["s3", "memory"])
def test_other_storages_are_audited_by_what_django_asks_of_each(
    store: ManagedStorage, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Strangers, "_is_old", lambda _, modified_at: modified_at is not None)
    orphan(stored)
    stored.storage.delete(resource_at("two").path)
    report = audit(fix=True)
    assert found(report) == {Kind.FILE_MISSING: (1, 3, 0), Kind.FILE_WITHOUT_ROW: (1, 6, 1)}
    assert (report.files, report.unread) == (2, {})
    assert len(stored.names()) == 1
