"""Getting objects: whole and verified, or not at all; what came before a break does not come again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from django_blobstore.client import Client, ContentDiffers, InvalidAddress, Refused, Stopped
from django_blobstore.client.operations import _below
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, Resource
from tests.client.answers import store
from tests.client.wires import HEADERS, Wire
from tests.damage import flip
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

CONTENT = content_of(6 * MIB + 77)
OTHER = content_of(6 * MIB + 77, 1)
ADDRESS = "papers/a/big.bin"


@pytest.fixture
def home(bucket: Bucket, stored: Stored) -> Namespace:
    """The bucket, with `CONTENT` in it."""
    namespace = Namespace(bucket=bucket.pk)
    ManagedStorage().put(namespace, "a/big.bin", CONTENT)
    return namespace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the object is to be."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "big.bin"


def left(file: Path) -> list[str]:
    return [path.name for path in file.parent.iterdir() if path != file]


def stopped_at(client: Client, length: int) -> Callable[[str, int, int], None]:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= length:
            client.stop()

    return stop


def test_an_object_is_written_to_a_file(client: Client, home: Namespace, file: Path) -> None:
    outcome = client.get(ADDRESS, file)
    assert (outcome.how, outcome.carried, outcome.file) == ("received", len(CONTENT), file)
    assert file.read_bytes() == CONTENT
    assert left(file) == []


def test_into_a_directory_it_comes_under_its_own_name(client: Client, home: Namespace, file: Path) -> None:
    assert client.get(ADDRESS, file.parent).file == file
    assert file.read_bytes() == CONTENT


def test_no_device_pipe_or_directory_becomes_a_file(client: Client, home: Namespace, file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(FileExistsError, match="no regular file"):
        client.get(ADDRESS, file)
    assert (file.is_fifo(), left(file)) == (True, [])


def test_a_link_stays_one(client: Client, home: Namespace, file: Path, tmp_path: Path) -> None:
    file.symlink_to(tmp_path / "elsewhere")
    client.get(ADDRESS, file)
    assert (file.is_symlink(), file.read_bytes() == CONTENT, left(file)) == (True, True, [])


def test_what_is_here_does_not_come(client: Client, home: Namespace, file: Path, wire: Wire) -> None:
    file.write_bytes(CONTENT)
    received = wire.count_received()
    assert client.get(ADDRESS, file).how == "unchanged"
    assert received.carried < HEADERS


def test_other_content_is_replaced(client: Client, home: Namespace, file: Path) -> None:
    file.write_bytes(OTHER)
    assert client.get(ADDRESS, file).how == "received"
    assert file.read_bytes() == CONTENT


def test_a_broken_connection_is_made_again_where_it_broke(
    client: Client, home: Namespace, file: Path, wire: Wire
) -> None:
    trap = wire.break_after_receiving(4 * MIB)
    outcome = client.get(ADDRESS, file)
    assert trap.is_sprung
    assert len(CONTENT) <= outcome.carried < len(CONTENT) + 2 * MIB
    assert file.read_bytes() == CONTENT
    assert left(file) == []


def test_a_get_that_was_stopped_leaves_the_file_and_goes_on(
    make_client: Callable[..., Client], home: Namespace, file: Path
) -> None:
    file.write_bytes(OTHER)
    first = make_client()
    with pytest.raises(Stopped):
        first.get(ADDRESS, file, on_progress=lambda *now: first.stop() if now[:2] == ("receive", 3 * MIB) else None)
    assert file.read_bytes() == OTHER
    assert len(left(file)) == 1
    outcome = make_client().get(ADDRESS, file)
    assert (outcome.how, outcome.carried) == ("resumed", len(CONTENT) - 3 * MIB)
    assert file.read_bytes() == CONTENT
    assert left(file) == []


def test_what_came_of_other_content_is_not_used(
    make_client: Callable[..., Client], home: Namespace, file: Path
) -> None:
    first = make_client()
    with pytest.raises(Stopped):
        first.get(ADDRESS, file, on_progress=stopped_at(first, 3 * MIB))
    ManagedStorage().put(home, "a/big.bin", OTHER)
    outcome = make_client().get(ADDRESS, file)
    assert (outcome.how, outcome.carried) == ("received", len(OTHER))
    assert file.read_bytes() == OTHER


@pytest.mark.parametrize("wrong", [b"x" * 1000, b"x" * (len(CONTENT) + 1)], ids=["short", "long"])
def test_wrong_bytes_from_before_are_found_out(
    make_client: Callable[..., Client], home: Namespace, file: Path, wrong: bytes
) -> None:
    first = make_client()
    with pytest.raises(Stopped):
        first.get(ADDRESS, file, on_progress=stopped_at(first, 1))
    (part,) = left(file)
    file.with_name(part).write_bytes(wrong)
    make_client().get(ADDRESS, file)
    assert file.read_bytes() == CONTENT
    assert left(file) == []


def test_an_object_that_is_replaced_meanwhile_comes_as_it_is_then(client: Client, home: Namespace, file: Path) -> None:
    found = client.stat(ADDRESS)
    ManagedStorage().put(home, "a/big.bin", OTHER)
    place = client._buckets.place(ADDRESS)
    assert client._receiver.get(place, file, found=found).object["sha384"] != found["sha384"]
    assert file.read_bytes() == OTHER
    assert left(file) == []


def test_what_is_not_there_leaves_no_file(client: Client, home: Namespace, file: Path) -> None:
    with pytest.raises(Refused, match="blobstore ls") as raised:
        client.get("papers/nothing", file)
    assert (raised.value.code, raised.value.exit_code) == ("resource-not-found", 3)
    assert not file.exists()
    assert left(file) == []


def test_damaged_content_does_not_take_the_files_place(
    client: Client, home: Namespace, file: Path, stored: Stored
) -> None:
    file.write_bytes(OTHER)
    flip(stored, Resource.objects.get().path, 4 * MIB)
    with pytest.raises((Refused, ContentDiffers), match="heals it"):
        client.get(ADDRESS, file)
    assert file.read_bytes() == OTHER
    assert left(file) == []
    with pytest.raises((Refused, ContentDiffers), match="heals it"):
        client.verify(ADDRESS)


def test_verify_reads_an_object(client: Client, home: Namespace, wire: Wire) -> None:
    received = wire.count_received()
    outcome = client.verify(ADDRESS)
    assert (outcome.how, outcome.carried, outcome.file) == ("verified", len(CONTENT), None)
    assert received.carried >= len(CONTENT)


def test_a_folder_comes_with_all_below_it(client: Client, home: Namespace, tmp_path: Path) -> None:
    for number in range(5):
        ManagedStorage().put(home, f"a/b/{number}", b"%d" % number)
    ManagedStorage().put(home, "other", b"other")
    outcomes = list(client.get_all("papers/a/", tmp_path / "copy"))
    assert {outcome.how for outcome in outcomes} == {"received"}
    files = [path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == [*(f"b/{number}" for number in range(5)), "big.bin"]
    assert {outcome.how for outcome in client.get_all("papers/a/", tmp_path / "copy")} == {"unchanged"}
    assert [outcome.how for outcome in client.verify_all("papers/")] == ["verified"] * 7


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a//b", ".", "a/.."])
def test_no_path_leads_out_of_the_directory(path: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidAddress, match="leads out"):
        _below(tmp_path, path, "me/a")


def test_a_store_that_sends_other_bytes_is_not_believed(file: Path, tmp_path: Path) -> None:
    told = {"path": "a", "length": len(CONTENT), "sha384": sha384(CONTENT)}
    answers = [(200, {}, {"results": [{"status": 200, "object": told}]}), (200, {}, OTHER)]
    with store(*answers * 3) as server, Client(f"http://127.0.0.1:{server.server_port}", "t", state=tmp_path) as client:
        with pytest.raises(ContentDiffers, match="3 times"):
            client.get("me/a", file)
        assert server.asked == 6
    assert not file.exists()
    assert left(file) == []
