"""Putting files: what the store has is proven, what it lacks is sent, and what broke off goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_blobstore.client import Client, ContentDiffers, InvalidAddress, Refused, Stopped
from django_blobstore.client.memory import Hashes, Look
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource, ResumableUpload
from tests.client.wires import HEADERS, Wire, assert_settles
from tests.idleness import wait_until_idle
from tests.invariants import assert_empty, assert_sound
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

SMALL = content_of(100_000)
LARGE = content_of(6 * MIB + 77)
# The command sends 64 MiB and more in parts.
HUGE = 72 * MIB
# Less than Python with its libraries and such a content.
MOST_MEBIBYTES = 80
TELLING_ITS_PEAK = """
import sys
from django_blobstore.client.cli import blobstore

blobstore(sys.argv[1:], standalone_mode=False)
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "report.pdf"
    file.write_bytes(SMALL)
    return file


@pytest.fixture
def large(tmp_path: Path) -> Path:
    large = tmp_path / "large.bin"
    large.write_bytes(LARGE)
    return large


@pytest.fixture
def in_parts(make_client: Callable[..., Client]) -> Client:
    """A client to which a mebibyte is large."""
    return make_client(large=MIB, part=MIB)


def test_a_new_content_is_sent(client: Client, bucket: Bucket, file: Path, stored: Stored) -> None:
    outcome = client.put(file, "papers/2026/report.pdf")
    assert (outcome.how, outcome.carried) == ("sent", len(SMALL))
    managed = ManagedResource.objects.select_related("resource").get()
    assert (managed.bucket, managed.path) == (bucket, "2026/report.pdf")
    assert (managed.content_type, managed.resource.sha384) == ("application/pdf", sha384(SMALL))
    assert outcome.object["sha384"] == sha384(SMALL)
    assert_sound(stored)


def test_what_the_store_has_is_proven_and_not_sent(
    client: Client, bucket: Bucket, file: Path, wire: Wire, stored: Stored
) -> None:
    ManagedStorage().put(Namespace(user="somebody"), "theirs", SMALL)
    sent = wire.count_sent()
    outcome = client.put(file, f"{bucket.pk}/mine.pdf")
    assert (outcome.how, outcome.carried) == ("proven", 0)
    assert sent.carried < HEADERS
    assert ManagedResource.objects.get(path="mine.pdf").content_type == "application/pdf"
    assert Resource.objects.get().reference_count == 2
    assert_sound(stored)


def test_of_a_huge_content_samples_are_proven(client: Client, bucket: Bucket, tmp_path: Path, wire: Wire) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as stream:
        stream.truncate(HUGE)
    with huge.open("rb") as stream:
        ManagedStorage().put(Namespace(user="somebody"), "theirs", stream)
    sent = wire.count_sent()
    assert client.put(huge, "papers/huge").how == "proven"
    assert sent.carried < HEADERS


def test_an_empty_file_is_an_object_too(client: Client, bucket: Bucket, file: Path) -> None:
    file.write_bytes(b"")
    assert [client.put(file, f"papers/{name}").how for name in "ab"] == ["sent", "proven"]
    assert list(ManagedResource.objects.values_list("resource__length", flat=True)) == [0, 0]


@pytest.mark.parametrize("path", ["a b/ü/%2F.txt", "?x=1#y", "日本/語", "a+b;c=d&e", "%", "..b"])
def test_any_path_comes_and_goes_as_it_is(client: Client, bucket: Bucket, file: Path, path: str) -> None:
    client.put(file, f"papers/{path}")
    assert ManagedResource.objects.get().path == path
    client.get(f"papers/{path}", file.with_name("back"))
    assert file.with_name("back").read_bytes() == SMALL
    client.remove(f"papers/{path}")
    assert not ManagedResource.objects.exists()


def test_a_folder_takes_a_file_under_its_own_name(client: Client, bucket: Bucket, file: Path) -> None:
    for address in ("me", "me/2026/", "papers/"):
        client.put(file, address)
    paths = ManagedResource.objects.order_by("path", "user").values_list("path", flat=True)
    assert list(paths) == ["2026/report.pdf", "report.pdf", "report.pdf"]


def test_files_of_one_content_are_sent_once(client: Client, bucket: Bucket, tmp_path: Path, wire: Wire) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(8)]
    for same in files:
        same.write_bytes(SMALL)
    sent = wire.count_sent()
    outcomes = list(client.put_all(files, "papers/same/"))
    assert sorted(outcome.how for outcome in outcomes) == ["proven"] * 7 + ["sent"]
    assert sent.carried < len(SMALL) + 8 * HEADERS
    assert Resource.objects.get().reference_count == 8


def test_one_file_that_fails_does_not_keep_the_others(client: Client, bucket: Bucket, file: Path) -> None:
    gone = file.with_name("gone")
    outcomes = {outcome.address: outcome for outcome in client.put_all([gone, file], "papers/x/")}
    assert isinstance(outcomes["papers/x/gone"].error, FileNotFoundError)
    assert outcomes["papers/x/report.pdf"].how == "sent"
    assert ManagedResource.objects.get().path == "x/report.pdf"


def test_a_large_content_is_sent_in_parts(
    in_parts: Client, bucket: Bucket, large: Path, tmp_path: Path, stored: Stored
) -> None:
    outcome = in_parts.put(large, "papers/large.bin")
    assert (outcome.how, outcome.carried) == ("sent", len(LARGE))
    managed = ManagedResource.objects.select_related("resource").get()
    assert (managed.resource.sha384, managed.content_type) == (sha384(LARGE), "application/octet-stream")
    assert ResumableUpload.objects.get().is_whole
    assert not list(tmp_path.glob("state/uploads/*"))
    assert_settles(stored)


@pytest.mark.parametrize("address", ["me/large", "global/large"])
def test_so_it_is_outside_buckets(in_parts: Client, large: Path, address: str) -> None:
    in_parts.put(large, address)
    assert in_parts.stat(address)["sha384"] == sha384(LARGE)


def test_a_broken_connection_costs_no_more_than_it_had_to(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, site: Site, wire: Wire, stored: Stored
) -> None:
    # What came before the break counts once the server has noticed it, for which a client waits as long as it likes.
    in_parts = make_client(large=MIB, part=MIB, on_wait=lambda *_: wait_until_idle(site))
    trap = wire.break_after_sending(3 * MIB + 5)
    outcome = in_parts.put(large, "papers/large.bin")
    assert trap.is_sprung
    assert len(LARGE) <= outcome.carried < len(LARGE) + 2 * MIB
    assert ManagedResource.objects.get().resource.sha384 == sha384(LARGE)
    assert_settles(stored)


def test_a_broken_connection_under_a_small_content_is_tried_again(
    client: Client, bucket: Bucket, large: Path, wire: Wire, stored: Stored
) -> None:
    trap = wire.break_after_sending(3 * MIB)
    assert client.put(large, "papers/once").how == "sent"
    assert trap.is_sprung
    assert ManagedResource.objects.get().resource.sha384 == sha384(LARGE)
    assert_settles(stored)


def test_a_put_that_was_stopped_goes_on(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, stored: Stored
) -> None:
    first = make_client(large=MIB, part=MIB)

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("send", 4 * MIB):
            first.stop()

    with pytest.raises(Stopped):
        first.put(large, "papers/large.bin", on_progress=stop)
    assert not ManagedResource.objects.exists()
    outcome = make_client(large=MIB, part=MIB).put(large, "papers/large.bin")
    assert outcome.how == "resumed"
    assert 0 < outcome.carried < len(LARGE) - 2 * MIB
    assert ManagedResource.objects.get().resource.sha384 == sha384(LARGE)
    assert_settles(stored)


def test_an_upload_that_the_store_forgot_begins_anew(
    make_client: Callable[..., Client], bucket: Bucket, large: Path
) -> None:
    first = make_client(large=MIB, part=MIB)
    with pytest.raises(Stopped):
        first.put(large, "papers/a", on_progress=lambda stage, done, total: first.stop() if done == 2 * MIB else None)
    ResumableUpload.objects.all().delete()
    outcome = make_client(large=MIB, part=MIB).put(large, "papers/a")
    assert (outcome.how, outcome.carried) == ("sent", len(LARGE))


def test_an_upload_of_other_content_is_not_gone_on_with(
    make_client: Callable[..., Client], bucket: Bucket, large: Path
) -> None:
    first = make_client(large=MIB, part=MIB)
    with pytest.raises(Stopped):
        first.put(large, "papers/a", on_progress=lambda *now: first.stop() if now[:2] == ("send", 2 * MIB) else None)
    other = content_of(len(LARGE), 1)
    large.write_bytes(other)
    outcome = make_client(large=MIB, part=MIB).put(large, "papers/a")
    assert (outcome.how, outcome.carried) == ("sent", len(LARGE))
    assert ManagedResource.objects.get().resource.sha384 == sha384(other)


def test_a_large_file_is_not_read_again_to_be_proven(
    make_client: Callable[..., Client], bucket: Bucket, large: Path
) -> None:
    os.utime(large, (1_700_000_000, 1_700_000_000))
    stages: list[str] = []
    for name in ("a", "b"):
        with_memory = make_client(large=MIB, part=MIB)
        stages.append(name)
        with_memory.put(large, f"papers/{name}", on_progress=lambda stage, *_: stages.append(stage))
    assert stages[-1] == "b"
    assert "hash" in stages


def test_a_file_that_only_looks_the_same_by_its_time_is_read_again(
    make_client: Callable[..., Client], bucket: Bucket, large: Path
) -> None:
    other = content_of(len(LARGE), 1)
    for content in (LARGE, other):
        with large.open("r+b") as stream:
            stream.write(content)
        os.utime(large, (1_700_000_000, 1_700_000_000))
        outcome = make_client(large=MIB, part=MIB).put(large, "papers/a")
        assert (outcome.how, outcome.object["sha384"]) == ("sent", sha384(content))


def test_a_wrong_hash_that_was_remembered_is_forgotten(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, tmp_path: Path, stored: Stored
) -> None:
    os.utime(large, (1_700_000_000, 1_700_000_000))
    hashes = Hashes(tmp_path / "state")
    hashes.keep(Look.at(large), sha384(b"other"))
    hashes.close()
    with pytest.raises(Refused, match="put it again"):
        make_client(large=MIB, part=MIB).put(large, "papers/a")
    assert_settles(stored)
    assert_empty(stored)
    outcome = make_client(large=MIB, part=MIB).put(large, "papers/a")
    assert outcome.object["sha384"] == sha384(LARGE)


def test_the_killed_command_goes_on(
    home: dict[str, str], bucket: Bucket, tmp_path: Path, site: Site, wire: Wire, stored: Stored
) -> None:
    huge = tmp_path / "huge"
    huge.write_bytes(os.urandom(HUGE))
    command = [sys.executable, "-m", "django_blobstore.client", "put", huge, "papers/huge"]
    # However long it takes to be killed, it gets no further than into its second part.
    wire.stall_after_sending(40 * MIB)
    process = subprocess.Popen(command, env=os.environ | home)
    while process.poll() is None and not ResumableUpload.objects.filter(offset__gte=32 * MIB).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not ManagedResource.objects.exists()
    wire.proxy.heal()
    wait_until_idle(site)
    sent = wire.count_sent()
    done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, timeout=240)
    assert done.stdout == "resumed    papers/huge\n", done.stderr
    assert sent.carried <= HUGE - 32 * MIB + HEADERS
    with huge.open("rb") as stream, ManagedStorage().get(Namespace(bucket=bucket.pk), "huge") as blob:
        assert all(stream.read(MIB) == blob.read(MIB) for _ in range(HUGE // MIB + 1))
    assert_settles(stored)


def test_the_command_takes_little_memory(home: dict[str, str], bucket: Bucket, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    huge.write_bytes(os.urandom(HUGE))
    assert peak_mib(home, "put", huge, "papers/huge") < MOST_MEBIBYTES
    assert peak_mib(home, "get", "papers/huge", tmp_path / "back") < MOST_MEBIBYTES
    assert (tmp_path / "back").stat().st_size == HUGE


def peak_mib(environment: dict[str, str], *arguments: object) -> float:
    """Return the peak resident memory of a ``blobstore`` command, which must succeed."""
    command = [sys.executable, "-c", TELLING_ITS_PEAK, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("size", [MIB, 64 * MIB], ids=["in parts", "at once"])
def test_a_file_that_changes_while_it_is_sent_is_refused(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, stored: Stored, tmp_path: Path, size: int
) -> None:
    def change(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("send", 0):
            with large.open("r+b") as stream:
                stream.seek(4 * MIB)
                stream.write(b"changed")

    with pytest.raises(Refused, match="put it again") as raised:
        make_client(large=size, part=MIB).put(large, "papers/a", on_progress=change)
    assert (raised.value.code, raised.value.exit_code) == ("hash-mismatch", 5)
    assert not list(tmp_path.glob("state/uploads/*"))
    assert_settles(stored)
    assert_empty(stored)


@pytest.mark.parametrize("size", [MIB, 64 * MIB], ids=["in parts", "at once"])
def test_a_file_that_is_cut_while_it_is_sent_is_refused(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, stored: Stored, size: int
) -> None:
    def cut(stage: str, done: int, total: int) -> None:
        if stage == "send":
            os.truncate(large, 2 * MIB)

    with pytest.raises(ContentDiffers, match="shorter"):
        make_client(large=size, part=MIB).put(large, "papers/a", on_progress=cut)
    assert_settles(stored)
    assert_empty(stored)


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("letters/a", InvalidAddress, "no bucket called 'letters'"),
        ("", InvalidAddress, "bucket/path"),
        ("/a", InvalidAddress, "bucket/path"),
        ("1c9d3f0a-6b0e-4a53-9d0c-2f6f0b7d1e55/a", Refused, "which buckets there are"),
        ("me/../a", InvalidAddress, "another path"),
        ("me/a//b", InvalidAddress, "another path"),
        ("me/a\udc80", InvalidAddress, "not UTF-8"),
    ],
)
def test_a_bad_address_is_refused(
    client: Client, bucket: Bucket, file: Path, stored: Stored, address: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        client.put(file, address)
    assert_empty(stored)


def test_what_can_be_read_only_once_is_not_waited_for(client: Client, bucket: Bucket, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        client.put(tmp_path / "pipe", "papers/a")


@pytest.mark.parametrize("state", ["no directory", "a broken file"])
def test_what_cannot_be_remembered_keeps_nothing_from_being_sent(
    make_client: Callable[..., Client], bucket: Bucket, large: Path, tmp_path: Path, state: str
) -> None:
    directory = tmp_path / "remembered"
    if state == "no directory":
        directory.write_bytes(b"a file is in its place")
    else:
        directory.mkdir()
        (directory / "hashes.sqlite3").write_bytes(b"no database " * 1000)
    client = make_client(large=MIB, part=MIB, state=directory)
    assert client.put(large, "papers/a").how == "sent"
    outcomes = list(client.sync(large.parent, "papers/tree"))
    assert not any(outcome.error for outcome in outcomes)
    assert {outcome.how for outcome in client.sync(large.parent, "papers/tree")} == {"unchanged"}


def test_of_several_buckets_with_one_name_the_uuid_is_asked_for(client: Client, bucket: Bucket, file: Path) -> None:
    other = Bucket.objects.create(name="papers")
    with pytest.raises(InvalidAddress, match=str(other.pk)):
        client.put(file, "papers/a")
    assert client.put(file, f"{other.pk}/a").how == "sent"
