"""Many at once on the same paths and contents: counts equal rows, no file is orphaned, and nothing is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial

import pytest
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import Settings

from django_blobstore.conf import conf
from django_blobstore.errors import ResourceDeleted, ResourceNotFound
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, PendingFile, Resource
from django_blobstore.proof import answer
from django_blobstore.upkeep import sweep
from tests.invariants import assert_empty, assert_settled
from tests.stored import Stored
from tests.storm import BUCKET, Actor, act
from tests.streams import MIB, Generated, Stream, content_of, sha384
from tests.together import child, outcomes, printed, results

ACTORS = 8
PROCESSES = 4
STEPS = int(os.environ.get("BLOBSTORE_STORM_STEPS", "30"))
MEBIBYTES = int(os.environ.get("BLOBSTORE_SAME_MEBIBYTES", "16"))


def assert_holds(acknowledged: Iterable[tuple[str, str | None]]) -> None:
    """Fail unless each actor's own path holds what was last acknowledged to it."""
    held = dict(ManagedResource.objects.filter(path__startswith="own/").values_list("path", "resource__sha384"))
    assert held == {path: sha384 for path, sha384 in acknowledged if sha384 is not None}


def test_a_storm_of_threads_leaves_every_count_right_and_nothing_lost(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 300 if stored.kind == "gridfs" else 0}
    acknowledged = results(*(Actor(seed, STEPS).run for seed in range(ACTORS)))
    assert_holds(acknowledged)
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_a_storm_of_processes_leaves_every_count_right_and_nothing_lost(
    database: str, stored: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    with ExitStack() as stack:
        children = [stack.enter_context(child(act, seed, STEPS)) for seed in range(PROCESSES)]
        acknowledged = [json.loads(printed(process)) for process in children]
    assert_holds(acknowledged)
    assert_settled(stored)


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_ten_puts_of_the_same_content_to_one_path_all_succeed_and_one_file_stays(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    done = results(*(lambda: store.put(BUCKET, "same", Generated(MEBIBYTES)) for _ in range(10)))
    assert len({managed.pk for managed in done}) == 1
    assert [managed.was_created for managed in done].count(True) == 1
    resource = Resource.objects.get()
    assert (resource.length, resource.reference_count) == (MEBIBYTES * MIB, 1)
    assert_settled(stored)
    assert stored.names() == {resource.path}


def test_puts_of_one_new_content_to_many_paths_share_one_file(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    content = content_of(MIB + 1)
    results(*(partial(store.put, BUCKET, f"path/{n}", Stream(content)) for n in range(8)))
    resource = Resource.objects.get()
    assert resource.reference_count == 8
    assert_settled(stored)
    assert stored.names() == {resource.path}


def test_removes_of_one_object_at_once_give_back_one_reference(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for path in ("a", "b"):
        store.put(BUCKET, path, b"shared")
    done = outcomes(*(partial(store.remove, BUCKET, "a") for _ in range(8)))
    assert done.count(None) == 1
    assert {type(error) for error in done if error} == {ResourceNotFound}
    assert Resource.objects.get().reference_count == 1
    assert store.get(BUCKET, "b").read() == b"shared"
    assert_settled(stored)


def test_overwrites_of_one_object_at_once_give_back_one_reference(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for path in ("a", "b"):
        store.put(BUCKET, path, b"shared")
    results(*(partial(store.put, BUCKET, "a", content_of(100, n)) for n in range(8)))
    assert Resource.objects.get(sha384=sha384(b"shared")).reference_count == 1
    assert Resource.objects.count() == 2
    assert store.get(BUCKET, "b").read() == b"shared"
    assert_settled(stored)


def test_proofs_and_the_removal_of_their_content_at_once_end_as_one_after_the_other(
    database: str, stored: Stored
) -> None:
    store = ManagedStorage()
    content = content_of(1000)
    for _ in range(5):
        store.put(BUCKET, "a", content)
        asked = [store.put_request(BUCKET, f"proven/{n}", sha384(content)) for n in range(4)]
        answers = [answer(content, request, sha384(content)) for request in asked]
        proofs = [partial(store.proof_of_access_response, one) for one in answers]
        *proven, removed = outcomes(*proofs, partial(store.remove, BUCKET, "a"))
        assert removed is None
        refused = [error for error in proven if isinstance(error, BaseException)]
        assert {type(error) for error in refused} <= {ResourceDeleted}
        kept = ManagedResource.objects.filter(path__startswith="proven/")
        assert kept.count() == len(proven) - len(refused)
        assert_settled(stored)
        for managed in kept:
            store.remove(BUCKET, managed.path)


def test_sweeps_at_once_share_the_work(database: str, stored: Stored) -> None:
    store = ManagedStorage()
    for n in range(20):
        store.put(BUCKET, f"path/{n}", content_of(10, n))
        store.remove(BUCKET, f"path/{n}")
    PendingFile.objects.update(due_at=Now())
    results(*(sweep for _ in range(4)))
    assert_empty(stored)


class Clock:
    """Stands still unless it is set forward, and then for the leases in the catalog too."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def set_forward(self, seconds: float) -> None:
        self.now += seconds
        PendingFile.objects.update(lease_until=F("lease_until") - timedelta(seconds=seconds))


@pytest.mark.parametrize("storage_kind", ["files"])
def test_no_sweep_touches_an_upload_that_is_alive(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slower than its lease, and never long without a byte."""
    clock, store = Clock(), ManagedStorage()
    monkeypatch.setattr("django_blobstore.arrival.time", clock)

    def pause() -> None:
        clock.set_forward(conf.LEASE / 4)
        assert sweep().total_files == 0

    content = content_of(2_600_000)
    store.put(BUCKET, "slow", Stream(content, dict.fromkeys(range(1_100_000, 2_600_000, 100_000), pause)))
    assert clock.now > 3 * conf.LEASE
    assert store.get(BUCKET, "slow").read() == content
    assert_settled(stored)
