"""What `scrub` finds of damage, in which order it reads, where it goes on, and what it marks and unmarks."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from django_blobstore.catalog import ResourceCatalog
from django_blobstore.errors import ContentDamaged
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.signals import resource_damaged
from django_blobstore.upkeep import Finding, Kind, ScrubReport, scrub, verify
from tests import damage, mongo
from tests.invariants import assert_sound
from tests.stored import Stored, StoredInFiles, StoredInGridFS
from tests.streams import content_of

# Its name as an attribute of the package is that of the function.
SCRUB = sys.modules["django_blobstore.upkeep.scrub"]
LENGTHS = [1, 1000, 512 * 1024, 512 * 1024 + 1, 1_200_000]


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    store = ManagedStorage()
    for length in LENGTHS:
        store.put_for_bucket("b", f"{length}", content_of(length))
    return store


@pytest.fixture
def heard() -> Any:
    """What the signal said, as (SHA-384, missing)."""
    said: list[tuple[str, bool]] = []

    def listen(resource: Resource, missing: bool, **_: Any) -> None:
        said.append((resource.sha384, missing))

    resource_damaged.connect(listen)
    yield said
    resource_damaged.disconnect(listen)


def resource_of(length: int) -> Resource:
    return ManagedResource.objects.get(path=f"{length}").resource


def figures(report: ScrubReport) -> tuple[int, int, int, int]:
    return report.compared, report.damaged, report.missing, report.unread


def test_a_sound_store_is_compared_whole(store: ManagedStorage) -> None:
    report = scrub()
    assert (report.total, *figures(report)) == (5, 5, 0, 0, 0)
    assert report.compared_bytes == sum(LENGTHS)
    assert not Resource.objects.filter(verified_at=None).exists()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_every_flipped_byte_is_found(store: ManagedStorage, stored: Stored, length: int, at: float) -> None:
    damage.flip(stored, resource_of(length).path, int((length - 1) * at))
    report = scrub()
    assert figures(report) == (5, 1, 0, 0)
    assert [finding.name for finding in report.findings.sample] == [resource_of(length).sha384]
    assert list(Resource.objects.damaged()) == [resource_of(length)]
    assert not resource_of(length).missing


@pytest.mark.parametrize("length", LENGTHS)
def test_every_truncated_file_is_found(store: ManagedStorage, stored: Stored, length: int) -> None:
    damage.truncate(stored, resource_of(length).path)
    assert figures(scrub()) == (5, 1, 0, 0)
    assert list(Resource.objects.damaged()) == [resource_of(length)]


@pytest.mark.parametrize("storage_kind", ["gridfs"])
@pytest.mark.parametrize(
    ("length", "n"), [(length, n) for length in LENGTHS for n in range(-(-length // (512 * 1024)))], ids=str
)
def test_every_dropped_chunk_is_found(store: ManagedStorage, stored: Stored, length: int, n: int) -> None:
    damage.drop_chunk(stored, resource_of(length).path, n)
    assert figures(scrub()) == (5, 1, 0, 0)
    assert list(Resource.objects.damaged()) == [resource_of(length)]


def test_everything_damaged_at_once_is_all_found(store: ManagedStorage, stored: Stored) -> None:
    for length in LENGTHS:
        damage.flip(stored, resource_of(length).path, length // 2)
    told: list[Finding] = []
    assert figures(scrub(on_finding=told.append)) == (5, 5, 0, 0)
    assert len(told) == 5


def test_every_missing_file_is_found_and_told_apart(
    store: ManagedStorage, stored: Stored, heard: list[tuple[str, bool]]
) -> None:
    stored.storage.delete(resource_of(1000).path)
    damage.flip(stored, resource_of(1).path, 0)
    assert figures(scrub()) == (5, 1, 1, 0)
    assert list(Resource.objects.missing()) == [resource_of(1000)]
    assert set(heard) == {(resource_of(1000).sha384, True), (resource_of(1).sha384, False)}


def test_a_put_of_the_same_content_heals_it(store: ManagedStorage, stored: Stored) -> None:
    damage.flip(stored, resource_of(1000).path, 7)
    scrub()
    store.put_for_bucket("b", "again", content_of(1000))
    assert figures(scrub()) == (5, 0, 0, 0)
    assert store.get_for_bucket("b", "1000").read() == content_of(1000)
    assert not Resource.objects.damaged().exists()
    assert_sound(stored)


def test_a_mark_that_is_wrong_is_taken_away(store: ManagedStorage, stored: Stored) -> None:
    ResourceCatalog().mark_damaged(resource_of(1000), missing=True)
    ResourceCatalog().mark_damaged(resource_of(1))
    report = scrub()
    assert figures(report) == (5, 0, 0, 0)
    assert report.unmarked == 2
    assert not Resource.objects.damaged().exists()


def test_damage_noticed_while_it_is_read_is_not_unmarked(store: ManagedStorage) -> None:
    catalog = ResourceCatalog()
    read = resource_of(1000)
    catalog.mark_damaged(resource_of(1000))
    assert not catalog.mark_verified(read)
    assert resource_of(1000).damaged_at


def test_the_signal_is_sent_once_and_after_the_commit(
    store: ManagedStorage, stored: Stored, heard: list[tuple[str, bool]], database: str
) -> None:
    damage.flip(stored, resource_of(1000).path, 7)
    with transaction.atomic(using=database):
        scrub()
        assert heard == []
    scrub()
    for _ in range(2):
        with pytest.raises(ContentDamaged):
            store.get_for_bucket("b", "1000").read()
    assert heard == [(resource_of(1000).sha384, False)]


def test_a_receiver_that_fails_stops_nothing(
    store: ManagedStorage, stored: Stored, heard: list[tuple[str, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("the receiver's own trouble")

    for length in LENGTHS:
        damage.flip(stored, resource_of(length).path, 0)
    resource_damaged.connect(fail)
    try:
        assert scrub().damaged == 5
    finally:
        resource_damaged.disconnect(fail)
    assert len(heard) == 5
    assert "the receiver's own trouble" in caplog.text


def test_the_longest_not_verified_come_first_and_a_share_of_all_is_read(store: ManagedStorage) -> None:
    now = timezone.now()
    for age, length in enumerate(LENGTHS[:4]):
        Resource.objects.filter(length=length).update(verified_at=now - timedelta(days=age))
    read: list[int] = []
    for _ in range(5):
        before = set(Resource.objects.filter(verified_at__gt=now).values_list("length", flat=True))
        assert scrub(percent=20).compared == 1
        [length] = set(Resource.objects.filter(verified_at__gt=now).values_list("length", flat=True)) - before
        read.append(length)
    assert read == [LENGTHS[4], *reversed(LENGTHS[:4])]


def test_damage_does_not_keep_the_next_scrub_from_going_on(store: ManagedStorage, stored: Stored) -> None:
    damage.flip(stored, resource_of(1).path, 0)
    assert [scrub(percent=20).compared for _ in range(5)] == [1] * 5
    assert not Resource.objects.filter(verified_at=None).exists()


def test_a_scrub_out_of_time_begins_no_further_content(store: ManagedStorage) -> None:
    assert scrub(max_duration=timedelta(0)).compared == 0
    assert not Resource.objects.exclude(verified_at=None).exists()
    assert scrub(max_duration=timedelta(days=1)).compared == 5


def test_a_scrub_that_was_stopped_goes_on_where_it_was(store: ManagedStorage) -> None:
    def stop(report: ScrubReport) -> None:
        if report.compared == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scrub(on_progress=stop)
    left = set(Resource.objects.filter(verified_at=None))
    assert len(left) == 3
    scrub(percent=60)
    assert not Resource.objects.filter(verified_at=None).exists()


def test_more_contents_than_a_batch_holds_are_each_read_once(
    store: ManagedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCRUB, "BATCH", 2)
    for _ in range(2):
        assert figures(scrub()) == (5, 0, 0, 0)
    Resource.objects.update(verified_at=timezone.now(), storage="gone")
    assert figures(scrub()) == (0, 0, 0, 5)


def test_contents_that_change_while_they_are_read_are_not_marked(store: ManagedStorage, stored: Stored) -> None:
    removed, healed = resource_of(1), resource_of(1000)
    store.remove_for_bucket("b", "1")
    damage.flip(stored, healed.path, 0)
    ResourceCatalog().mark_damaged(healed)
    store.put_for_bucket("b", "1000", content_of(1000))
    damage.truncate(stored, removed.path)
    assert [verify(removed), verify(healed)] == [None, None]
    assert not Resource.objects.damaged().exists()


def test_what_is_found_first_by_a_reader_is_missing_or_damaged_too(store: ManagedStorage, stored: Stored) -> None:
    stored.storage.delete(resource_of(1000).path)
    damage.drop_chunk(stored, resource_of(1_200_000).path, 2)
    for length in (1000, 1_200_000):
        with pytest.raises(ContentDamaged):
            store.get_for_bucket("b", f"{length}").read()
    assert list(Resource.objects.missing()) == [resource_of(1000)]
    assert set(Resource.objects.damaged()) == {resource_of(1000), resource_of(1_200_000)}


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_a_server_that_does_not_answer_damages_nothing(
    store: ManagedStorage, stored: StoredInGridFS, heard: list[tuple[str, bool]]
) -> None:
    with mongo.failing(stored.uri, "find", "aggregate", errorCode=11601):
        report = scrub()
    assert figures(report) == (0, 0, 0, 5)
    assert not Resource.objects.damaged().exists()
    assert not Resource.objects.exclude(verified_at=None).exists()
    assert heard == []
    assert figures(scrub()) == (5, 0, 0, 0)


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_directory_that_is_not_mounted_damages_nothing(store: ManagedStorage, stored: StoredInFiles) -> None:
    stored.directory.rename(stored.directory.with_name("elsewhere"))
    report = scrub()
    assert figures(report) == (0, 0, 0, 5)
    assert "mount or restore it" in report.findings.sample[0].detail
    assert not Resource.objects.damaged().exists()


def test_contents_in_a_storage_gone_from_the_settings_are_unread_and_the_others_are_read(
    store: ManagedStorage,
) -> None:
    Resource.objects.filter(length__in=LENGTHS[1:]).update(storage="gone")
    report = scrub()
    assert figures(report) == (1, 0, 0, 4)
    assert {finding.kind for finding in report.findings.sample} == {Kind.UNREAD}
    assert Resource.objects.filter(verified_at=None).count() == 4


def test_resources_without_bytes_are_passed_over(database: str, stored: Stored) -> None:
    ResourceCatalog().put("ab" * 48, 10)
    report = scrub()
    assert (report.total, *figures(report)) == (0, 0, 0, 0, 0)


def test_the_oldest_are_found_by_the_index(database: str, stored: Stored) -> None:
    rows = [Resource(sha384=f"{n:096x}", length=1, path=f"{n}", verified_at=timezone.now()) for n in range(3000)]
    Resource.objects.bulk_create(rows)
    with connections[database].cursor() as cursor:
        cursor.execute("ANALYZE")
    oldest = Resource.objects.exclude(path="").filter(verified_at__lt=timezone.now()).order_by("verified_at", "pk")
    assert "blobstore_resource_verified" in oldest[:100].explain()
