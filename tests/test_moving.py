"""What is moved from one storage to another, what stays and why, and what may happen in the meantime."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage
from django.core.management import CommandError, call_command
from pytest_django import Settings

from django_blobstore import proof, uncommitted
from django_blobstore.errors import ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource, UpkeepRun
from django_blobstore.moving import MoveReport, move_contents
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.upkeep import Kind, sweep
from tests import damage
from tests.faults.dying import Doomed
from tests.invariants import assert_settled, assert_sound, end_leases_and_graces
from tests.stored import ALIAS, ELSEWHERE, Stored, StoredInFiles
from tests.streams import MIB, content_of
from tests.test_audit_command import Terminal
from tests.together import results

HERE = Namespace("b")
ON_SQLITE = pytest.mark.parametrize(
    "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
)
CONTENTS = {"empty": b"", "small": b"small", "chunks": content_of(600_000), "large": content_of(MIB + 70_000)}


@pytest.fixture
def other(stored: Stored, make_stored: Callable[[str], Stored], settings: Settings) -> Stored:
    """A storage of another kind beside that of new files."""
    other = make_stored({"files": "gridfs"}.get(stored.kind, "files"))
    other.stand_beside(stored, settings)
    return other


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    """A store with four contents, one of which has two objects."""
    store = ManagedStorage()
    for path, content in CONTENTS.items():
        store.put(HERE, path, content)
    store.put(Namespace("c"), "small", b"small")
    return store


def resource_of(path: str) -> Resource:
    return ManagedResource.objects.select_related("resource").get(bucket=HERE.bucket_id, path=path).resource


def aliases() -> dict[str, str]:
    """Return the storage of each object in the bucket."""
    objects = ManagedResource.objects.filter(bucket=HERE.bucket_id)
    return dict(objects.values_list("path", "resource__storage"))


def kinds(report: MoveReport) -> list[Kind]:
    return [finding.kind for finding in report.findings.sample]


def test_everything_is_moved_and_can_be_read_all_the_while(
    store: ManagedStorage, stored: Stored, other: Stored
) -> None:
    old = stored.names()
    report = move_contents(ALIAS, ELSEWHERE)
    length = sum(map(len, CONTENTS.values()))
    assert (report.total, report.total_bytes, report.moved, report.moved_bytes) == (4, length, 4, length)
    assert (report.overtaken, report.left, report.stopped, kinds(report)) == (0, 0, "", [])
    assert report.passed_bytes == 2 * length
    # The old files stay for readers that have them open.
    assert (report.pending_files, stored.names()) == (4, old)
    assert set(aliases().values()) == {ELSEWHERE}
    assert {path: store.get(HERE, path).read() for path in CONTENTS} == CONTENTS
    assert not Resource.objects.filter(verified_at=None).exists()
    assert_sound(stored)
    assert_settled(stored)
    assert (stored.names(), len(other.names())) == (set(), 4)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["s3"])
def test_contents_go_to_s3_and_back(
    database: str, stored: Stored, store: ManagedStorage, other: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    for source, target in ((ALIAS, ELSEWHERE), (ELSEWHERE, ALIAS)):
        assert move_contents(source, target, workers=2).moved == 4
    assert {path: store.get(HERE, path).read() for path in CONTENTS} == CONTENTS
    assert_sound(stored)
    assert (len(stored.names()), other.names(), PendingFile.objects.count()) == (4, set(), 0)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_dry_run_counts_and_changes_nothing(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    report = move_contents(ALIAS, ELSEWHERE, dry_run=True)
    assert (report.total, report.moved, report.left) == (4, 0, 4)
    assert (other.names(), set(aliases().values())) == (set(), {ALIAS})


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_only_so_many_are_moved_and_the_next_move_goes_on(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    first = move_contents(ALIAS, ELSEWHERE, limit=3, workers=1)
    assert (first.total, first.moved, first.left) == (3, 3, 1)
    assert aliases() == dict.fromkeys(CONTENTS, ELSEWHERE) | {"large": ALIAS}
    rest = move_contents(ALIAS, ELSEWHERE)
    assert (rest.total, rest.moved, rest.left) == (1, 1, 0)
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_only_contents_of_the_bucket_or_of_some_lengths_are_moved(
    store: ManagedStorage, stored: Stored, other: Stored
) -> None:
    run("--at-least=6", "--at-most=700000")
    assert aliases() == dict.fromkeys(CONTENTS, ALIAS) | {"chunks": ELSEWHERE}
    run("--bucket=c")
    assert aliases() == dict.fromkeys(CONTENTS, ALIAS) | {"chunks": ELSEWHERE, "small": ELSEWHERE}
    assert_settled(stored)


def test_damaged_and_missing_bytes_are_marked_and_stay_and_the_others_go(
    store: ManagedStorage, stored: Stored, other: Stored
) -> None:
    damage.flip(stored, resource_of("chunks").path, 7)
    damage.truncate(stored, resource_of("large").path)
    stored.storage.delete(resource_of("small").path)
    told: list[Kind] = []
    report = move_contents(ALIAS, ELSEWHERE, workers=1, on_finding=lambda finding: told.append(finding.kind))
    assert set(told) == {Kind.FILE_OF_OTHER_HASH, Kind.FILE_OF_OTHER_LENGTH, Kind.FILE_MISSING}
    assert (report.moved, report.left, report.stopped) == (1, 3, "")
    assert Resource.objects.damaged().count() == 3
    assert resource_of("small").missing
    assert (aliases()["empty"], len(other.names())) == (ELSEWHERE, 1)
    # A put heals them as ever, and the move takes them along.
    for path, content in CONTENTS.items():
        store.put(HERE, path, content)
    assert move_contents(ALIAS, ELSEWHERE).left == 0
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_sound_bytes_that_were_marked_as_damaged_lose_the_mark(
    store: ManagedStorage, stored: Stored, other: Stored
) -> None:
    store.catalog.mark_damaged(resource_of("small"))
    assert move_contents(ALIAS, ELSEWHERE).moved == 4
    assert not Resource.objects.damaged().exists()
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_content_without_bytes_is_left_alone(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    store.catalog.put("0" * 96, 5)
    assert move_contents(ALIAS, ELSEWHERE).total == 4


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_storage_that_is_not_there_holds_nothing_that_is_missing(
    store: ManagedStorage, stored: StoredInFiles, other: Stored
) -> None:
    away = stored.directory.with_name("away")
    stored.directory.rename(away)
    report = move_contents(ALIAS, ELSEWHERE, workers=1)
    away.rename(stored.directory)
    assert kinds(report) == [Kind.UNREAD] * 3
    assert "is not there; mount or restore it" in report.stopped
    assert not Resource.objects.damaged().exists()
    assert_settled(stored)


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (ALIAS, "elsewher", r"has no alias 'elsewher'; there are 'default', .*'elsewhere'"),
        ("gone", ELSEWHERE, "has no alias 'gone'"),
        (ALIAS, ALIAS, "name two storages"),
        (ALIAS, "media", "is a BlobStorage, which keeps no bytes"),
    ],
)
@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["memory"])
def test_storages_that_will_not_do_are_refused(
    database: str, stored: Stored, other: Stored, settings: Settings, source: str, target: str, said: str
) -> None:
    blob_storage = {"BACKEND": "django_blobstore.storages.BlobStorage", "OPTIONS": {"bucket": "media"}}
    settings.STORAGES = {**settings.STORAGES, "media": blob_storage}
    with pytest.raises(ValueError, match=said):
        move_contents(source, target)


class Interfering(FileSystemStorage):
    """Files that do something, once, when one of them is saved or opened."""

    deed: ClassVar[Callable[[], object] | None] = None

    def _save(self, name: str, content: File[bytes]) -> str:
        saved = super()._save(name, content)
        self.interfere()
        return saved

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        self.interfere()
        return super()._open(name, mode)

    def interfere(self) -> None:
        deed, Interfering.deed = Interfering.deed, None
        if deed:
            deed()


class Full(FileSystemStorage):
    """Files of which only the first bytes find room."""

    def _save(self, name: str, content: File[bytes]) -> str:
        super()._save(name, ContentFile(content.read(3)))
        raise OSError(errno.ENOSPC, "No space left on device")


class Forgetful(FileSystemStorage):
    """Files whose first byte is another when they are read."""

    def _save(self, name: str, content: File[bytes]) -> str:
        return super()._save(name, ContentFile(b"?" + content.read()[1:]))


@pytest.fixture
def kept_by(stored: Stored, settings: Settings, tmp_path: Any) -> Iterator[Callable[[type], StoredInFiles]]:
    """Have a storage of some class of this module beside that of new files."""

    def keep(kind: type) -> StoredInFiles:
        other = StoredInFiles(tmp_path / "kept")
        other.options = {**other.options, "BACKEND": f"{kind.__module__}.{kind.__qualname__}"}
        other.stand_beside(stored, settings)
        return other

    yield keep
    Interfering.deed = None


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
@pytest.mark.parametrize(("kind", "said"), [(Full, "No space left"), (Forgetful, "the copy has")])
def test_a_target_that_fails_stops_the_move_and_keeps_nothing(
    store: ManagedStorage, stored: Stored, kept_by: Callable[[type], StoredInFiles], kind: type, said: str
) -> None:
    other = kept_by(kind)
    report = move_contents(ALIAS, ELSEWHERE)
    assert (report.moved, report.left) == (0, 4)
    assert said in report.stopped
    assert set(kinds(report)) == {Kind.NOT_COPIED}
    assert (other.names(), PendingFile.objects.count(), set(aliases().values())) == (set(), 0, {ALIAS})
    assert_sound(stored)


def remove(store: ManagedStorage) -> None:
    store.remove(HERE, "large")


def replace(store: ManagedStorage) -> None:
    store.put(HERE, "large", b"another")


def move_too(store: ManagedStorage) -> None:
    assert move_contents(ALIAS, ELSEWHERE).moved == 4


def heal(store: ManagedStorage) -> None:
    store.catalog.mark_damaged(resource_of("large"))
    store.put(HERE, "large", CONTENTS["large"])


def put_again(store: ManagedStorage) -> None:
    store.put(HERE, "again", CONTENTS["large"])


def mark(store: ManagedStorage) -> None:
    store.catalog.mark_damaged(resource_of("large"))


@pytest.mark.parametrize(
    ("deed", "moved"), [(remove, 0), (replace, 0), (move_too, 0), (heal, 0), (put_again, 1), (mark, 1)]
)
def test_whatever_happens_to_a_content_while_it_is_copied_nothing_is_lost_or_left(
    store: ManagedStorage,
    stored: Stored,
    kept_by: Callable[[type], StoredInFiles],
    settings: Settings,
    deed: Callable[[ManagedStorage], None],
    moved: int,
) -> None:
    kept_by(Interfering)
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    Interfering.deed = lambda: deed(store)
    report = move_contents(ALIAS, ELSEWHERE, among=Resource.objects.filter(length=len(CONTENTS["large"])))
    assert (report.moved, report.overtaken, kinds(report)) == (moved, 1 - moved, [])
    assert_sound(stored)
    assert not PendingFile.objects.exists()
    assert not Resource.objects.damaged().exists()
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_copy_that_took_longer_than_its_lease_is_not_switched_to(
    store: ManagedStorage, stored: Stored, kept_by: Callable[[type], StoredInFiles]
) -> None:
    other = kept_by(Interfering)
    Interfering.deed = lambda: (end_leases_and_graces(), sweep())
    report = move_contents(ALIAS, ELSEWHERE, limit=1)
    assert (report.moved, kinds(report), other.names()) == (0, [Kind.NOT_COPIED], set())
    assert_settled(stored)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_proof_is_checked_against_the_moved_bytes(
    store: ManagedStorage, stored: Stored, kept_by: Callable[[type], StoredInFiles], settings: Settings
) -> None:
    kept_by(Interfering)
    move_contents(ALIAS, ELSEWHERE)
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    request = store.put_request(HERE, "proven", resource_of("large").sha384)
    answer = proof.answer(CONTENTS["large"], request, resource_of("large").sha384)
    Interfering.deed = lambda: move_contents(ELSEWHERE, ALIAS)
    assert store.proof_of_access_response(answer).path == "proven"
    assert Interfering.deed is None
    assert_settled(stored)


@pytest.mark.parametrize("read_before", [None, 0, 1000])
def test_who_reads_an_object_while_it_is_moved_reads_on(
    store: ManagedStorage, stored: Stored, other: Stored, settings: Settings, read_before: int | None
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    content = content_of(5 * MIB, 9)
    managed = store.put(HERE, "read", content)
    with store.open(managed) as file:
        begun = b"" if read_before is None else file.read(read_before)
        assert move_contents(ALIAS, ELSEWHERE).moved == 5
        assert stored.names() == set()
        if read_before is None:
            file.seek(3 * MIB)
            assert file.read(5000) == content[3 * MIB : 3 * MIB + 5000]
        else:
            assert begun + file.read() == content
    assert not Resource.objects.damaged().exists()


def test_who_reads_what_was_removed_is_told_so_after_a_move_too(
    store: ManagedStorage, stored: Stored, other: Stored, settings: Settings
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    managed = store.put(HERE, "read", content_of(5 * MIB, 9))
    if stored.kind == "files":
        move_contents(ALIAS, ELSEWHERE)  # an open file can be read though it is deleted, chunks in GridFS cannot
        managed = store.stat(HERE, "read")
    file = store.open(managed)
    move_contents(managed.resource.storage, ELSEWHERE if stored.kind == "gridfs" else ALIAS)
    store.remove(HERE, "read")
    file.seek(4 * MIB)
    with file, pytest.raises(ResourceNotFound):
        file.read()


def test_two_moves_at_once_move_everything_once(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    for number in range(20):
        store.put(HERE, f"{number}", content_of(2000, number))
    one, another = results(*[lambda: move_contents(ALIAS, ELSEWHERE)] * 2)
    assert one.moved + another.moved == 24
    assert (kinds(one), kinds(another), max(one.left, another.left)) == ([], [], 0)
    assert_settled(stored)
    assert (stored.names(), len(other.names())) == (set(), 24)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_notes_of_transactions_that_died_before_the_store_changed_its_storage_are_found(
    store: ManagedStorage, stored: Stored, other: Stored, settings: Settings
) -> None:
    storage = ResourceStorage(ALIAS)
    path = "ab/ab" + "0" * 30
    storage.put(path, b"rolled back")
    storage.put(uncommitted._note(path), b"")
    settings.BLOBSTORE = {"STORAGE": ELSEWHERE}
    move_contents(ALIAS, ELSEWHERE)
    assert not stored.names() & {path, uncommitted._note(path)}


def test_a_killed_move_goes_on_where_it_was(
    store: ManagedStorage, stored: Stored, other: Stored, tmp_path: Any
) -> None:
    # The second of its contents was copied, but not switched to.
    work = partial(move_contents, ALIAS, ELSEWHERE, workers=1)
    move_contents(ALIAS, ELSEWHERE, limit=1)
    assert Doomed(work, "kill:moving.verified", tmp_path).fate(stored).was_killed
    assert sorted(aliases().values()) == [ALIAS] * 3 + [ELSEWHERE]
    assert UpkeepRun.objects.under_way().count() == 1
    assert_sound(stored)
    report = move_contents(ALIAS, ELSEWHERE)
    assert (report.total, report.moved, report.left) == (3, 3, 0)
    assert_settled(stored)
    assert (stored.names(), len(other.names())) == (set(), 4)


def run(*options: str, stderr: io.StringIO | None = None) -> tuple[str, str]:
    """Return what the command wrote and the error it ended with, if any."""
    out = io.StringIO()
    try:
        call_command("blobstore_move", ALIAS, ELSEWHERE, *options, stdout=out, stderr=stderr or io.StringIO())
    except CommandError as failure:
        return out.getvalue(), str(failure)
    return out.getvalue(), ""


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_progress_is_told_within_a_large_content(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    told: list[tuple[int, int]] = []
    large = Resource.objects.filter(pk=resource_of("large").pk)
    move_contents(
        ALIAS, ELSEWHERE, among=large, on_progress=lambda report: told.append((report.passed_bytes, report.moved))
    )
    length = len(CONTENTS["large"])
    assert {(length, 0), (2 * length, 0), (2 * length, 1)} <= set(told)
    assert any(0 < passed < length for passed, _ in told)


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_the_command_says_what_it_would_do_and_did(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    length = "1.6 MiB (1,718,581 bytes)"
    assert run("--dry-run") == (
        f"Would move 4 contents, {length}, from 'blobstore' to 'elsewhere'; "
        "0 files in 'blobstore' arriving or waiting for a sweep.\n",
        "",
    )
    terminal = Terminal()
    out, error = run(stderr=terminal)
    assert out == (
        f"Moved 4 of 4 contents, {length}, from 'blobstore' to 'elsewhere'; "
        "4 files in 'blobstore' arriving or waiting for a sweep.\n"
    )
    assert error == ""
    assert "100% " in terminal.getvalue()
    assert "/s, 0 s left, contents: 4 of 4" in terminal.getvalue()


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_the_command_fails_if_anything_is_left(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    stored.storage.delete(resource_of("small").path)
    out, error = run("--json")
    document = json.loads(out)
    assert [finding["kind"] for finding in document["findings"]] == ["file-missing"]
    assert (document["summary"]["moved"], document["summary"]["left"]) == (3, 1)
    assert error == (
        "1 content could not be moved.\n1 left in 'blobstore'; begin again to go on.\n"
        "New contents go on coming there until BLOBSTORE['STORAGE'] is 'elsewhere'."
    )


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_each_move_is_remembered_with_what_it_came_to(store: ManagedStorage, stored: Stored, other: Stored) -> None:
    missing = resource_of("small")
    stored.storage.delete(missing.path)
    run("--dry-run")
    assert not UpkeepRun.objects.exists()
    run()
    by_command = UpkeepRun.objects.get()
    assert (by_command.kind, by_command.origin, by_command.error) == ("move", "command", "")
    assert by_command.options == {"source": ALIAS, "target": ELSEWHERE}
    length = sum(map(len, CONTENTS.values())) - 5
    told = {"moved": 3, "moved_bytes": length, "overtaken": 0, "in_source": 1, "found": 1, "left": 1}
    assert by_command.figures == told | {"kinds": {"file-missing": {"found": 1, "bytes": 5, "fixed": 0}}}
    assert (by_command.done, by_command.total, by_command.ended_at is None) == (4, 4, False)
    assert [finding["name"] for finding in by_command.findings] == [missing.sha384]
    move_contents(ALIAS, ELSEWHERE)
    assert UpkeepRun.objects.latest("pk").origin == "task"


@ON_SQLITE
@pytest.mark.parametrize("storage_kind", ["files"])
def test_the_command_refuses_what_makes_no_sense(database: str, stored: Stored, other: Stored) -> None:
    assert run("--bucket=nobody") == ("", "There is no bucket 'nobody'.")
    for option in ("--limit=0", "--workers=0", "--at-least=-1"):
        assert "it must be a number of" in run(option)[1]
