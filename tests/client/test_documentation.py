"""docs/client.md: its lines run as they stand, its tables are whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_blobstore.client import problems
from django_blobstore.client.cli import INTERRUPTED, blobstore
from django_blobstore.models import ManagedResource, Resource
from tests.client.wires import Wire

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "client.md").read_text()
# As it is installed, but from this tree.
COMMAND = 'blobstore() { "$PYTHON" -m django_blobstore.client "$@"; }\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def logged_out(empty_home: dict[str, str], token: str) -> dict[str, str]:
    mine = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "TOKEN": token}
    return os.environ | empty_home | mine


def test_every_example_runs_as_it_stands(logged_out: dict[str, str], wire: Wire, tmp_path: Path) -> None:
    script = COMMAND + "".join(blocks("bash")).replace("http://127.0.0.1:8000/api", wire.url)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=logged_out, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "2 unchanged; 0 bytes carried" in done.stdout
    assert (tmp_path / "everything" / "hello.txt").read_text() == "All is well.\n"
    assert ManagedResource.objects.get().path == "backup/notes/one.txt"
    for code in blocks("python"):
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, cwd=tmp_path, env=logged_out, capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stderr
        assert "removed" in ran.stdout or "404 resource-not-found" in ran.stdout
    assert not Resource.objects.exists()


def test_every_command_is_shown() -> None:
    assert {name for name in blobstore.commands if f"blobstore {name} " in PAGE} == set(blobstore.commands)


def test_every_exit_code_is_in_the_table() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    names = ("FAILED", "USAGE", "NOT_FOUND", "NOT_ALLOWED", "DIFFERENT", "UNREACHABLE", "NO_ROOM")
    assert told == {0, INTERRUPTED, *(getattr(problems, name) for name in names)}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
