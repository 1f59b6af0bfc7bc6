"""What `manage.py blobstore_import` and `blobstore_export` bring in and out, and what a killed one leaves to do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import InMemoryStorage, storages
from django.core.management import CommandError, call_command
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, Resource
from django_blobstore.porting import (
    DirectoryExport,
    Entry,
    Importer,
    export_objects,
    files_of_directory,
    importing,
)
from django_blobstore.porting.manifest import FileNames
from django_blobstore.storages import BlobStorage
from django_blobstore.storages.gridfs import CHUNK_SIZE
from tests import damage, servers
from tests.gallery.models import Draft, Letter
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored, StoredInFiles, StoredInGridFS
from tests.test_audit_command import Terminal

MIB = 2**20
MEASURED = """
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
MEDIA = Namespace(bucket="media")


def run(command: str, *options: object, stderr: io.StringIO | None = None) -> tuple[str, str, str]:
    """Return what the command wrote, what it said of single files, and the error it ended with, if any."""
    out, told = io.StringIO(), stderr or io.StringIO()
    try:
        call_command(command, *map(str, options), stdout=out, stderr=told)
    except CommandError as failure:
        return out.getvalue(), told.getvalue(), str(failure)
    return out.getvalue(), told.getvalue(), ""


def imported(*options: object) -> str:
    """Return what a `blobstore_import` said that had nothing to complain of."""
    out, told, error = run("blobstore_import", *options)
    assert (told, error) == ("", "")
    return out


def exported(*options: object) -> str:
    out, told, error = run("blobstore_export", *options)
    assert (told, error) == ("", "")
    return out


def environment(**more: str) -> dict[str, str]:
    return (
        os.environ
        | {"DJANGO_SETTINGS_MODULE": "tests.settings", servers.DEPLOYMENT_VARIABLE: servers.deployment()}
        | more
    )


def sums_hold(directory: Path) -> bool:
    """Let sha384sum, which knows nothing of us, compare what was exported with its sums."""
    done = subprocess.run(
        ["sha384sum", "--check", "--strict", "--quiet", "SHA384SUMS"], cwd=directory, capture_output=True, check=False
    )
    return done.returncode == 0


def contents(namespace: Namespace = MEDIA) -> dict[str, str]:
    """Return the SHA-384 of each object in `namespace` by its path."""
    return dict(ManagedResource.objects.within(namespace).values_list("path", "resource__sha384"))


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha384(content).hexdigest() for path, content in files.items()}


def plant(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


# Some contents several times, one of several blocks, one empty, and names that are not plain.
FILES = {f"folder {number % 7}/datei-ä{number}.txt": b"%d" % (number % 25) for number in range(60)} | {
    "big.bin": os.urandom(3 * MIB),
    "big-again.bin": b"",
    "back\\slash.txt": b"\\",
    "folder 1.txt": b"before its folder in byte order",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return plant(tmp_path / "tree", FILES)


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


@pytest.fixture
def desk(stored: Stored) -> ManagedStorage:
    """A store on SQLite alone, for what no database has a part in."""
    return ManagedStorage()


def test_a_directory_becomes_objects_that_share_what_is_equal(
    store: ManagedStorage, stored: Stored, tree: Path
) -> None:
    saved = sum(map(len, FILES.values())) - sum(map(len, set(FILES.values())))
    out = imported("directory", tree, "--bucket=media")
    assert out.startswith("64 files: 64 objects made, 0 there already;")
    assert f"New contents: 29. Shared: 35, which saves {saved} bytes." in out
    assert contents() == hashes(FILES)
    assert Bucket.objects.get().name == "media"
    assert store.stat(MEDIA, "folder 1.txt").content_type == "text/plain"
    assert_sound(stored)


def test_what_is_there_already_is_left_alone_and_what_changed_is_replaced(
    store: ManagedStorage, stored: Stored, tree: Path
) -> None:
    imported("directory", tree, "--bucket=media", "--prefix=old/")
    before = ManagedResource.objects.get(path="old/big.bin").modified_at
    plant(tree, {"folder 1.txt": b"something else", "folder 0/datei-ä0.txt": b"7"})
    out = imported("directory", tree, "--bucket=media", "--prefix=old/")
    assert out.startswith("64 files: 2 objects made, 62 there already;")
    assert "New contents: 1. Shared: 1," in out
    assert ManagedResource.objects.get(path="old/big.bin").modified_at == before
    assert store.get(MEDIA, "old/folder 1.txt").read() == b"something else"
    assert_settled(stored)


def test_several_jobs_come_to_the_same_as_one(store: ManagedStorage, stored: Stored, tree: Path) -> None:
    out = imported("directory", tree, "--bucket=media", "--jobs=4")
    assert out.startswith("64 files: 64 objects made, 0 there already;")
    assert "New contents: 29. Shared: 35," in out
    assert contents() == hashes(FILES)
    assert "0 objects made, 64 there already" in imported("directory", tree, "--bucket=media", "--jobs=4")
    assert_settled(stored)
    assert len(stored.names()) == 29


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_several_jobs_find_what_is_there_though_others_look_further_on(
    desk: ManagedStorage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 1)
    imported("directory", tree, "--bucket=media")
    assert "0 objects made, 64 there already" in imported("directory", tree, "--bucket=media", "--jobs=4")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_several_jobs_bring_a_file_that_many_rows_name_once(desk: ManagedStorage, stored: Stored) -> None:
    first = Draft.objects.create(file=ContentFile(b"one", "one.txt"))
    Draft.objects.bulk_create(Draft(file=first.file.name) for _ in range(30))
    out = imported("field", "gallery.Draft.file", "--bucket=gallery", "--jobs=4")
    assert out.startswith("31 files: 1 object made, 30 there already;")
    assert "New contents: 1. Shared: 0," in out
    assert_settled(stored)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
@pytest.mark.parametrize("options", [[], ["--jobs=4"], ["--keep"], ["--trust-times"]], ids=str)
def test_a_dry_run_counts_a_file_that_many_rows_name_as_the_import_does(
    desk: ManagedStorage, stored: Stored, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr(importing, "BATCH", 2)
    one, other = (Draft.objects.create(file=ContentFile(text, "one.txt")).file.name for text in (b"one", b"two"))
    Draft.objects.bulk_create(Draft(file=name) for name in [one, other] * 3)
    arguments = ["field", "gallery.Draft.file", "--bucket=gallery", *options]
    foreseen = imported(*arguments, "--dry-run")
    assert foreseen.startswith("8 files: 2 objects would be made, 6 there already; 24 bytes.")
    assert not ManagedResource.objects.exists()
    assert imported(*arguments) == foreseen.replace("would be made", "made")
    assert_settled(stored)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_dry_run_foresees_that_one_file_takes_the_place_of_another(desk: ManagedStorage) -> None:
    reports = []
    for dry_run in (True, False):
        importer = Importer(MEDIA, dry_run=dry_run, on_failure=print, on_progress=lambda report: None)
        reports.append(importer.run(Entry("a", partial(io.BytesIO, content)) for content in (b"1", b"2", b"2")))
    assert reports[0] == reports[1]
    assert reports[0].unchanged == 1


class Interrupting(InMemoryStorage):
    """A storage of one file; whoever is at the terminal has had enough when it is opened."""

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        return [], ["a"]

    def size(self, name: str) -> int:
        return 1

    def open(self, name: str, mode: str = "rb") -> File[bytes]:
        raise KeyboardInterrupt


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_whoever_interrupts_an_import_is_told_that_it_can_go_on(stored: Stored, settings: Settings) -> None:
    settings.STORAGES = {**settings.STORAGES, "old": {"BACKEND": f"{__name__}.Interrupting"}}
    for jobs in (1, 2):
        _, _, error = run("blobstore_import", "storage", "old", "--bucket=media", f"--jobs={jobs}")
        assert error == "KeyboardInterrupt; what was imported until now stays. Begin again to go on."
    assert_empty(stored)


class Endless(io.RawIOBase):
    """A stream without an end, which says when it was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = Event()

    def read(self, size: int = -1) -> bytes:
        self.begun.set()
        return bytes(min(size, 65536))


def refused(when: Event) -> io.BytesIO:
    """Fail to open a file, since its storage is away, once it is time."""
    assert when.wait(240)
    raise ConnectionRefusedError("Nobody is there.")


def test_when_the_source_is_away_all_jobs_end_however_much_they_have_to_do(
    store: ManagedStorage, stored: Stored
) -> None:
    endless = Endless()
    entries = [Entry("endless", lambda: endless), Entry("refused", lambda: refused(endless.begun))]
    importer = Importer(MEDIA, jobs=2, on_failure=print, on_progress=lambda report: None)
    with pytest.raises(ConnectionRefusedError):
        importer.run(entries)
    assert (importer.report.files, importer.report.bytes_under_way) == (0, 0)
    assert_empty(stored)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_progress_is_told_within_a_large_file(desk: ManagedStorage, tmp_path: Path) -> None:
    tree, told = plant(tmp_path / "tree", {"large": os.urandom(4 * MIB)}), []
    for _ in ("put", "compared"):
        importer = Importer(
            MEDIA, on_failure=print, on_progress=lambda report: told.append((report.bytes, report.bytes_under_way))
        )
        importer.run(files_of_directory(tree))
        assert {(0, 2 * MIB), (4 * MIB, 0)} <= set(told)
        told.clear()
    export_objects(
        MEDIA,
        DirectoryExport(tmp_path / "out"),
        on_failure=print,
        on_progress=lambda report: told.append((report.bytes, report.bytes_under_way)),
    )
    assert {(0, 2 * MIB), (4 * MIB, 0)} <= set(told)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_what_is_to_be_kept_is_not_replaced(desk: ManagedStorage, tmp_path: Path) -> None:
    desk.put(MEDIA, "a", b"mine")
    out = imported("directory", plant(tmp_path / "tree", {"a": b"other", "b": b"b"}), "--bucket=media", "--keep")
    assert out.startswith("2 files: 1 object made, 0 there already, 1 kept with other content;")
    assert contents() == hashes({"a": b"mine", "b": b"b"})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_file_of_the_same_length_is_read_unless_its_time_is_to_be_trusted(
    desk: ManagedStorage, tmp_path: Path
) -> None:
    tree = plant(tmp_path / "tree", {"a": b"1"})
    imported("directory", tree, "--bucket=media")
    plant(tree, {"a": b"2"})
    os.utime(tree / "a", (0, 0))
    assert "0 objects made, 1 there already" in imported("directory", tree, "--bucket=media", "--trust-times")
    assert "1 object made, 0 there already" in imported("directory", tree, "--bucket=media")
    plant(tree, {"a": b"33"})
    os.utime(tree / "a", (0, 0))
    assert "1 object made" in imported("directory", tree, "--bucket=media", "--trust-times")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_damaged_content_is_healed_by_an_import(desk: ManagedStorage, stored: Stored, tree: Path) -> None:
    imported("directory", tree, "--bucket=media")
    resource = desk.stat(MEDIA, "big.bin").resource
    damage.flip(stored, resource.path, 0)
    desk.catalog.mark_damaged(resource)
    assert "1 object made, 63 there already" in imported("directory", tree, "--bucket=media")
    assert desk.get(MEDIA, "big.bin").read() == FILES["big.bin"]
    assert_settled(stored)


def test_what_cannot_be_imported_is_told_by_name_and_stops_nothing_else(
    store: ManagedStorage, stored: Stored, tmp_path: Path
) -> None:
    tree = plant(tmp_path / "tree", {"good": b"1", "bad\nname": b"2", "zz": b"3"})
    (tree / "link").symlink_to(tree / "good")
    (tree / os.fsdecode(b"latin-\xe9")).write_bytes(b"4")
    out, told, error = run("blobstore_import", "directory", tree, "--bucket=media")
    assert out.startswith("5 files: 2 objects made, 0 there already;")
    assert error == "3 files could not be imported."
    assert "'bad\\nname': Invalid path" in told
    assert "'link': it is not a regular file" in told
    assert "it is not valid UTF-8" in told
    assert contents() == hashes({"good": b"1", "zz": b"3"})
    assert_sound(stored)


def test_a_dry_run_says_what_would_be_shared_and_leaves_nothing(
    store: ManagedStorage, stored: Stored, tree: Path, tmp_path: Path
) -> None:
    out = imported("directory", tree, "--bucket=media", "--dry-run")
    assert "64 objects would be made" in out
    assert "New contents: 29. Shared: 35," in out
    assert_empty(stored)
    assert not Bucket.objects.exists()
    store.put(MEDIA, "a", b"7")
    assert "New contents: 28. Shared: 36," in imported("directory", tree, "--bucket=media", "--dry-run")
    assert "1 object would be written" in exported("directory", tmp_path / "out", "--bucket=media", "--dry-run")
    assert "1 object would be written" in exported("tar", tmp_path / "out.tar", "--bucket=media", "--dry-run")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_source_that_makes_no_sense_is_refused(stored: Stored) -> None:
    for options, reason in (
        (["directory", "/nowhere", "--bucket=b"], "No such file or directory"),
        (["directory", "tests"], "name a bucket or a user"),
        (["directory", "tests", "--bucket=b", "--global"], "--global is without"),
        (["storage", "nowhere", "--bucket=b"], "nowhere"),
        (["field", "gallery.Nothing.file", "--bucket=b"], "Nothing"),
        (["field", "gallery.Album.title", "--bucket=b"], "is no FileField"),
        (["field", "gallery.Letter.file", "--bucket=gallery"], "has its files there already"),
        (["juju", "default"], "is no GridFSStorage"),
        (["export", "/nowhere", "--bucket=b"], "No such file or directory"),
    ):
        _, _, error = run("blobstore_import", *options)
        assert reason in error
    assert_empty(stored)


def test_the_files_of_another_storage_keep_their_names(
    store: ManagedStorage, stored: Stored, make_stored: Callable[[str], Stored], settings: Settings
) -> None:
    settings.STORAGES = {**settings.STORAGES, "old": make_stored("files").options}
    from_old = BlobStorage(bucket="kept")
    for name, content in {"a/b.txt": b"1", "a/c.txt": b"1", "d.txt": b"2"}.items():
        storages["old"].save(name, ContentFile(content))
        from_old.save(name, ContentFile(content))
    assert "Shared: 3," in imported("storage", "old", "--bucket=media")
    assert contents() == contents(Namespace(bucket="kept"))
    assert "0 objects made, 3 there already" in imported("storage", "old", "--bucket=media", "--trust-times")
    assert_sound(stored)


def test_the_files_of_a_model_are_found_by_blob_storage_under_the_names_in_its_rows(
    store: ManagedStorage, stored: Stored
) -> None:
    drafts = [Draft.objects.create(file=ContentFile(b"%d" % (number % 2), f"{number}.txt")) for number in range(5)]
    Draft.objects.create(file="drafts/lost.txt")
    Draft.objects.create(file="")
    out, told, error = run("blobstore_import", "field", "gallery.Draft.file", "--bucket=gallery")
    assert out.startswith("6 files: 5 objects made")
    assert "'drafts/lost.txt'" in told
    assert error == "1 file could not be imported."
    letters = [Letter.objects.create(file=draft.file.name) for draft in drafts]
    assert [letter.file.read() for letter in letters] == [b"0", b"1", b"0", b"1", b"0"]
    assert Resource.objects.count() == 2
    assert_sound(stored)


def test_a_field_that_was_switched_before_is_filled_from_the_storage_it_had(
    store: ManagedStorage, stored: Stored, make_stored: Callable[[str], Stored], settings: Settings
) -> None:
    settings.STORAGES = {**settings.STORAGES, "old": make_stored("files").options}
    for name in ("letters/a.txt", "letters/b.txt"):
        storages["old"].save(name, ContentFile(b"dear"))
        Letter.objects.create(file=name)
    Letter.objects.create(file="../../etc/hostname")
    for options in (["--bucket=gallery", "--from=old"], ["--bucket=elsewhere"]):
        out, told, error = run("blobstore_import", "field", "gallery.Letter.file", *options)
        assert out.startswith("3 files: 2 objects made")
        assert "'../../etc/hostname': Invalid path" in told
        assert error == "1 file could not be imported."
    assert {letter.file.read() for letter in Letter.objects.filter(file__startswith="letters")} == {b"dear"}
    assert contents(Namespace(bucket="elsewhere")) == hashes({"letters/a.txt": b"dear", "letters/b.txt": b"dear"})
    assert Resource.objects.count() == 1
    assert_sound(stored)


def test_an_export_to_a_directory_is_verified_without_us_and_comes_back_as_it_was(
    store: ManagedStorage, stored: Stored, tree: Path, tmp_path: Path
) -> None:
    imported("directory", tree, "--bucket=media")
    store.put(MEDIA, "folder 1.txt/inside", b"a file is in the way", content_type="x/y", metadata={"ä": [1]})
    store.put(MEDIA, "n" * 300, b"a name too long")
    out = exported("directory", tmp_path / "out", "--bucket=media")
    assert out.startswith("66 objects written")
    assert "Contents: 31," in out
    assert sums_hold(tmp_path / "out")
    assert (tmp_path / "out/objects/folder 0/datei-ä0.txt").read_bytes() == b"0"
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == sorted(contents(), key=str.encode)
    assert not {"objects/folder 1.txt/inside", "objects/" + "n" * 300} & {line["file"] for line in lines}
    assert not (tmp_path / "out/.partial").exists()
    imported("export", tmp_path / "out", "--user=u")
    assert contents(Namespace(user="u")) == contents()
    inside = store.stat(Namespace(user="u"), "folder 1.txt/inside")
    assert (inside.content_type, inside.metadata) == ("x/y", {"ä": [1]})
    assert_sound(stored)


def test_a_tar_comes_back_to_where_it_was(store: ManagedStorage, stored: Stored, tree: Path, tmp_path: Path) -> None:
    imported("directory", tree, "--bucket=media")
    before = contents()
    exported("tar", tmp_path / "out.tar", "--bucket=media")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out.tar"]
    (tmp_path / "extracted").mkdir()
    subprocess.run(["tar", "--extract", "--file", "../out.tar"], cwd=tmp_path / "extracted", check=True)
    assert sums_hold(tmp_path / "extracted")
    store.remove_bucket(Bucket.objects.get())
    assert_settled(stored)
    assert stored.names() == set()
    assert imported("export", tmp_path / "out.tar").startswith("64 files: 64 objects made")
    assert contents() == before
    assert {path: store.get(MEDIA, path).read() for path in FILES} == FILES
    assert "0 objects made, 64 there already" in imported("export", tmp_path / "out.tar")
    assert_settled(stored)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_an_export_is_of_one_namespace_and_prefix(desk: ManagedStorage, tmp_path: Path) -> None:
    for namespace in (MEDIA, Namespace(bucket="media", user="u"), Namespace(user="u"), Namespace()):
        for path in ("a/1", "a/2", "b"):
            desk.put(namespace, path, f"{namespace} {path}".encode())
    for number, place in enumerate((["--bucket=media"], ["--bucket=media", "--user=u"], ["--user=u"], ["--global"])):
        assert exported("directory", tmp_path / str(number), *place, "--prefix=a/").startswith("2 objects written")
    assert (tmp_path / "3/objects/a/1").read_bytes() == b"global a/1"
    _, _, error = run("blobstore_export", "directory", tmp_path / "none")
    assert "Say what to export" in error
    assert not (tmp_path / "none").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_nothing_is_written_over(desk: ManagedStorage, tmp_path: Path) -> None:
    desk.put(MEDIA, "a", b"a")
    exported("directory", tmp_path / "out", "--bucket=media")
    exported("tar", tmp_path / "out.tar", "--bucket=media")
    plant(tmp_path / "other", {"mine": b"mine"})
    for kind, target, reason in (
        ("directory", "out", "is complete"),
        ("tar", "out.tar", "is there already"),
        ("directory", "other", "is not empty"),
    ):
        _, _, error = run("blobstore_export", kind, tmp_path / target, "--bucket=media")
        assert reason in error
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["directory", "tar"])
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_an_object_that_cannot_be_read_is_told_and_not_in_the_export(
    desk: ManagedStorage, stored: Stored, tmp_path: Path, kind: str
) -> None:
    for name, content in {"a": b"1", "b": os.urandom(2 * MIB), "c": b"3"}.items():
        desk.put(MEDIA, name, content)
    damage.flip(stored, desk.stat(MEDIA, "b").resource.path, 2 * MIB - 1)
    out, told, error = run("blobstore_export", kind, tmp_path / "out", "--bucket=media")
    assert out.startswith("2 objects written")
    assert "'b': Stored content" in told
    assert error == "1 object could not be exported."
    imported("export", tmp_path / "out", "--bucket=again")
    assert contents(Namespace(bucket="again")) == hashes({"a": b"1", "c": b"3"})


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_killed_import_goes_on(store: ManagedStorage, stored: Stored, tree: Path, jobs: int) -> None:
    options = ["directory", str(tree), "--bucket=media", f"--jobs={jobs}"]
    command = [sys.executable, "-m", "django", "blobstore_import", *options]
    killed = subprocess.run(command, env=environment(BLOBSTORE_FAILPOINTS="kill:100"), check=False)
    assert killed.returncode == -9
    done = len(contents())
    assert 0 < done < 64
    assert PendingFile.objects.arriving().count() <= jobs
    assert f"{64 - done} objects made, {done} there already" in imported(*options)
    assert contents() == hashes(FILES)
    assert_settled(stored)


def test_a_kill_within_a_large_file_leaves_what_a_sweep_deletes_and_the_file_comes_anew(
    store: ManagedStorage, stored: Stored, tmp_path: Path
) -> None:
    content = os.urandom(9 * MIB)
    imported("directory", plant(tmp_path / "tree", {"a": b"1"}), "--bucket=media")
    tree = plant(tmp_path / "tree", {"large": content})
    command = [sys.executable, "-m", "django", "blobstore_import", "directory", str(tree), "--bucket=media"]
    # Of GridFS three batches would come; how other storages write is not known.
    place = "gridfs.batch_inserted" if isinstance(stored, StoredInGridFS) else "upload.written"
    killed = subprocess.run(command, env=environment(BLOBSTORE_FAILPOINTS=f"kill:{place}"), check=False)
    assert killed.returncode == -9
    assert contents() == hashes({"a": b"1"})
    assert len(stored.names()) == 2
    assert PendingFile.objects.get().managed_path == "large"
    assert "1 object made, 1 there already" in imported("directory", tree, "--bucket=media")
    assert store.get(MEDIA, "large").read() == content
    assert len(stored.names()) == 3
    assert_settled(stored)
    assert len(stored.names()) == 2


@pytest.mark.parametrize("kind", ["directory", "tar"])
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_killed_export_goes_on_after_the_last_whole_file(
    stored: StoredInFiles, tree: Path, tmp_path: Path, kind: str
) -> None:
    imported("directory", tree, "--bucket=media")
    target = tmp_path / "out"
    manifest = target / "manifest.jsonl" if kind == "directory" else tmp_path / "out.manifest.jsonl.partial"
    middle = ManagedStorage().put(MEDIA, "folder 3/middle", b"content of its own").resource
    before = sorted(contents(), key=str.encode).index("folder 3/middle")
    # Whoever reads a pipe that nobody writes into waits, so that the export is killed at this object.
    with unreadable(stored.directory / middle.path), running("blobstore_export", kind, target, "--bucket=media"):
        wait_for_lines(manifest, before)
    with manifest.open("ab") as file:
        file.write(b'{"path": "half a li')
    with (target / ".partial" if kind == "directory" else tmp_path / "out.partial").open("ab") as file:
        file.write(b"half a file" * 100)
    _, _, error = run("blobstore_export", kind, target, "--global")
    assert "is of another export" in error
    assert f"65 objects written ({before} by an earlier run)" in exported(kind, target, "--bucket=media")
    if kind == "tar":
        with tarfile.open(target) as tar:
            tar.extractall(target := tmp_path / "extracted", filter="data")
    assert sums_hold(target)
    exported_paths = [json.loads(line)["path"] for line in (target / "manifest.jsonl").read_text().splitlines()]
    assert exported_paths == sorted(contents(), key=str.encode)
    assert (target / "objects/folder 3/middle").read_bytes() == b"content of its own"


@contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """Have a pipe where `file` is as long as the context lasts."""
    aside = file.rename(file.with_name("aside"))
    os.mkfifo(file)
    try:
        yield
    finally:
        aside.replace(file)


@contextmanager
def running(command: str, *options: object) -> Iterator[None]:
    """Run the command in another process, which is killed when the context ends."""
    process = subprocess.Popen([sys.executable, "-m", "django", command, *map(str, options)], env=environment())
    with process:
        try:
            yield
        finally:
            process.kill()
    assert process.returncode == -9


def wait_for_lines(file: Path, number: int) -> None:
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= number, pause=0.01)


def wait_until(is_so: Callable[[], bool], *, pause: float = 0.1, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(pause)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_an_export_that_was_tampered_with_brings_nothing_from_elsewhere(desk: ManagedStorage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    outside = {"path": "a", "length": 6, "sha384": hashlib.sha384(b"secret").hexdigest()}
    out = plant(tmp_path / "out", {"objects/b": b"changed"})
    (out / "objects/link").symlink_to(tmp_path / "secret")
    lines = [
        outside | {"file": "../secret"},
        outside | {"file": "objects/link"},
        outside | {"file": "objects/b"},
        outside | {"file": "objects/b", "length": 7},
        outside | {"file": "objects/b", "length": 7, "sha384": "nonsense"},
        {"path": "no file"},
    ]
    (out / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    _, told, error = run("blobstore_import", "export", out, "--bucket=media")
    assert error == "6 files could not be imported."
    assert len(told.splitlines()) == 6
    assert contents() == {}


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_an_old_blobstore_of_juju_comes_with_its_buckets_and_users(
    store: ManagedStorage, stored: StoredInGridFS, make_stored: Callable[[str], Stored], settings: Settings
) -> None:
    old = make_stored("gridfs")
    assert isinstance(old, StoredInGridFS)
    settings.STORAGES = {**settings.STORAGES, "old": old.options}
    bucket = "9f484882-2f18-4fd2-967d-db9663db7bea"
    sha384 = hashlib.sha384(b"charm").hexdigest()
    storages["old"].save("opaque-id", ContentFile(b"charm"))
    catalog = old.client[old.database]
    catalog["storedResources"].insert_many(
        [
            {"_id": sha384, "path": "opaque-id", "sha384hash": sha384, "length": 5, "refcount": 3},
            {"_id": "f" * 96, "path": "", "sha384hash": "f" * 96, "length": 5, "refcount": 1},
        ]
    )
    for path, bucketuuid, user, content in (
        (f"buckets/{bucket}/charms/a", bucket, "", sha384),
        (f"buckets/{bucket}/users/bob/b", bucket, "bob", sha384),
        ("global/c", "", "", sha384),
        ("users/bob/d", "", "bob", "f" * 96),
    ):
        place = {"_id": path, "path": path, "bucketuuid": bucketuuid, "user": user, "resourceid": content}
        catalog["managedStoredResources"].insert_one(place)
    out, told, error = run("blobstore_import", "juju", "old")
    assert "New contents: 1. Shared: 2," in out
    assert "'d': its content was never uploaded" in told
    assert error == "1 file could not be imported."
    for namespace, path in (
        (Namespace(bucket=bucket), "charms/a"),
        (Namespace(bucket=bucket, user="bob"), "b"),
        (Namespace(), "c"),
    ):
        assert store.get(namespace, path).read() == b"charm"
    assert_sound(stored)


def test_a_file_and_a_folder_of_one_name_get_files_of_their_own() -> None:
    names = FileNames()
    paths = ["a", "a-b", "a.txt", "a/b", "a/b/c", "aa", "aa/x", "b/c", "b/d"]
    beside = [path for path in paths if names.name(path) != f"objects/{path}"]
    assert beside == ["a/b", "a/b/c", "aa/x"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_terminal_sees_how_far_it_is(desk: ManagedStorage, tree: Path, tmp_path: Path) -> None:
    terminal = Terminal()
    run("blobstore_import", "directory", tree, "--bucket=media", stderr=terminal)
    assert "1 byte, files" in terminal.getvalue()
    terminal = Terminal()
    run("blobstore_export", "directory", tmp_path / "out", "--bucket=media", stderr=terminal)
    assert "1 byte, objects" in terminal.getvalue()


@pytest.mark.skipif("BLOBSTORE_PORTING" not in os.environ, reason="takes minutes: BLOBSTORE_PORTING=files,bytes,jobs")
@pytest.mark.timeout(0)
def test_memory_stays_flat_whatever_comes_and_goes(store: ManagedStorage, stored: Stored, tmp_path: Path) -> None:
    """Bring many small files and a large one in, after a kill in the middle of each, out, and into an empty store."""
    files, size, jobs = map(int, os.environ["BLOBSTORE_PORTING"].split(","))
    small = plant(tmp_path / "small", {f"{number % 100}/{number}": b"%d" % number for number in range(files)})
    (tmp_path / "large").mkdir()
    write_large(tmp_path / "large/file", size)
    for tree, is_halfway in (
        (small, lambda: ManagedResource.objects.count() >= files // 2),
        (tmp_path / "large", lambda: arrived(stored) >= size // 2),
    ):
        command = ["blobstore_import", "directory", tree, "--bucket=media", f"--prefix={tree.name}/", f"--jobs={jobs}"]
        with running(*command):
            wait_until(is_halfway, seconds=7200)
        measured(f"{tree.name}, after a kill half way", *command)
        measured(f"{tree.name}, there already", *command)
        archive = tmp_path / f"{tree.name}.tar"
        measured(f"{tree.name}, out", "blobstore_export", "tar", archive, "--bucket=media", f"--prefix={tree.name}/")
    before = contents()
    assert before.keys() == {f"small/{number % 100}/{number}" for number in range(files)} | {"large/file"}
    call_command("flush", interactive=False, database=store.catalog.using)
    stored.clear()
    for name in ("small", "large"):
        command = ["blobstore_import", "export", tmp_path / f"{name}.tar", f"--jobs={jobs}"]
        measured(f"{name}, into an empty store", *command)
    assert contents() == before
    with store.get(MEDIA, "large/file") as blob, (tmp_path / "large/file").open("rb") as file:
        assert all(block == file.read(len(block)) for block in blob.chunks())


def arrived(stored: Stored) -> int:
    """Return how many bytes the storage holds, in whole chunks."""
    if isinstance(stored, StoredInGridFS):
        chunks: int = stored.client[stored.database]["blobs.chunks"].estimated_document_count()
        return chunks * CHUNK_SIZE
    assert isinstance(stored, StoredInFiles)
    return sum((stored.directory / name).stat().st_size for name in stored.names())


def write_large(file: Path, size: int) -> None:
    with file.open("wb") as stream:
        while left := size - stream.tell():
            stream.write(os.urandom(min(left, 16 * MIB)))


def measured(work: str, *command: object) -> None:
    """Run the command in a process of its own, print what it took, and fail if that was 200 MiB of memory."""
    began = time.monotonic()
    child = [sys.executable, "-c", MEASURED, *map(str, command)]
    done = subprocess.run(child, env=environment(), check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-2]) // 1024
    print(f"{work}: {time.monotonic() - began:.1f} s, {peak} MiB. {done.stdout.splitlines()[0]}")
    assert peak < 200
