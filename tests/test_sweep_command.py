"""`manage.py blobstore_sweep`: what it says, when it fails, and how it stops."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db.models.functions import Now

from django_blobstore.models import PendingFile
from tests import servers
from tests.conftest import ON_ONE_DATABASE
from tests.settings import DEPLOYMENT_VARIABLE, SQLITE
from tests.stored import Stored

ONE_SECOND_AGO = Now() - timedelta(seconds=1)

# What a sweep does is tested on every database where it is tested; what is asked here is what the command says of it.
pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True),
]


class Terminal(io.StringIO):
    """What a terminal would show."""

    def isatty(self) -> bool:
        return True


def leave(stored: Stored, *names: str, storage: str = "blobstore", length: int = 10) -> None:
    for name in names:
        if storage == "blobstore":
            stored.storage.save(name, ContentFile(b"0123456789"))
        PendingFile.objects.create(path=name, storage=storage, discard=True, due_at=Now(), length=length)


def said(*arguments: str, **options: Any) -> str:
    """Run the command and return what it said."""
    output = io.StringIO()
    call_command("blobstore_sweep", *arguments, stdout=output, stderr=options.pop("stderr", output), **options)
    return output.getvalue()


@contextmanager
def running(*arguments: str, **deployment: Any) -> Iterator[subprocess.Popen[str]]:
    """Run the command in another process, on the current database and storage or what `deployment` says instead."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        DEPLOYMENT_VARIABLE: json.dumps(json.loads(servers.deployment()) | deployment),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "django", "blobstore_sweep", *arguments]
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_deletes_and_tells_in_exact_and_human_units(stored: Stored) -> None:
    leave(stored, "aa/one", length=5_000_000)
    leave(stored, "aa/two", length=10)
    PendingFile.objects.create(path="aa/dead", storage="blobstore", lease_until=ONE_SECOND_AGO)
    assert said() == "Deleted 3 files, 4.8 MiB (5,000,010 bytes); 1 abandoned upload, 0 expired; 0 old put requests.\n"
    assert not PendingFile.objects.exists()
    assert stored.names() == set()


def test_a_dry_run_only_tells(stored: Stored) -> None:
    leave(stored, "aa/one")
    assert said("--dry-run").startswith("Would delete 1 file, 10 bytes; ")
    assert PendingFile.objects.count() == 1
    assert stored.names() == {"aa/one"}


@pytest.mark.parametrize("storage_kind", ["files"])
class TestOnOneKindOfStorage:
    def test_with_nothing_to_do_it_says_so_once(self, stored: Stored) -> None:
        assert said() == "Deleted 0 files, 0 bytes; 0 abandoned uploads, 0 expired; 0 old put requests.\n"

    def test_it_is_silent_if_told_to_be(self, stored: Stored) -> None:
        leave(stored, "aa/one")
        assert said(verbosity=0, stderr=Terminal()) == ""
        assert stored.names() == set()

    def test_progress_is_shown_on_a_terminal_only(self, stored: Stored) -> None:
        leave(stored, "aa/one")
        terminal = Terminal()
        assert "\r" not in said(stderr=terminal)
        assert "1 of 1" in terminal.getvalue()
        leave(stored, "aa/two")
        pipe = io.StringIO()
        said(stderr=pipe)
        assert pipe.getvalue() == ""

    def test_it_fails_if_files_could_not_be_deleted_and_tells_what_it_did(self, stored: Stored) -> None:
        leave(stored, "aa/far", storage="elsewhere")
        leave(stored, "aa/near")
        output = io.StringIO()
        with pytest.raises(CommandError, match="1 file could not be deleted") as raised:
            call_command("blobstore_sweep", stdout=output)
        assert raised.value.returncode == 1
        assert output.getvalue().startswith("Deleted 1 file,")
        assert [row.path for row in PendingFile.objects.all()] == ["aa/far"]

    @pytest.mark.parametrize("every", ["0", "-1", "soon", "inf", "nan"])
    def test_an_interval_of_no_use_is_refused(self, stored: Stored, every: str) -> None:
        with pytest.raises(CommandError, match="--every"):
            call_command("blobstore_sweep", f"--every={every}")

    @pytest.mark.parametrize("asked_by", [signal.SIGINT, signal.SIGTERM])
    def test_it_goes_on_every_so_many_seconds_until_a_signal_and_ends_well(
        self, stored: Stored, asked_by: signal.Signals
    ) -> None:
        leave(stored, "aa/one")
        with running("--every=0.2") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Deleted 1 file,")
            leave(stored, "aa/two", "aa/three")
            assert process.stdout.readline().startswith("Deleted ")
            process.send_signal(asked_by)
            output, errors = process.communicate(timeout=240)
        assert (process.returncode, errors) == (0, "")
        assert all(line.startswith("Deleted 1 file,") for line in output.splitlines())

    def test_it_says_nothing_of_rounds_with_nothing_to_do_unless_asked(self, stored: Stored) -> None:
        with running("--every=0.1", "--verbosity=2") as process:
            assert process.stdout is not None
            assert [process.stdout.readline()[:15] for _ in range(3)] == ["Deleted 0 files"] * 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(240) == 0

    def test_it_ends_badly_if_the_last_round_could_not_delete_a_file(self, stored: Stored) -> None:
        leave(stored, "aa/far", storage="elsewhere")
        with running("--every=60") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Deleted 0 files,")
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=240)
        assert process.returncode == 1
        assert "1 file could not be deleted" in errors

    def test_it_waits_for_a_catalog_that_cannot_be_reached(self, stored: Stored) -> None:
        with running("--every=0.1", database=SQLITE | {"NAME": "/nowhere/catalog.sqlite3"}) as process:
            assert process.stderr is not None
            for _ in range(2):
                assert process.stderr.readline().startswith("The catalog cannot be reached, the next round tries again")
            process.send_signal(signal.SIGTERM)
            assert process.wait(240) == 0
