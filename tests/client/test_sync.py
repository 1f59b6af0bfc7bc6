"""Making the store's copy of a tree what the tree is, at the cost of what differs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.client import Client, Outcome
from django_blobstore.client.tree import Pair, _side_by_side, _walk
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.client.wires import Wire
from tests.streams import content_of

# 10,000 on request: what is to hold then does not depend on the number.
FILES = int(os.environ.get("BLOBSTORE_SYNC_FILES", "300"))
FEW = 40
# So many different ones; the store takes longer to write another than to refer to one.
CONTENTS = 100
LENGTH = 2000
# What a page of 1000 objects is asked for with.
PAGE_REQUEST = 1000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with `FEW` files, as `plant` makes them."""
    return plant(tmp_path / "tree", FEW)


def plant(tree: Path, files: int) -> Path:
    """Make a directory of `files`, of `CONTENTS` contents, in folders, which have been there for a while."""
    for number in range(files):
        file = tree / f"{number % 7}" / f"folder {number % 3}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content_of(LENGTH, number % CONTENTS))
        make_old(file)
    return tree


def make_old(file: Path) -> None:
    os.utime(file, (1_700_000_000, 1_700_000_000))


def counts(outcomes: list[Outcome]) -> Counter[str]:
    return Counter(outcome.how for outcome in outcomes)


def paths() -> list[str]:
    return list(ManagedResource.objects.order_by("path").values_list("path", flat=True))


@pytest.mark.timeout(600)
def test_of_an_unchanged_tree_nothing_is_sent_and_later_not_even_read(
    make_client: Callable[..., Client], bucket: Bucket, tmp_path: Path, wire: Wire
) -> None:
    tree = plant(tmp_path / "tree", FILES)
    for file in tree.rglob("*.txt"):
        path = f"backup/{file.relative_to(tree).as_posix()}"
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, file.read_bytes())
    sent = wire.count_sent()
    for client, files_read in ((make_client(), FILES), (make_client(), 0)):
        read: set[str] = set()
        outcomes = list(client.sync(tree, "papers/backup", meter=lambda name, read=read: lambda *now: read.add(name)))
        assert counts(outcomes) == {"unchanged": FILES}
        assert len(read) == files_read
    assert sent.carried < 2 * (FILES / 1000 + 2) * PAGE_REQUEST


def test_only_what_differs_is_sent(make_client: Callable[..., Client], bucket: Bucket, tree: Path) -> None:
    list(make_client().sync(tree, "papers/b/"))
    (tree / "new").write_bytes(b"new")
    (tree / "0" / "folder 0" / "0.txt").write_bytes(content_of(LENGTH, FEW))
    (tree / "1" / "folder 1" / "1.txt").write_bytes(b"shorter")
    (tree / "copy").write_bytes(content_of(LENGTH, 5))
    outcomes = list(make_client().sync(tree, "papers/b/"))
    changed = {outcome.address: outcome.how for outcome in outcomes if outcome.how != "unchanged"}
    assert changed == {
        "papers/b/new": "sent",
        "papers/b/0/folder 0/0.txt": "sent",
        "papers/b/1/folder 1/1.txt": "sent",
        "papers/b/copy": "proven",
    }


def test_without_what_was_remembered_files_are_read_but_not_sent(
    make_client: Callable[..., Client], bucket: Bucket, tree: Path, tmp_path: Path
) -> None:
    list(make_client().sync(tree, "papers/b"))
    read: list[str] = []
    stranger = make_client(state=tmp_path / "elsewhere")
    outcomes = list(stranger.sync(tree, "papers/b", meter=lambda name: lambda *now: read.append(name)))
    assert counts(outcomes) == {"unchanged": FEW}
    assert len(set(read)) == FEW


def test_a_file_that_has_just_changed_is_read_again(
    make_client: Callable[..., Client], bucket: Bucket, tmp_path: Path
) -> None:
    file = tmp_path / "tree" / "a"
    file.parent.mkdir()
    for content in (b"one", b"two", b"six"):
        file.write_bytes(content)
        now = file.stat()
        os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns // 10**9 * 10**9))  # as coarse clocks have it
        list(make_client().sync(file.parent, "papers"))
        assert ManagedResource.objects.get().resource.sha384 == make_client().stat("papers/a")["sha384"]
        make_client().get("papers/a", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content


def test_what_has_no_file_is_removed_only_on_request(client: Client, bucket: Bucket, tree: Path) -> None:
    list(client.sync(tree, "papers/b"))
    for number in range(0, FEW, 2):
        next(tree.rglob(f"{number}.txt")).unlink()
    client.put(next(tree.rglob("1.txt")), "papers/bystander")
    list(client.sync(tree, "papers/b"))
    assert len(paths()) == FEW + 1
    tried = list(client.sync(tree, "papers/b", delete=True, dry_run=True))
    assert counts(tried)["to remove"] == FEW / 2
    assert len(paths()) == FEW + 1
    done = list(client.sync(tree, "papers/b", delete=True))
    assert counts(done) == {"unchanged": FEW / 2, "removed": FEW / 2}
    assert {outcome.address for outcome in tried} == {outcome.address for outcome in done}
    assert len(paths()) == FEW / 2 + 1


def test_a_dry_run_sends_nothing(client: Client, bucket: Bucket, tree: Path) -> None:
    outcomes = list(client.sync(tree, "papers/b", dry_run=True))
    assert counts(outcomes) == {"to send": FEW}
    assert paths() == []


def test_nothing_is_removed_when_anything_failed(client: Client, bucket: Bucket, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kept").write_bytes(b"kept")
    client.put(tree / "kept", "papers/b/alone")
    bad = os.fsencode(tree) + b"/not utf-8 \xff"
    with open(bad, "wb") as stream:
        stream.write(b"x")
    tried = list(client.sync(tree, "papers/b", delete=True, dry_run=True))
    outcomes = list(client.sync(tree, "papers/b", delete=True))
    assert counts(outcomes) == {"proven": 1, "failed": 1}
    assert counts(tried) == {"to send": 1, "failed": 1}
    assert paths() == ["b/alone", "b/kept"]
    os.unlink(bad)
    list(client.sync(tree, "papers/b", delete=True))
    assert paths() == ["b/kept"]


def test_a_directory_that_is_not_there_is_no_empty_one(client: Client, bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="no such directory"):
        list(client.sync(tmp_path / "gone", "papers/b", delete=True))


def test_linked_files_are_followed_and_what_is_no_file_is_told_and_left_alone(
    client: Client, bucket: Bucket, tmp_path: Path
) -> None:
    ManagedStorage().put(Namespace(bucket=bucket.pk), "broken", b"from when it was a file")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "link").symlink_to(tree / "file")
    (tree / "loop").symlink_to(tree)
    (tree / "broken").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    outcomes = list(client.sync(tree, "papers", delete=True))
    assert {outcome.address: outcome.reason for outcome in outcomes if outcome.how == "skipped"} == {
        "papers/broken": "it is a link to no file",
        "papers/loop": "it is a link to a directory",
        "papers/pipe": "it is no regular file",
    }
    assert paths() == ["broken", "file", "link"]


NAMES = st.text("ab./é!", min_size=1, max_size=3).map(lambda name: name.strip("/.").replace("/", "x")).filter(bool)


@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
def test_files_come_in_byte_order_of_their_paths(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    directory = tmp_path_factory.mktemp("tree")
    made = set()
    for name in sorted(names):
        file = directory / name
        if any(parent.is_file() for parent in file.parents) or file.is_dir():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        made.add(name)
    assert [pair.path for pair in _walk(directory, "")] == sorted(made, key=str.encode)


@given(st.sets(st.text("abé/", min_size=1)), st.sets(st.text("abé/", min_size=1)))
def test_two_sides_are_joined_by_their_paths(here: set[str], there: set[str]) -> None:
    files = (Pair(path, file=Path("f")) for path in sorted(here, key=str.encode))
    objects = (Pair(path, found={}) for path in sorted(there, key=str.encode))
    pairs = list(_side_by_side(files, objects))
    assert [pair.path for pair in pairs] == sorted(here | there, key=str.encode)
    assert {pair.path for pair in pairs if pair.file} == here
    assert {pair.path for pair in pairs if pair.found is not None} == there
