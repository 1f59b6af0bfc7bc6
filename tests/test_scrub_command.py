"""What an operator sees of `manage.py blobstore_scrub`, and what it exits with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from django_blobstore.managed import ManagedStorage
from django_blobstore.management import wording
from django_blobstore.models import ManagedResource, Resource
from tests import damage, servers
from tests.stored import Stored
from tests.streams import MIB, content_of
from tests.test_audit_command import Terminal


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    store = ManagedStorage()
    for content in (b"a", b"bb", b"ccc", b"dddd"):
        store.put_for_bucket("b", content.decode(), content)
    return store


def path_of(name: str) -> str:
    return ManagedResource.objects.get(path=name).resource.path


def run(*options: str, stderr: io.StringIO | None = None) -> tuple[str, str]:
    """Return what the command wrote and the error it ended with, if any."""
    out = io.StringIO()
    try:
        call_command("blobstore_scrub", *options, stdout=out, stderr=stderr or io.StringIO())
    except CommandError as failure:
        return out.getvalue(), str(failure)
    return out.getvalue(), ""


def test_a_sound_store_is_told_in_a_line(store: ManagedStorage) -> None:
    assert run() == ("Compared 4 of 4 contents, 10 bytes.\n", "")
    assert run("--verbosity=0") == ("", "")


def test_each_kind_of_damage_is_told_and_makes_it_fail(store: ManagedStorage, stored: Stored) -> None:
    damage.flip(stored, path_of("a"), 0)
    stored.storage.delete(path_of("bb"))
    Resource.objects.filter(length=3).update(storage="gone")
    out, error = run()
    assert "file-of-other-hash: " in out
    assert "file-missing: " in out
    assert "unread: " in out
    assert "Compared 3 of 4 contents, 7 bytes." in out
    assert error == "1 content damaged, 1 missing, 1 unread."


@pytest.mark.parametrize("harm", ["damaged", "missing", "unread"])
def test_one_of_any_kind_is_enough_to_fail(store: ManagedStorage, stored: Stored, harm: str) -> None:
    {
        "damaged": lambda: damage.truncate(stored, path_of("bb")),
        "missing": lambda: stored.storage.delete(path_of("bb")),
        "unread": lambda: Resource.objects.filter(length=2).update(storage="gone"),
    }[harm]()
    assert f"1 {harm}" in run()[1] or f"1 content {harm}" in run()[1]


def test_a_wrong_mark_that_is_taken_away_is_told(store: ManagedStorage) -> None:
    Resource.objects.filter(length=1).update(damaged_at=damage.LONG_AGO)
    assert run() == ("Compared 4 of 4 contents, 10 bytes; 1 wrong mark taken away.\n", "")


def test_json_is_one_document(store: ManagedStorage, stored: Stored) -> None:
    damage.flip(stored, path_of("bb"), 0)
    out, error = run("--json")
    document = json.loads(out)
    [finding] = document["findings"]
    assert (finding["kind"], finding["length"], finding["storage"]) == ("file-of-other-hash", 2, "blobstore")
    assert document["summary"] == {
        "total": 4,
        "compared": 4,
        "compared_bytes": 10,
        "unmarked": 0,
        "damaged": 1,
        "missing": 0,
        "unread": 0,
        "kinds": {"file-of-other-hash": {"found": 1, "bytes": 2, "fixed": 0}},
        "left": 1,
    }
    assert error


def test_a_share_is_read_at_a_time(store: ManagedStorage) -> None:
    for left in (2, 0):
        assert run("--percent=50")[0].startswith("Compared 2 of 2 contents")
        assert Resource.objects.filter(verified_at=None).count() == left


def test_a_bar_moves_on_a_terminal(store: ManagedStorage) -> None:
    terminal = Terminal()
    run(stderr=terminal)
    assert "100% 10 bytes: 4 of 4" in terminal.getvalue()


def test_the_bar_follows_the_bytes_of_a_long_content(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wording, "REDRAW_SECONDS", 0)
    ManagedStorage().put_for_bucket("b", "long", content_of(3 * MIB))
    terminal = Terminal()
    run(stderr=terminal)
    for number in (1, 2, 3):
        assert f"0% {number}.0 MiB ({number * MIB:,} bytes): 0 of 1" in terminal.getvalue()
    assert f"100% 3.0 MiB ({3 * MIB:,} bytes): 1 of 1" in terminal.getvalue()


@pytest.mark.parametrize(
    "options", [["--percent=0"], ["--percent=101"], ["--percent=x"], ["--max-duration=0"]], ids=str
)
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("blobstore_scrub", *options)


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_scrub_killed_on_its_way_keeps_what_it_did(store: ManagedStorage, database: str) -> None:
    plan = {"BLOBSTORE_FAILPOINTS": "kill:6", servers.DEPLOYMENT_VARIABLE: servers.deployment()}
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | plan
    killed = subprocess.run([sys.executable, "-m", "django", "blobstore_scrub"], env=environment, check=False)
    assert killed.returncode == -9
    assert Resource.objects.filter(verified_at=None).count() == 1
    assert run("--percent=25") == ("Compared 1 of 1 content, 4 bytes.\n", "")
    assert not Resource.objects.filter(verified_at=None).exists()
