"""What an operator sees of `manage.py blobstore_audit`, and what it exits with."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.resource_storage import fresh_path
from django_blobstore.storages import hooks
from tests import damage
from tests.invariants import assert_settled
from tests.stored import Stored


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    """A store with a count that is too high, and a file of six bytes without a row."""
    store = ManagedStorage()
    store.put_for_bucket("b", "one", b"one")
    store.put_for_bucket("b", "two", b"two")
    hooks.save(stored.storage, fresh_path(), ContentFile(b"orphan"))
    damage.make_old(stored)
    Resource.objects.update(created_at=damage.LONG_AGO)
    damage.set_count(ManagedResource.objects.get(path="one").resource, 5)
    return store


def run(*options: str, **streams: Any) -> tuple[str, str]:
    """Return what the command wrote and the error it ended with, if any."""
    out = streams.pop("stdout", io.StringIO())
    error = ""
    try:
        call_command("blobstore_audit", *options, stdout=out, stderr=streams.pop("stderr", io.StringIO()))
    except CommandError as failure:
        error = str(failure)
    return out.getvalue(), error


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["plain", "dry run"])
def test_without_fix_it_tells_what_is_wrong_changes_nothing_and_fails(
    store: ManagedStorage, stored: Stored, options: list[str]
) -> None:
    out, error = run(*options)
    assert "count-too-high: " in out
    assert "counts 5 references, 1 objects refer to it" in out
    assert "Looked at 2 objects, 2 contents and 3 files." in out
    assert "  file-without-row: 1, 6 bytes\n" in out
    assert error == "2 are wrong; --fix mends what can be mended."
    assert ManagedResource.objects.get(path="one").resource.reference_count == 5
    assert len(stored.names()) == 3


def test_with_fix_it_mends_and_does_not_fail(store: ManagedStorage, stored: Stored) -> None:
    out, error = run("--fix")
    assert "count-too-high fixed: " in out
    assert "  file-without-row: 1, 6 bytes, 1 fixed\n" in out
    assert error == ""
    assert_settled(stored)
    assert run() == ("Looked at 2 objects, 2 contents and 2 files.\n", "")


def test_what_cannot_be_mended_fails_with_fix_too(store: ManagedStorage, stored: Stored) -> None:
    stored.storage.delete(ManagedResource.objects.get(path="two").resource.path)
    assert run("--fix")[1] == "1 is wrong still."
    assert Resource.objects.missing().count() == 1


def test_json_is_one_document_with_every_finding(store: ManagedStorage) -> None:
    out, error = run("--json")
    document = json.loads(out)
    assert [finding["kind"] for finding in document["findings"]] == ["count-too-high", "file-without-row"]
    assert document["findings"][1]["length"] == 6
    assert document["summary"] == {
        "fix": False,
        "objects": 2,
        "contents": 2,
        "files": 3,
        "unread": {},
        "kinds": {
            "count-too-high": {"found": 1, "bytes": 3, "fixed": 0},
            "file-without-row": {"found": 1, "bytes": 6, "fixed": 0},
        },
        "left": 2,
    }
    assert error


def test_json_of_a_sound_store_is_a_document_too(database: str, stored: Stored) -> None:
    out, error = run("--json")
    assert json.loads(out)["findings"] == []
    assert error == ""


def test_a_long_list_is_cut_unless_asked_for(database: str, stored: Stored) -> None:
    for _ in range(103):
        hooks.save(stored.storage, fresh_path(), ContentFile(b"x"))
    damage.make_old(stored)
    out, _ = run()
    assert out.count("file-without-row: ") == 100 + 1
    assert "… and 3 more; --verbosity=2 or --json tells all." in out
    assert run("--verbosity=2")[0].count("file-without-row: ") == 103 + 1
    assert run("--verbosity=0")[0] == ""
    assert len(json.loads(run("--json")[0])["findings"]) == 103


def test_a_bar_moves_on_a_terminal_and_nowhere_else(store: ManagedStorage) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    run(stderr=terminal)
    run(stderr=pipe)
    assert "100% contents: 2 of 2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert pipe.getvalue() == ""


def test_a_storage_that_cannot_be_asked_fails(store: ManagedStorage) -> None:
    Resource.objects.filter(length=3).update(storage="gone")
    assert "Storage 'gone' could not be asked" in run("--fix")[1]


def test_references_of_the_caller_are_left_alone_if_said(store: ManagedStorage) -> None:
    run("--fix", "--outside-references")
    assert ManagedResource.objects.get(path="one").resource.reference_count == 5


def test_a_longer_guard_leaves_more_alone(store: ManagedStorage, stored: Stored) -> None:
    assert run("--fix", "--older-than=1000000") == ("Looked at 2 objects, 2 contents and 3 files.\n", "")
    assert len(stored.names()) == 3


@pytest.mark.parametrize("options", [["--older-than=0"], ["--older-than=x"], ["--fix", "--dry-run"]], ids=str)
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("blobstore_audit", *options)
