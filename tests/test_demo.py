"""`manage.py demo`, as a newcomer starts it and ends it: a process of its own, seen from outside."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from example_project import mongod
from example_project.samples import samples
from tests.conftest import need

ROOT = Path(__file__).parent.parent
SECONDS_TO_START = 240
SECONDS_TO_END = 240

pytestmark = pytest.mark.timeout(1000)


class Demo:
    """A running demo and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""
        self.children: list[psutil.Process] = []

    def wait_until_serving(self) -> None:
        """Read what it says up to its last line."""
        for line in self.process.stdout:
            self.output += line
            if "Ctrl-C" in line:
                self.children = psutil.Process(self.process.pid).children(recursive=True)
                return
        raise AssertionError(f"The demo ended early:\n{self.output}")

    def said(self, label: str) -> str:
        """Return what stands behind `label` in its output."""
        return re.search(rf"^ +{label} +(.*)$", self.output, re.MULTILINE).group(1)

    @property
    def client(self) -> httpx.Client:
        """A client that is logged in as the output says."""
        username, password = self.said("Log in").split(" / ")
        url = self.said("Admin").removesuffix("/admin/")
        return httpx.Client(base_url=url, auth=(username, password), timeout=240, follow_redirects=True)

    def still_running(self) -> list[psutil.Process]:
        """Return the processes it had started that are alive."""
        return [child for child in self.children if is_alive(child)]

    def end(self, how: signal.Signals) -> str:
        """Send it a signal and return the rest of what it says."""
        self.process.send_signal(how)
        rest, _ = self.process.communicate(timeout=SECONDS_TO_END)
        return rest


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def demo(data: Path, *options: str, **environment: str) -> Iterator[Demo]:
    """Start the demo on a free port with `data` as its directory."""
    env = {name: value for name, value in os.environ.items() if name not in ("MONGODB_URI", "DJANGO_SETTINGS_MODULE")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "demo", f"--data={data}", "--port=0", *options],
        env=env | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Demo(process)
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS_TO_END)


@contextmanager
def serving_demo(data: Path, *options: str, **environment: str) -> Iterator[Demo]:
    with demo(data, *options, **environment) as running:
        running.wait_until_serving()
        yield running


@pytest.fixture
def without_mongod(tmp_path: Path) -> dict[str, str]:
    """An environment where the demo finds no mongod: an empty PATH, and a package that hides the wheel's."""
    hidden = tmp_path / "hidden"
    (hidden / "fiftyone").mkdir(parents=True)
    (hidden / "fiftyone" / "__init__.py").touch()
    return {"PYTHONPATH": str(hidden), "PATH": str(hidden)}


def admin_after_login(running: Demo) -> str:
    """Log in as the output says, in a session of its own, and return the first page."""
    url = running.said("Admin")
    username, password = running.said("Log in").split(" / ")
    with httpx.Client(follow_redirects=True, timeout=240) as client:
        page = client.get(f"{url}login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text).group(1)
        form = {"username": username, "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        return client.post(f"{url}login/", data=form).text


def bucket_names(client: httpx.Client) -> set[str]:
    answer = client.get("/api/buckets/", headers={"Accept": "application/json"}).raise_for_status().json()
    return {bucket["name"] for bucket in answer["buckets"]}


def said_in_shell(running: Demo, code: str) -> str:
    """Return what Python says to `code` in the shell that the output tells of."""
    line = f"{running.said('Python')} --verbosity=0 --command={shlex.quote(code)}"
    env = {name: value for name, value in os.environ.items() if name not in ("MONGODB_URI", "DJANGO_SETTINGS_MODULE")}
    return subprocess.run(line, shell=True, env=env, capture_output=True, text=True, check=True).stdout


def assert_nothing_runs_on_when_killed(running: Demo) -> None:
    running.end(signal.SIGKILL)
    if sys.platform != "linux":  # only there can children be tied to their parent
        return
    deadline = time.monotonic() + SECONDS_TO_END
    while running.still_running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running.still_running()


def test_a_newcomer_finds_the_admin_the_api_and_its_docs_and_the_next_run_keeps_the_data(tmp_path: Path) -> None:
    need(mongod.find_mongod(), "mongod")
    with serving_demo(tmp_path) as first:
        assert "GridFS" in first.said("Bytes")
        assert f"{len(list(samples()))} objects" in first.said("Samples")
        assert {child.name() for child in first.children} >= {"mongod"}
        assert "Log out" in admin_after_login(first)
        with first.client as client:
            assert {"website", "photos", "backups"} <= bucket_names(client)
            assert "swagger" in client.get("/api/docs/").text
            icon = client.get("/favicon.ico", follow_redirects=True)
            assert icon.headers["content-type"] == "image/svg+xml"
            client.post("/api/buckets/", json={"name": "mine"}).raise_for_status()
        assert "<Bucket: mine>" in said_in_shell(first, "print(list(Bucket.objects.all()))")
        assert "Stopped" in first.end(signal.SIGINT)
        assert first.process.returncode == 0
        assert not first.still_running()

    with serving_demo(tmp_path) as second, second.client as client:
        assert second.said("Samples") == first.said("Samples")
        assert "mine" in bucket_names(client)
        assert_nothing_runs_on_when_killed(second)


def test_neither_a_taken_port_nor_the_lack_of_mongodb_is_an_obstacle(
    tmp_path: Path, without_mongod: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving_demo(tmp_path / "data", f"--port={port}", **without_mongod) as running:
            assert f"{port} is taken" in running.said("Port")
            assert str(port) not in running.said("Admin")
            assert "plain files" in running.said("Bytes")
            assert "saved" in running.said("Samples")
            with running.client as client:
                assert {"website", "photos", "backups"} <= bucket_names(client)
            running.end(signal.SIGTERM)
            assert running.children
            assert not running.still_running()
    contents = {sample.content for sample in samples()}
    stored = [file for file in (tmp_path / "data/files/blobs").rglob("*") if file.is_file()]
    assert sorted(file.read_bytes() for file in stored) == sorted(contents)


def test_bytes_go_to_the_mongodb_that_is_given(tmp_path: Path, mongo_uri: str, without_mongod: dict[str, str]) -> None:
    with demo(tmp_path / "data", "--no-serve", MONGODB_URI=mongo_uri, **without_mongod) as running:
        output, _ = running.process.communicate(timeout=SECONDS_TO_START)
    assert running.process.returncode == 0, output
    assert "GridFS, at MONGODB_URI" in output
    assert not (tmp_path / "data" / "files").exists()


def test_mongod_that_cannot_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    need(mongod.find_mongod(), "mongod")
    children_before = set(psutil.Process().children())
    with pytest.raises(mongod.MongodFailed, match="unrecognised option '--no-such-option'"):
        mongod.Mongod(tmp_path, "--no-such-option").__enter__()
    assert {child for child in psutil.Process().children() if is_alive(child)} <= children_before
