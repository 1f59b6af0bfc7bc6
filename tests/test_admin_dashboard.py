"""The dashboard and the pages of upkeep: what they tell, to whom, and what their buttons do."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from django_blobstore.admin import upkeep
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    Resource,
    ResumableUpload,
    UpkeepRun,
)
from django_blobstore.upkeep import Finding, Findings, Kind, begin, measure, scrub, sweep
from django_blobstore.upkeep.runs import recorded
from tests.admin_pages import administrator, page, staff, text
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["files"])

KIB = 1024


def put(path: str, content: bytes, bucket: str = "photos") -> ManagedResource:
    return ManagedStorage().put(Namespace(bucket=bucket), path, content)


def dashboard(client: Client, bucket: Bucket | None = None, **query: Any) -> HttpResponse:
    address = page(Measurement, "bucket", bucket.pk) if bucket else page(Measurement, "changelist")
    return client.get(address, query)


def begun(client: Client, what: str) -> tuple[UpkeepRun, HttpResponse]:
    response = client.post(page(UpkeepRun, "begin"), {"what": what}, follow=True)
    return UpkeepRun.objects.latest("pk"), response


def advanced(client: Client, run: UpkeepRun) -> HttpResponse:
    return client.post(page(UpkeepRun, "advance", run.pk), follow=True)


def plain(response: HttpResponse) -> str:
    return text(response).replace("\xa0", " ")


def test_before_anything_was_measured_it_says_what_will(database: str, stored: Stored) -> None:
    shown = plain(dashboard(administrator()))
    assert "Nothing was measured yet" in shown
    assert "Nothing was ranked yet" in shown
    assert "Sweep never due" in re.sub(r"\s+", " ", shown)


def test_totals_savings_and_rankings_of_the_store_are_those_of_the_last_sweep(database: str, stored: Stored) -> None:
    for n in range(4):
        put(f"{n}.txt", b"x" * KIB)
    put("large.bin", b"y" * 4 * KIB)
    sweep()
    put("tomorrow", b"t")
    shown = plain(dashboard(administrator()))
    assert "Objects 5 Logical size 8.0 KB Stored size 5.0 KB Saved by sharing 3.0 KB (38 %)" in shown
    assert "Largest objects Path Size large.bin 4.0 KB" in shown
    assert "References Size" in shown
    assert " 4 1.0 KB" in shown.partition("Most shared")[2]
    assert "tomorrow" not in shown


def test_a_bucket_has_totals_of_this_moment_and_only_its_own_rankings(database: str, stored: Stored) -> None:
    put("mine", b"m" * KIB), put("other", b"o" * 9 * KIB, bucket="music")
    put("one", b"s"), put("two", b"s"), put("three", b"s", bucket="music")
    measure()
    put("now", b"n" * KIB)
    shown = plain(dashboard(administrator(), ManagedResource.objects.get(path="mine").bucket))
    assert "As of now Objects 4 Logical size 2.0 KB" in shown
    assert "other" not in shown
    assert re.search(r"Most shared contents .*? 2 1 byte", shown), "The reference in the other bucket does not count."
    assert "Upkeep of the whole store" in shown
    assert "Run now" not in shown


def test_what_was_removed_is_still_ranked_but_leads_nowhere(database: str, stored: Stored) -> None:
    put("gone.bin", b"y" * KIB)
    measure()
    ManagedStorage().remove_for_bucket("photos", "gone.bin")
    response = dashboard(administrator())
    assert "gone.bin removed" in plain(response)


@pytest.mark.parametrize(("days", "shown"), [("30", 2), ("90", 3), ("365", 4), ("7", 3), ("x", 3)])
def test_growth_is_drawn_and_listed_for_a_period_and_the_day_before(
    database: str, stored: Stored, days: str, shown: int
) -> None:
    for ago in (5, 60, 200, 1000):
        day = (timezone.now() - timedelta(days=ago)).date()
        sums = {"object_count": 1, "logical_bytes": 2048 - ago, "stored_bytes": 1024 - ago}
        Measurement.objects.create(day=day, measured_at=timezone.now(), **sums)
    response = dashboard(administrator(), days=days)
    assert len(response.context["measured"]) == shown
    page = response.content.decode()
    assert page.count('class="blobstore-line ') == 2
    assert not re.search(r'\sstyle=|<style|<script>|\son\w+="', page.partition('id="content-start"')[2])


def test_the_whole_store_is_shown_to_who_may_see_measurements(database: str, stored: Stored) -> None:
    put("secret name", b"x" * KIB), put("again", b"x" * KIB)
    sweep()
    shown = plain(dashboard(staff("view_measurement")))
    assert "Logical size 2.0 KB" in shown
    for hidden in ("secret name", "Largest", "Most shared", "photos", "Upkeep", "Under way"):
        assert hidden not in shown


def test_each_list_on_it_needs_the_permission_for_what_it_lists(database: str, stored: Stored) -> None:
    put("secret name", b"x" * KIB)
    sweep()
    client = staff("view_measurement", "view_managedresource", "view_upkeeprun", "view_pendingfile")
    shown = plain(dashboard(client))
    assert "secret name" in shown
    assert "Files arriving 0" in shown
    for hidden in ("Most shared", "Largest buckets", "Put requests", "Contents damaged", "Run now"):
        assert hidden not in shown


def test_without_any_permission_there_is_no_dashboard(database: str, stored: Stored) -> None:
    put("a", b"1")
    client = staff("view_bucket", "view_resource")
    assert dashboard(client).status_code == 403
    assert dashboard(client, Bucket.objects.get()).status_code == 404
    assert dashboard(client, Bucket(name="never saved")).status_code == 404


def test_the_owner_of_a_bucket_sees_its_dashboard_and_no_other(database: str, stored: Stored) -> None:
    mine, other = put("mine", b"1").bucket, put("other", b"2", bucket="music").bucket
    measure()
    client = staff()
    Bucket.objects.filter(pk=mine.pk).update(owner=User.objects.get(username="staff"))
    assert "mine" in plain(dashboard(client, mine))
    assert dashboard(client, other).status_code == 404


def test_files_requests_and_damage_are_counted_by_the_last_sweep(database: str, stored: Stored) -> None:
    later, earlier = timezone.now() + timedelta(hours=1), timezone.now() - timedelta(hours=1)
    damaged = put("a", b"1").resource
    Resource.objects.filter(pk=damaged.pk).update(damaged_at=timezone.now())
    PendingFile.objects.create(path="arriving", storage="blobstore", lease_until=later)
    PendingFile.objects.create(path="refused", storage="elsewhere", discard=True, due_at=earlier)
    sweep()
    PendingFile.objects.create(path="arriving too", storage="blobstore", lease_until=later)
    shown = plain(dashboard(administrator()))
    assert "Files arriving 1 Files to be deleted later 1 Files overdue for deletion 0" in shown
    assert "Contents damaged 1 Contents missing 0" in shown


def test_what_is_under_way_is_counted_for_a_bucket_and_what_is_due_next_is_told(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, other = put("a", b"1").bucket, put("b", b"2", bucket="music").bucket
    soon, later, earlier = (timezone.now() + timedelta(hours=hours) for hours in (1, 2, -1))
    for n, (where, columns) in enumerate(
        [
            (bucket, {"lease_until": later}),
            (bucket, {"lease_until": later}),
            (bucket, {"discard": True, "due_at": soon}),
            (bucket, {"discard": True, "due_at": earlier}),
            (other, {"lease_until": later}),
            (None, {"lease_until": earlier}),
        ]
    ):
        PendingFile.objects.create(path=f"{n}", storage="blobstore", bucket=where, **columns)
    for n, expires_at in enumerate((soon, earlier)):
        ResumableUpload.objects.create(id=f"{n}", bucket=bucket, path="a", expires_at=expires_at)
    response = dashboard(staff("view_managedresource"), bucket)
    told = "Files arriving 2 Uploads given up 0 Files to be deleted later 1 Files overdue for deletion 1"
    assert f"{told} Uploads in pieces 1" in plain(response)
    assert response.context["under_way"].due_at == earlier
    monkeypatch.setattr("django_blobstore.admin.dashboard.COUNTED", 3)
    User.objects.all().delete()
    assert "There are more than were counted" in plain(dashboard(staff("view_managedresource"), bucket))
    User.objects.all().delete()
    assert "Uploads given up 0" in plain(dashboard(staff("view_managedresource"), other))


def test_what_is_due_next_follows_from_the_last_run(database: str, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"UPKEEP_EVERY": {"sweep": 3600, "scrub": 3600}}
    sweep(), scrub()
    UpkeepRun.objects.filter(kind="scrub").update(ended_at=timezone.now() - timedelta(hours=2))
    lines = {line.kind: line for line in dashboard(administrator()).context["upkeep"].lines}
    assert {kind: line.is_due for kind, line in lines.items()} == {"sweep": False, "scrub": True, "audit": False}
    assert lines["audit"].due_at is None


def test_whoever_may_begin_a_run_is_told_what_mending_does_to_references_of_programs(
    database: str, stored: Stored
) -> None:
    client = administrator()
    for address in (page(Measurement, "changelist"), page(UpkeepRun, "changelist")):
        assert "blobstore_audit --fix --outside-references" in plain(client.get(address))


@pytest.mark.parametrize("what", list(upkeep.OFFERED))
def test_each_button_begins_a_run_that_steps_bring_to_its_end(database: str, stored: Stored, what: str) -> None:
    put("a", b"1")
    client = administrator()
    run, response = begun(client, what)
    assert "It begins." in plain(response)
    assert (run.origin, run.user.username, run.ended_at) == ("admin", "root", None)
    for _ in range(100):
        shown = plain(advanced(client, run))
        if "It took" in shown:
            break
    run.refresh_from_db()
    assert run.ended_at
    assert not run.error


def test_a_step_that_is_at_work_elsewhere_is_waited_for(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SECONDS_TO_WAIT", 0)
    client = administrator()
    run, _ = begun(client, "scrub")
    UpkeepRun.objects.update(lease_until=timezone.now() + timedelta(hours=1))
    assert "under way" in plain(advanced(client, run))
    assert UpkeepRun.objects.get().ended_at is None


def test_upkeep_is_begun_and_gone_on_with_only_by_who_may(database: str, stored: Stored) -> None:
    run = begin("scrub")
    client = staff("view_upkeeprun")
    assert client.post(page(UpkeepRun, "begin"), {"what": "sweep"}).status_code == 403
    assert client.post(page(UpkeepRun, "advance", run.pk)).status_code == 403
    shown = plain(client.get(page(UpkeepRun, "change", run.pk)))
    assert "paused" in shown
    assert "This goes on" not in shown
    assert "Run now" not in plain(client.get(page(UpkeepRun, "changelist")))
    User.objects.get(username="staff").user_permissions.clear()
    assert client.get(page(UpkeepRun, "change", run.pk)).status_code == 403
    assert UpkeepRun.objects.get().position is None


def test_who_has_contents_verified_may_see_that_run_and_no_other(database: str, stored: Stored) -> None:
    resource, hidden = put("a", b"1").resource, begin("audit")
    client = staff("view_resource", "change_resource")
    chosen = {"action": "verify_now", "_selected_action": [resource.pk]}
    client.post(page(Resource, "changelist"), chosen)
    run = UpkeepRun.objects.get(kind="verify")
    assert "Contents compared 1" in plain(advanced(client, run))
    assert advanced(client, hidden).status_code == 403


@pytest.mark.parametrize("view", ["begin", "advance"])
def test_nothing_is_begun_or_gone_on_with_by_a_link(database: str, stored: Stored, view: str) -> None:
    run = begin("scrub")
    args = [run.pk] if view == "advance" else []
    assert administrator().get(page(UpkeepRun, view, *args)).status_code == 405
    assert UpkeepRun.objects.get().position is None


def test_what_nobody_offers_is_not_begun(database: str, stored: Stored) -> None:
    assert administrator().post(page(UpkeepRun, "begin"), {"what": "everything"}).status_code == 404
    assert not UpkeepRun.objects.exists()


def test_a_move_is_on_the_dashboard_once_there_was_one_and_its_page_says_from_where_to_where(
    database: str, stored: Stored
) -> None:
    client = administrator()
    assert {line.kind for line in dashboard(client).context["upkeep"].lines} == {"sweep", "scrub", "audit"}
    with recorded("move", "command", source="old", target="new") as record:
        record.run.figures = {"moved": 3, "moved_bytes": 2048, "overtaken": 0, "in_source": 0}
    assert "contents moved 3 size of what was moved 2.0 KB" in plain(dashboard(client))
    shown = plain(client.get(page(UpkeepRun, "change", record.run.pk)))
    assert "From storage old To storage new" in shown


def test_whatever_upkeep_may_find_is_told_in_words(database: str, stored: Stored) -> None:
    with recorded("audit", "command") as record:
        findings = Findings()
        for kind in Kind:
            findings.add(Finding(kind, "name"))
            record.tell(Finding(kind, "name"))
        record.run.figures = findings.figures()
    shown = plain(administrator().get(page(UpkeepRun, "change", record.run.pk)))
    assert [kind for kind in Kind if kind in shown] == []
    assert shown.count("File missing") == 2


def test_a_run_that_was_killed_is_told_from_one_under_way(database: str, stored: Stored) -> None:
    now = timezone.now()
    long_ago = now - timedelta(hours=1)
    rows = {
        "running": UpkeepRun(kind="audit", origin="task"),
        "silent": UpkeepRun(kind="audit", origin="command", progress_at=long_ago),
        "paused": UpkeepRun(kind="audit", origin="admin", progress_at=long_ago),
        "failed": UpkeepRun(kind="audit", origin="task", ended_at=now, error="It broke."),
    }
    assert {state: upkeep.state_of(run) for state, run in rows.items()} == {state: state for state in rows}
    UpkeepRun.objects.bulk_create(rows.values())
    shown = plain(administrator().get(page(UpkeepRun, "changelist")))
    assert all(word in shown for word in ("under way", "broken off", "paused", "failed", "It broke."))
