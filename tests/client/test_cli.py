"""The ``blobstore`` command: what it prints, what it keeps, and what it exits with."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
from rich.console import Console

from django_blobstore.client import Client, InvalidAddress, Unreachable
from django_blobstore.client.bars import ShownBars
from django_blobstore.client.cli import blobstore
from django_blobstore.client.memory import find_login
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.client.wires import HEADERS, Wire
from tests.conftest import need
from tests.rest import api
from tests.streams import content_of, sha384

CONTENT = content_of(5000)
Run = Callable[..., Result]


@pytest.fixture
def run(home: dict[str, str]) -> Run:
    """Run the command in this process, logged in."""
    return lambda *arguments, code=0, input=None: invoke(home, *arguments, code=code, input=input)


def invoke(environment: dict[str, str], *arguments: object, code: int = 0, input: str | None = None) -> Result:
    mine = {"BLOBSTORE_URL": None, "BLOBSTORE_TOKEN": None, **environment}
    result = CliRunner(env=mine).invoke(blobstore, [str(argument) for argument in arguments], input=input)
    assert result.exit_code == code, result.output
    return result


def documents(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "report.txt"
    file.write_bytes(CONTENT)
    return file


def test_a_bucket_is_found_by_its_name_however_many_there_are(run: Run, wire: Wire, root: User, file: Path) -> None:
    Bucket.objects.bulk_create(Bucket(name=f"other {number}", owner=root) for number in range(1500))
    Bucket.objects.create(name="papers", owner=root)
    received = wire.count_received()
    run("put", file, "papers/a")
    assert received.carried < HEADERS
    Bucket.objects.create(name="papers", owner=root)
    assert "several buckets are called 'papers'" in run("ls", "papers/", code=2).stderr
    assert "you see no bucket called 'paper'" in run("ls", "paper/", code=2).stderr


def test_login_keeps_the_token_for_nobody_else(
    empty_home: dict[str, str], wire: Wire, token: str, tmp_path: Path
) -> None:
    told = invoke(empty_home, "login", wire.url.rstrip("/"), input=f"{token}\n")
    credentials = tmp_path / "config-home" / "blobstore" / "credentials.json"
    assert str(credentials) in told.stdout
    assert token not in told.output
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert stat.S_IMODE(credentials.parent.stat().st_mode) == 0o700
    invoke(empty_home, "ls")


def test_login_gets_a_token_for_a_user(empty_home: dict[str, str], wire: Wire, root: User) -> None:
    invoke(empty_home, "login", wire.url, "--user", "root", input=f"{api.PASSWORD}\n")
    invoke(empty_home, "ls")
    assert Token.objects.get().user == root


def test_a_wrong_password_gets_none(empty_home: dict[str, str], wire: Wire, root: User) -> None:
    told = invoke(empty_home, "login", wire.url, "--user", "root", input="wrong\n", code=4)
    assert told.stderr == "blobstore: The user name or the password is wrong.\n"
    assert not Token.objects.exists()


def test_a_wrong_token_is_not_kept(empty_home: dict[str, str], wire: Wire, root: User, tmp_path: Path) -> None:
    told = invoke(empty_home, "login", wire.url, input="wrong\n", code=4)
    assert "Log in again" in told.stderr
    assert not (tmp_path / "config-home").exists()


def test_what_can_be_no_token_is_told_so(empty_home: dict[str, str], wire: Wire, tmp_path: Path) -> None:
    assert "no token has" in invoke(empty_home, "login", wire.url, input="tokén\n", code=4).stderr
    assert not (tmp_path / "config-home").exists()


def test_the_environment_takes_the_place_of_a_login(
    empty_home: dict[str, str], wire: Wire, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in empty_home.items():
        monkeypatch.setenv(name, value)
    invoke(empty_home, "login", wire.url, input=f"{token}\n")
    assert find_login() == (wire.url, token)
    monkeypatch.setenv("BLOBSTORE_TOKEN", "other")
    assert find_login() == (wire.url, "other")
    monkeypatch.delenv("BLOBSTORE_TOKEN")
    monkeypatch.setenv("BLOBSTORE_URL", "https://elsewhere.example/api")
    assert find_login() == ("https://elsewhere.example/api/", "")


def test_without_a_login_the_way_to_it_is_told(empty_home: dict[str, str]) -> None:
    assert "blobstore login URL" in invoke(empty_home, "ls", code=4).stderr


def test_a_file_goes_there_and_back(run: Run, bucket: Bucket, file: Path, tmp_path: Path) -> None:
    assert run("put", file, "papers/a/").stdout == "sent       papers/a/report.txt\n"
    assert run("put", file, "papers/copy").stdout == "proven     papers/copy\n"
    assert run("cp", "papers/copy", "papers/b/").stdout.endswith("b/copy\n")
    assert run("mv", "papers/b/copy", "papers/c").stdout.endswith(" c\n")
    assert [line.split()[-1] for line in run("ls", "papers/").stdout.splitlines()] == ["a/", "c", "copy"]
    assert [line.split()[-1] for line in run("ls", "-r", "papers").stdout.splitlines()] == ["a/report.txt", "c", "copy"]
    assert sha384(CONTENT) in run("stat", "papers/c").stdout
    assert run("get", "papers/c", tmp_path / "back").stdout == "received   papers/c\n"
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert run("verify", "papers/c", "papers/a/").stdout == "verified   papers/c\nverified   papers/a/report.txt\n"
    assert run("verify", "--file", file, "papers/c").stdout == "verified   papers/c\n"
    assert run("rm", "papers/c").stdout == "removed    papers/c\n"
    assert run("rm", "-r", "papers/").stdout == "removed    papers/a/report.txt\nremoved    papers/copy\n"
    assert not ManagedResource.objects.exists()


def test_a_target_that_ends_with_a_slash_is_a_directory(run: Run, bucket: Bucket, file: Path, tmp_path: Path) -> None:
    run("put", file, "papers/a/")
    run("get", "papers/a/report.txt", f"{tmp_path}/new/")
    assert (tmp_path / "new/report.txt").read_bytes() == CONTENT


def test_buckets_are_made_and_listed(run: Run, bucket: Bucket) -> None:
    uuid = run("mb", "letters").stdout.split()[0]
    assert Bucket.objects.get(name="letters").pk.hex == uuid.replace("-", "")
    assert {line.split()[-1] for line in run("ls").stdout.splitlines()} == {"letters", "papers"}


def test_everything_can_be_had_in_json(run: Run, bucket: Bucket, file: Path, tmp_path: Path) -> None:
    (put,) = documents(run("--json", "put", file, "papers/a"))
    assert (put["how"], put["carried"], put["object"]["sha384"]) == ("sent", len(CONTENT), sha384(CONTENT))
    (listed,) = documents(run("--json", "ls", "papers/"))
    assert listed == put["object"] == documents(run("--json", "stat", "papers/a"))[0]
    (got,) = documents(run("--json", "get", "papers/a", tmp_path / "b"))
    assert got["file"] == str(tmp_path / "b")
    (failed,) = documents(run("--json", "stat", "papers/x", code=3))
    assert (failed["how"], failed["code"]) == ("failed", "resource-not-found")
    removed = documents(run("--json", "rm", "papers/a", "papers/x", code=3))
    assert [(one["how"], one.get("code")) for one in removed] == [("removed", None), ("failed", "resource-not-found")]


def test_sync_tells_what_differs_and_sums_up(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in "abc":
        (tree / name).write_bytes(name.encode())
    run("put", tree / "a", "papers/t/gone")
    assert run("sync", "--dry-run", "--delete", tree, "papers/t").stdout.splitlines()[-1] == (
        "1 to remove, 3 to send; 0 bytes carried"
    )
    told = run("sync", "--delete", tree, "papers/t").stdout.splitlines()
    assert sorted(told[:3]) == ["proven     papers/t/a", "sent       papers/t/b", "sent       papers/t/c"]
    assert told[3:] == ["removed    papers/t/gone", "1 proven, 1 removed, 2 sent; 2 bytes carried"]
    assert run("sync", tree, "papers/t").stdout == "3 unchanged; 0 bytes carried\n"
    assert documents(run("--json", "sync", tree, "papers/t")) == [{"summary": {"unchanged": 3}, "carried": 0}]


def test_no_name_of_a_file_speaks_to_the_terminal(run: Run, bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a\x1b[2J\nb").write_bytes(b"x")
    assert run("sync", "--dry-run", tmp_path / "tree", "papers/t").stdout.splitlines() == [
        "to send    papers/t/a\\x1b[2J\\nb",
        "1 to send; 0 bytes carried",
    ]
    assert "papers/t/a\\x1b[2J\\nb: " in run("sync", tmp_path / "tree", "papers/t", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["stat", "papers/x"], 3, "blobstore ls"),
        (["get", "papers/x"], 3, "blobstore ls"),
        (["stat", "papers/"], 2, "names a folder"),
        (["rm", "papers/"], 2, "--recursive"),
        (["put", "FILE", "FILE", "papers/x"], 2, "slash"),
        (["cp", "papers/x", "papers/y"], 3, "blobstore ls"),
        (["verify", "--file", "FILE", "papers/other"], 5, "not the content"),
        (["put", "nothing", "papers/x"], 2, "does not exist"),
        (["put", "FOLDER", "papers/x"], 2, "blobstore sync"),
        (["login", "localhost:8000/api", "--user", "root"], 2, "begins with http"),
        (["put", "FILE", f"papers/{'x' * 2000}"], 1, "another path"),
        (["put", "FILE", "FILE", "papers/"], 2, "2 files are called 'report.txt'"),
        (["mb", "papers"], 2, "it would name two buckets"),
        (["mb", "me"], 2, "choose another name"),
        (["mb", "a/b"], 2, "choose another name"),
        (["login", "http://:8000/"], 2, "'http://:8000/' is not an address"),
    ],
)
def test_each_failure_has_its_code_and_a_way_out(
    run: Run, bucket: Bucket, file: Path, arguments: list[str], code: int, told: str
) -> None:
    ManagedStorage().put(Namespace(bucket=bucket.pk), "other", b"other")
    files = {"FILE": str(file), "FOLDER": str(file.parent)}
    result = run(*(files.get(argument, argument) for argument in arguments), code=code)
    assert told in result.stderr
    assert ManagedResource.objects.get().path == "other"
    assert Bucket.objects.get() == bucket


def test_no_address_leads_out_of_its_bucket(run: Run, bucket: Bucket) -> None:
    assert "'..' segment" in run("rm", "papers/..", code=2).stderr
    assert Bucket.objects.get() == bucket


def test_who_may_not_is_told_so(home: dict[str, str], bucket: Bucket, file: Path) -> None:
    other = api.person("other", "view_managedresource", "view_bucket")
    token = Token.objects.create(user=other).key
    result = invoke(home | {"BLOBSTORE_TOKEN": token}, "put", file, f"{bucket.pk}/a", code=4)
    assert "Ask the owner" in result.stderr


def test_what_would_be_waited_for_in_silence_is_told(
    nobody: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("django_blobstore.client.transport._ATTEMPTS", 2)
    told: list[tuple[Exception, float]] = []
    with (
        Client(nobody, "token", state=tmp_path, on_wait=lambda *of: told.append(of)) as one,
        pytest.raises(Unreachable) as raised,
    ):
        one.buckets()
    [(error, seconds)] = told
    assert str(error) == str(raised.value)
    assert 0 < seconds < 1


def test_nobody_there_has_a_code_of_its_own(nobody: str, home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_blobstore.client.transport._ATTEMPTS", 1)
    assert "cannot be reached" in invoke(home | {"BLOBSTORE_URL": nobody}, "ls", code=6).stderr


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).parent / "blobstore"
    need(command.exists(), "installed package with its blobstore command")
    done = subprocess.run([command, "--help"], env=os.environ, capture_output=True, text=True, timeout=240)
    assert all(name in done.stdout for name in blobstore.commands)
    assert set(blobstore.commands) == {
        *("login", "ls", "mb", "put", "get", "rm", "cp", "mv", "stat", "verify", "sync"),
    }


def test_bars_come_and_go() -> None:
    with ShownBars() as bars:
        move = bars.of("me/[/a]")
        move("hash", 0, 10)
        move("send", 5, 10)
        (bar,) = bars._progress.tasks
        assert (bar.description, bar.completed, bar.total) == ("sending me/[/a]", 5, 10)
        shown = io.StringIO()
        Console(file=shown, width=200).print(bars._progress)
        assert "sending me/[/a]" in shown.getvalue()
        bars.end("me/[/a]")
        bars.end("me/[/a]")
        assert bars._progress.tasks == []


def test_an_address_is_an_error_of_values_too() -> None:
    assert issubclass(InvalidAddress, ValueError)
