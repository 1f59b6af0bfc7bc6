"""What is remembered of upkeep, upkeep in steps, and the totals and rankings that it writes down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    Ranking,
    Resource,
    UpkeepRun,
    start_of_day,
)
from django_blobstore.storages.gridfs_bucket import named_id
from django_blobstore.upkeep import ScrubReport, advance, audit, begin, measure, scrub, strangers, sweep
from tests import damage
from tests.invariants import assert_settled, assert_sound, end_leases_and_graces
from tests.stored import Stored, StoredInGridFS
from tests.streams import MIB, content_of

Kind = UpkeepRun.Kind
AUDIT: Any = sys.modules["django_blobstore.upkeep.audit"]
MEASURE: Any = sys.modules["django_blobstore.upkeep.measure"]
RUNS: Any = sys.modules["django_blobstore.upkeep.runs"]
SCRUB: Any = sys.modules["django_blobstore.upkeep.scrub"]
STEPS: Any = sys.modules["django_blobstore.upkeep.steps"]
SWEEP: Any = sys.modules["django_blobstore.upkeep.sweep"]


class Killed(BaseException):
    """Ends a step as the death of its process would, as far as the rows show."""


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The day on which the test begins and, however near midnight is, ends."""
    today = start_of_day()
    monkeypatch.setattr(MEASURE, "start_of_day", lambda: today)
    return today


def put(path: str, content: bytes, bucket: str = "photos") -> ManagedResource:
    return ManagedStorage().put(Namespace(bucket=bucket), path, content)


def runs() -> list[UpkeepRun]:
    return list(UpkeepRun.objects.order_by("pk"))


def through(run: UpkeepRun, *, at_most: int = 100) -> int:
    """Take the smallest steps until `run` has ended; return how many that were."""
    for number in range(1, at_most):
        assert advance(run, seconds=0)
        if UpkeepRun.objects.get(pk=run.pk).ended_at:
            run.refresh_from_db()
            return number
    raise AssertionError(f"{run} has not ended after {at_most} steps.")


def test_each_kind_of_run_is_remembered_with_what_it_did(database: str, stored: Stored) -> None:
    put("a", b"content")
    ManagedStorage().remove_for_bucket("photos", "a")
    end_leases_and_graces()
    sweep(), audit(), scrub()
    swept, audited, scrubbed = runs()
    assert (swept.kind, swept.origin, swept.figures["deleted_bytes"]) == ("sweep", "task", 7)
    assert (audited.kind, audited.figures["files"], audited.figures["found"]) == ("audit", 0, 0)
    assert (scrubbed.kind, scrubbed.figures["compared"]) == ("scrub", 0)
    assert all(run.ended_at and not run.error for run in runs())
    assert set(UpkeepRun.objects.latest_ended()) == set(runs())


def test_commands_say_that_they_began_it_and_a_dry_run_leaves_no_row(database: str, stored: Stored) -> None:
    for command in ("sweep", "audit", "scrub"):
        call_command(f"blobstore_{command}", verbosity=0)
    assert [(run.kind, run.origin) for run in runs()] == [(kind, "command") for kind in ("sweep", "audit", "scrub")]
    call_command("blobstore_sweep", dry_run=True, verbosity=0)
    assert len(runs()) == 3


def test_what_was_found_is_kept(database: str, stored: Stored) -> None:
    missing = put("a", b"content").resource
    stored.storage.delete(missing.path)
    with pytest.raises(CommandError):
        call_command("blobstore_scrub", verbosity=0)
    [run] = runs()
    assert run.figures["missing"] == 1
    assert [(finding["kind"], finding["name"]) for finding in run.findings] == [("file-missing", missing.sha384)]
    assert run.is_eventful


def test_a_run_shows_signs_of_life_while_it_reads_a_long_content(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUNS, "SECONDS_BETWEEN_SIGNS", 0)
    put("long", content_of(3 * MIB))
    seen: list[tuple[int, int]] = []

    def look(report: ScrubReport) -> None:
        seen.append((report.compared_bytes, report.bytes_under_way))
        assert UpkeepRun.objects.get().progress_at > damage.LONG_AGO
        UpkeepRun.objects.update(progress_at=damage.LONG_AGO)

    scrub(on_progress=look)
    assert seen == [(0, MIB), (0, 2 * MIB), (0, 3 * MIB), (3 * MIB, 0)]


def test_an_error_is_told_in_the_row_and_raised(database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("The rim broke.")

    monkeypatch.setattr(AUDIT.usage, "drift", fail)
    put("a", b"content")
    with pytest.raises(RuntimeError):
        audit()
    [run] = runs()
    assert (run.error, bool(run.ended_at)) == ("The rim broke.", True)
    assert not UpkeepRun.objects.latest_ended().exists()


def test_of_sweeps_in_which_nothing_happened_the_last_is_kept(database: str, stored: Stored) -> None:
    PendingFile.objects.create(path="aa/gone", storage="blobstore", lease_until=timezone.now())
    for _ in range(4):
        sweep()
    assert [run.is_eventful for run in runs()] == [True, False]


def test_only_so_many_runs_of_a_kind_are_kept(database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUNS, "KEPT", 3)
    audit()
    for _ in range(5):
        scrub()
    assert [run.kind for run in runs()] == ["audit", "scrub", "scrub", "scrub"]


def test_a_sweep_in_steps_deletes_what_one_in_one_go_does(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SWEEP, "BATCH", 1)
    put("kept", b"kept")
    for n in range(3):
        put("changing", b"%d" % n)
    end_leases_and_graces()
    run = begin(Kind.SWEEP)
    assert through(run) > 2
    assert (run.figures["deleted_files"], run.figures["deleted_bytes"], run.origin) == (2, 2, "admin")
    assert_settled(stored)
    assert_sound(stored)


def test_contents_are_compared_in_steps_and_the_damaged_ones_told(database: str, stored: Stored) -> None:
    for n in range(4):
        put(f"{n}", b"content %d" % n)
    damaged = put("damaged", b"damaged").resource
    damage.flip(stored, damaged.path, 0)
    run = begin(Kind.SCRUB)
    assert through(run) >= 5
    assert run.figures == {"compared": 5, "compared_bytes": 43, "damaged": 1}
    assert [finding["name"] for finding in run.findings] == [damaged.sha384]
    assert Resource.objects.filter(verified_at=None).count() == 0
    assert Resource.objects.damaged().get() == damaged


def reading(monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]) -> None:
    """Have `look` called at each read of a file in a directory."""

    class Watched(File):  # type: ignore[type-arg]  # Django's own class takes no arguments
        def read(self, *args: Any) -> bytes:
            look()
            return cast("bytes", self.file.read(*args))

    itself: Any = FileSystemStorage._open  # type: ignore[attr-defined]
    monkeypatch.setattr(FileSystemStorage, "_open", lambda *args: Watched(itself(*args)))


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_step_that_reads_a_long_content_keeps_its_run(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUNS, "SECONDS_BETWEEN_SIGNS", 0)
    put("long", content_of(3 * MIB))
    leases: list[Any] = []
    reading(monkeypatch, lambda: leases.append(UpkeepRun.objects.get().lease_until))
    run = begin(Kind.SCRUB)
    through(run)
    assert len(leases) == len(set(leases)) > 3
    assert run.figures == {"compared": 1, "compared_bytes": 3 * MIB}


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_step_whose_run_another_has_taken_stops_reading_and_marks_nothing(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUNS, "SECONDS_BETWEEN_SIGNS", 0)
    resource = put("long", content_of(3 * MIB)).resource
    reads: list[int] = []
    reading(monkeypatch, lambda: reads.append(UpkeepRun.objects.update(lease_until=damage.LONG_AGO)))
    run = begin(Kind.SCRUB)
    assert not advance(run)
    assert len(reads) == 1
    resource.refresh_from_db()
    assert (resource.verified_at, resource.damaged_at) == (None, None)
    assert not UpkeepRun.objects.get().findings


def test_chosen_contents_and_damaged_ones_can_be_verified_alone(database: str, stored: Stored) -> None:
    one, other = put("one", b"one").resource, put("other", b"other").resource
    run = begin(Kind.VERIFY, resources=[one.pk])
    through(run)
    assert Resource.objects.get(verified_at=None) == other
    Resource.objects.filter(pk=other.pk).update(damaged_at=timezone.now(), verified_at=timezone.now())
    run = begin(Kind.VERIFY, damaged=True)
    through(run)
    assert run.figures["compared"] == 1
    assert not Resource.objects.damaged().exists(), "The mark was wrong."


def test_an_audit_in_steps_finds_and_mends_what_one_in_one_go_does(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (AUDIT, strangers):
        monkeypatch.setattr(module, "BATCH", 1)
    for bucket in ("a", "b"):
        for n in range(3):
            put(f"{n}", b"content of %d" % n, bucket=bucket)
    ManagedStorage().put(Namespace(user="7"), "mine", b"mine")
    ManagedStorage().put(Namespace(), "everybody's", b"all")
    drifted, missing = Resource.objects.order_by("pk")[:2]
    damage.set_count(drifted, 5)
    stored.storage.delete(missing.path)
    damage.make_old(stored)
    Resource.objects.update(created_at=damage.LONG_AGO)
    whole = audit()
    run = begin(Kind.AUDIT)
    assert through(run) > 12
    assert (run.figures["found"], run.figures["left"]) == (2, 2)
    assert run.figures["kinds"] == whole.findings.figures()["kinds"]
    looked_at = (run.figures["objects"], run.figures["contents"], run.figures["files"])
    assert looked_at == (whole.objects, whole.contents, whole.files) == (8, 5, 4)
    through(mended := begin(Kind.AUDIT, fix=True))
    assert mended.figures["kinds"]["count-too-high"]["fixed"] == 1
    put("0", b"healed", bucket="c")
    assert Resource.objects.get(pk=drifted.pk).reference_count == 2


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_chunks_are_looked_through_in_steps_that_go_on_where_one_was_killed(
    database: str, stored: StoredInGridFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_blobstore.storages.gridfs_inventory.BATCH", 1)
    ids = [7, 2.5, "seven", {"a": 1}, None, named_id("a")]
    for id in ids:
        damage.add_chunks(stored, id, [1, 1, 1])
    damage.make_old(stored)
    put("kept", b"content")
    run, looked_at = begin(Kind.AUDIT), []
    while advance(run, seconds=0):
        run.refresh_from_db()
        if run.position[0] == "chunks" and not run.ended_at:
            looked_at.append((run.done, run.position))
            advance_killed(run, monkeypatch)
    assert run.error == ""
    assert [done for done, _ in looked_at] == list(range(1, len(ids) + 2))
    assert run.figures["kinds"]["chunks-without-file"]["found"] == len(ids)
    assert run.figures["unread"] == {}
    assert damage.count_chunks(stored, 7) == 3


def advance_killed(run: UpkeepRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a step that dies in a look at chunks, and have it count as dead at once."""

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(AUDIT.inventory, "fragments", die)
        with pytest.raises(Killed):
            advance(run)
    UpkeepRun.objects.update(lease_until=timezone.now())


def test_while_a_step_is_at_work_there_is_no_other_one(database: str, stored: Stored) -> None:
    put("a", b"content")
    run = begin(Kind.SCRUB)
    UpkeepRun.objects.update(lease_until=timezone.now() + timedelta(hours=1))
    assert not advance(run)
    assert Resource.objects.get().verified_at is None
    UpkeepRun.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert advance(run, seconds=600)
    assert not advance(run), "It has ended."
    assert Resource.objects.get().verified_at


def test_a_large_content_at_which_steps_die_is_read_once_and_the_others_after_it(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STEPS, "SMALL", 10)
    large, small = put("large", b"x" * 100).resource, put("small", b"y").resource
    asked: list[int] = []

    def die_at_large(resource: Resource, **_: Any) -> None:
        asked.append(resource.pk)
        if resource.pk == large.pk:
            raise Killed

    monkeypatch.setattr(STEPS, "verify", die_at_large)
    run = begin(Kind.SCRUB)
    with pytest.raises(Killed):
        advance(run, seconds=600)
    UpkeepRun.objects.update(lease_until=timezone.now())
    assert advance(run, seconds=600)
    run.refresh_from_db()
    assert asked == [large.pk, small.pk]
    assert (run.total, run.figures["compared"]) == (2, 1)


def test_a_step_that_was_taken_for_dead_stops_and_writes_nothing(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(STEPS, "SMALL", 0)
    put("a", b"a"), put("b", b"b")

    def be_overtaken(resource: Resource, **_: Any) -> None:
        UpkeepRun.objects.update(lease_until=timezone.now() + timedelta(hours=1))

    monkeypatch.setattr(STEPS, "verify", be_overtaken)
    run = begin(Kind.SCRUB)
    assert not advance(run, seconds=600)
    row = UpkeepRun.objects.get()
    assert (row.ended_at, row.figures) == (None, {})


def test_an_error_ends_a_run_in_steps(database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(done: int) -> None:
        raise RuntimeError("The rim broke.")

    monkeypatch.setattr(STEPS, "measuring", fail)
    run = begin(Kind.MEASURE)
    assert advance(run)
    run.refresh_from_db()
    assert (run.error, bool(run.ended_at), run.lease_until) == ("The rim broke.", True, None)


def test_a_sweep_writes_down_the_totals_of_the_store_and_of_each_bucket(database: str, stored: Stored) -> None:
    put("a", b"same"), put("b", b"same"), put("a", b"same", bucket="music"), put("c", b"other", bucket="music")
    Bucket.objects.create(name="empty")
    sweep()
    rows = {str(row.bucket or ""): row.totals for row in Measurement.objects.select_related("bucket")}
    photos, music = (Bucket.objects.get(pk=Namespace(bucket=name).bucket_id) for name in ("photos", "music"))
    assert rows == {"": (4, 17, 9), str(photos): (2, 8, 4), str(music): (2, 9, 9)}


def test_the_totals_of_a_day_are_its_last_and_days_without_a_change_have_none(
    database: str, stored: Stored, today: datetime
) -> None:
    put("a", b"1")
    measure()
    put("b", b"22")
    measure()
    assert sorted(row.logical_bytes for row in Measurement.objects.all()) == [3, 3]
    yesterday = today - timedelta(days=1)
    Measurement.objects.update(day=yesterday.date(), measured_at=yesterday)
    measure()
    assert [row.bucket for row in Measurement.objects.exclude(day=yesterday.date())] == [None]


def test_totals_and_rankings_are_measured_a_part_at_a_time(database: str, stored: Stored) -> None:
    put("a", b"same"), put("b", b"same")
    through(run := begin(Kind.MEASURE))
    assert (run.done, run.total, run.error) == (4, 4, "")
    assert set(Ranking.objects.filter(bucket=None).values_list("by", flat=True)) == set(Ranking.By.values)
    assert Measurement.objects.get(bucket=None).object_count == 2
    first = Ranking.objects.get(bucket=None, by=Ranking.By.LENGTH)
    through(begin(Kind.MEASURE))
    assert Ranking.objects.get(bucket=None, by=Ranking.By.LENGTH).measured_at > first.measured_at


def test_a_sweep_measures_once_an_hour(database: str, stored: Stored, today: datetime) -> None:
    sweep()
    put("a", b"1")
    sweep()
    assert Measurement.objects.get().object_count == 0
    Measurement.objects.update(measured_at=timezone.now() - timedelta(hours=2))
    sweep()
    assert [row.object_count for row in Measurement.objects.all()] == [1, 1]


def test_of_long_ago_the_first_day_of_each_month_is_kept(database: str, stored: Stored) -> None:
    now = timezone.now()
    for days in range(380, 500):
        totals = {"object_count": days, "logical_bytes": 0, "stored_bytes": 0}
        Measurement.objects.create(day=(now - timedelta(days=days)).date(), measured_at=now, **totals)
    measure()
    old = [row for row in Measurement.objects.all() if row.object_count > 400]
    assert 3 <= len(old) <= 4
    assert {row.day.day for row in old} == {1}


def test_the_largest_objects_and_the_most_shared_contents_are_ranked(database: str, stored: Stored) -> None:
    for n in range(12):
        put(f"{n:02}", b"x" * (n + 10))
    for n in range(3):
        put(f"shared {n}", b"s", bucket="music")
    put("also shared", b"s"), put("outside", b"t")
    ManagedStorage().put(Namespace(user="7"), "largest of all", b"z" * 99)
    measure()
    photos, music = (Namespace(bucket=name).bucket_id for name in ("photos", "music"))
    entries = {(row.bucket_id, row.by): row.entries for row in Ranking.objects.all()}
    assert [entry["length"] for entry in entries[photos, "length"]] == list(range(21, 11, -1))
    assert [entry["path"] for entry in entries[None, "length"]][:2] == ["largest of all", "11"]
    assert [entry["count"] for entry in entries[music, "count"]] == [3], "Only what is in the bucket counts."
    assert [entry["count"] for entry in entries[None, "count"]] == [4]
    assert (photos, "count") not in entries
    ManagedStorage().remove_bucket(Bucket.objects.get(pk=photos))
    assert not Ranking.objects.filter(bucket=photos).exists()
    measure()
    assert Ranking.objects.filter(by="length").count() == 2
