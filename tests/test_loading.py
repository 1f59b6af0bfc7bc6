"""The loader of the example project: a large bucket made in bulk is as sound as one whose objects were put."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource
from example_project.loading import load_bucket
from example_project.management.commands.load_bucket import Command
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored


def test_a_loaded_bucket_is_sound_and_can_be_worked_in(database: str, stored: Stored) -> None:
    bucket = load_bucket("large", objects=300, contents=40)
    assert (ManagedResource.objects.count(), Resource.objects.count()) == (300, 40)
    assert_sound(stored)
    store = ManagedStorage()
    store.remove_for_bucket(bucket.pk, "notes-3.txt")
    store.put_for_bucket("large", "notes-4.txt", b"other content")
    assert_settled(stored)


def test_two_loaded_buckets_share_no_content(database: str, stored: Stored) -> None:
    load_bucket("one", objects=30, contents=20)
    load_bucket("two", objects=30, contents=20)
    assert Resource.objects.count() == 40
    assert_sound(stored)


def test_a_bucket_with_objects_is_refused_and_left_as_it_is(database: str, stored: Stored) -> None:
    ManagedStorage().put_for_bucket("large", "mine", b"mine")
    with pytest.raises(CommandError, match="choose another name"):
        call_command(Command(), "large", objects=30, contents=20)
    assert [managed.path for managed in ManagedResource.objects.all()] == ["mine"]
    assert_sound(stored)


@pytest.mark.parametrize("stage", ["contents", "resources", "objects"])
def test_a_run_that_is_cut_short_leaves_nothing_once_a_sweep_has_followed(
    database: str, stored: Stored, stage: str
) -> None:
    def stop(label: str, done: int, total: int) -> None:
        if label == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_bucket("large", objects=30, contents=20, on_progress=stop)
    assert PendingFile.objects.count() == 20
    assert not ManagedResource.objects.exists()
    assert_settled(stored)
    assert stored.names() == set()


@pytest.mark.parametrize("storage_kind", ["files"])
def test_the_command_says_what_it_made(database: str, stored: Stored) -> None:
    said = StringIO()
    call_command(Command(), "large", objects=30, contents=20, stdout=said)
    assert f"The bucket large ({Bucket.objects.get().pk}) has 30 objects" in said.getvalue()
    with pytest.raises(CommandError, match="at most --objects"):
        call_command(Command(), "larger", objects=30, contents=31)
