"""Uploads in parts: what counts, what does not, who may go on, and what is left when one ends."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connections
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import Settings

from django_blobstore import resumable, upload_sessions
from django_blobstore.errors import (
    ContentTooLarge,
    HashMismatch,
    LeaseLost,
    LengthMismatch,
    OffsetMismatch,
    PartMismatch,
    ResourceNotFound,
    UploadExpired,
    UploadLocked,
    UploadNotFound,
    UploadPending,
    UploadUnfinished,
)
from django_blobstore.failpoints import Plan, arm
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, ResumableUpload, UploadPart
from django_blobstore.signals import object_stored
from django_blobstore.upkeep import audit, sweep
from tests.conftest import ON_ONE_DATABASE
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import Stream, content_of, sha384
from tests.together import outcomes

ME = "me"
HOME = Namespace(user=ME)
CONTENT = content_of(3_000_000)
HALF = len(CONTENT) // 2
PART = 700_000

pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have parts end by their length, however long the bytes take to come."""
    monkeypatch.setattr(resumable, "PART_LENGTH", PART)
    monkeypatch.setattr(resumable, "PART_SECONDS", 10_000)


@pytest.fixture(autouse=True)
def nothing_is_left(database: str, stored: Stored, settings: Settings) -> Any:
    """After each test the store must be sound, and a sweep must end whatever nobody went on with."""
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    yield
    assert_sound(stored)
    assert_settled(stored)


def begin(path: str = "a", length: int | None = len(CONTENT), **about: Any) -> ResumableUpload:
    return resumable.begin(ME, namespace=HOME, path=path, length=length, **about)


def again(upload: ResumableUpload) -> ResumableUpload:
    """Return `upload` as another request finds it."""
    return resumable.find(upload.pk, ME)


def append(upload: ResumableUpload, start: int, end: int | None = None, **about: Any) -> ResumableUpload:
    """Append the bytes of CONTENT from `start` on, as a request of its own."""
    return resumable.append(again(upload), start, Stream(CONTENT[start:end]), **about)


def content(path: str = "a") -> bytes:
    with ManagedStorage().get(HOME, path) as file:
        return bytes(file.read())


def broken(start: int, end: int) -> Stream:
    """Return the bytes from `start` to `end` as a stream that breaks after them."""

    def break_off() -> None:
        raise ConnectionResetError

    return Stream(CONTENT[start:], {end - start: break_off}, at_most=100_000)


def test_parts_become_an_object_with_the_last_byte(stored: Stored) -> None:
    upload = begin(sha384=sha384(CONTENT), content_type="image/png")
    assert append(upload, 0, HALF).offset == HALF
    with pytest.raises(UploadPending):
        content()
    assert append(upload, HALF).is_whole
    assert content() == CONTENT
    managed = ManagedStorage().stat(HOME, "a")
    assert (managed.content_type, managed.resource.sha384) == ("image/png", sha384(CONTENT))
    assert stored.names() == {managed.resource.path}
    assert not UploadPart.objects.exists()
    assert again(upload).is_whole


@pytest.mark.parametrize("length", [0, 1, PART, PART + 1, 2 * PART])
def test_any_length_will_do(length: int) -> None:
    upload = begin(length=length)
    resumable.append(upload, 0, Stream(CONTENT[:length]))
    assert content() == CONTENT[:length]


def test_no_part_is_longer_than_what_may_have_to_be_sent_again() -> None:
    append(begin(), 0, HALF)
    lengths = [part.file.length for part in UploadPart.objects.select_related("file").order_by("offset")]
    assert lengths == [PART, PART, HALF - 2 * PART]


def test_a_slow_part_ends_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "PART_SECONDS", 0)
    upload = begin()
    resumable.append(upload, 0, Stream(CONTENT, at_most=PART // 2))
    assert content() == CONTENT


def test_the_bytes_before_a_break_count() -> None:
    upload = begin()
    with pytest.raises(ConnectionResetError):
        resumable.append(upload, 0, broken(0, 1_000_000))
    assert again(upload).offset == 1_000_000
    append(upload, 1_000_000)
    assert content() == CONTENT


def test_bytes_that_were_sent_twice_count_once() -> None:
    upload = begin()
    append(upload, 0, HALF)
    with pytest.raises(OffsetMismatch) as raised:
        append(upload, 0, HALF)
    assert (raised.value.expected, raised.value.actual) == (HALF, 0)
    append(upload, HALF)
    assert append(upload, len(CONTENT)).is_whole
    with pytest.raises(OffsetMismatch):
        append(upload, HALF)
    assert content() == CONTENT


def test_a_length_may_be_told_with_the_last_bytes_or_after_them() -> None:
    for path, lengths in {"with": (None, len(CONTENT)), "after": (None, None, len(CONTENT))}.items():
        upload = begin(path, None)
        cuts = [0, HALF, len(CONTENT), len(CONTENT)]
        for (start, end), length in zip(pairwise(cuts), lengths, strict=False):
            append(upload, start, end, length=length)
        assert content(path) == CONTENT


def test_a_length_told_before_the_last_byte_is_known_from_then_on() -> None:
    upload = begin(length=None)
    append(upload, 0, 0, length=len(CONTENT))
    assert again(upload).length == len(CONTENT)
    with pytest.raises(LengthMismatch):
        append(upload, 0, HALF, length=HALF)
    append(upload, 0)
    assert content() == CONTENT


def test_more_than_the_length_is_refused() -> None:
    upload = begin(length=HALF)
    with pytest.raises(LengthMismatch):
        append(upload, 0)
    assert again(upload).offset == 2 * PART
    with pytest.raises(UploadPending):
        content()
    append(upload, 2 * PART, HALF)
    assert content() == CONTENT[:HALF]


def test_a_length_below_what_has_come_is_refused() -> None:
    upload = begin(length=None)
    append(upload, 0, HALF)
    with pytest.raises(LengthMismatch):
        append(upload, HALF, HALF, length=HALF - 1)
    assert again(upload).offset == HALF


def test_no_upload_is_longer_than_the_limit(settings: Settings) -> None:
    settings.BLOBSTORE = {"MAX_LENGTH": HALF}
    with pytest.raises(ContentTooLarge):
        begin()
    upload = begin(length=None)
    with pytest.raises(ContentTooLarge):
        append(upload, 0)
    with pytest.raises(ContentTooLarge):
        append(upload, again(upload).offset, length=len(CONTENT))
    append(upload, again(upload).offset, HALF, length=HALF)
    assert content() == CONTENT[:HALF]


def test_bytes_with_the_wrong_hash_do_not_count_and_can_be_sent_again() -> None:
    upload = begin()
    append(upload, 0, HALF, digest=("sha384", sha384(CONTENT[:HALF])))
    for end in (len(CONTENT) - 1, None):
        with pytest.raises(PartMismatch):
            append(upload, HALF, end, digest=("sha384", sha384(b"something else")))
        assert again(upload).offset == HALF
    assert UploadPart.objects.count() == 1
    append(upload, HALF, digest=("sha384", sha384(CONTENT[HALF:])))
    assert content() == CONTENT


def test_bytes_with_a_hash_that_break_off_do_not_count() -> None:
    upload = begin()
    with pytest.raises(ConnectionResetError):
        resumable.append(upload, 0, broken(0, HALF), digest=("sha384", sha384(CONTENT)))
    assert again(upload).offset == 0


def test_an_upload_with_the_wrong_hash_is_gone_and_leaves_nothing(stored: Stored) -> None:
    upload = begin(sha384=sha384(b"something else"))
    append(upload, 0, HALF)
    with pytest.raises(HashMismatch):
        append(upload, HALF)
    with pytest.raises(UploadNotFound):
        again(upload)
    assert_empty(stored)


def test_an_upload_of_known_content_writes_no_file_for_it_again(stored: Stored) -> None:
    ManagedStorage().put(HOME, "before", CONTENT)
    names = stored.names()
    resumable.append(begin(sha384=sha384(CONTENT)), 0, Stream(CONTENT))
    assert content() == CONTENT
    assert stored.names() == names


def test_an_object_there_before_stays_until_the_last_byte() -> None:
    ManagedStorage().put(HOME, "a", b"before")
    upload = begin()
    append(upload, 0, HALF)
    assert content() == b"before"
    append(upload, HALF)
    assert content() == CONTENT


def test_the_newer_of_two_requests_goes_on_and_the_older_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "LOOK_SECONDS", 0)
    upload = begin()
    # While the older one waits for its bytes the newer one sends all of them.
    older = Stream(b"x" * len(CONTENT), {100_000: lambda: append(upload, 0) and None})
    with pytest.raises(UploadLocked):
        resumable.append(again(upload), 0, older)
    assert older.position < len(CONTENT)
    assert content() == CONTENT


def test_the_older_of_two_requests_cannot_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begin()
    # The newer one comes when the older one has all its bytes but has not looked yet.
    older = Stream(b"x" * len(CONTENT), {len(CONTENT) - 1: lambda: append(upload, 4 * PART) and None})
    with pytest.raises(UploadLocked):
        resumable.append(again(upload), 0, older)
    assert content() == b"x" * 4 * PART + CONTENT[4 * PART :]


def test_many_requests_at_once_make_one_right_content() -> None:
    upload = begin()

    def try_on() -> None:
        while not (current := again(upload)).is_whole:
            try:
                resumable.append(current, current.offset, Stream(CONTENT[current.offset :]))
            except (OffsetMismatch, UploadLocked):
                continue

    outcomes(try_on, try_on, try_on)
    assert content() == CONTENT
    assert ManagedResource.objects.count() == 1


def test_whoever_asks_waits_while_the_parts_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begin()
    ResumableUpload.objects.update(state="finishing", lease_until=timezone.now() + timedelta(hours=1))
    monkeypatch.setattr(upload_sessions, "PATIENCE", 0)
    with pytest.raises(UploadLocked):
        again(upload)
    ResumableUpload.objects.update(lease_until=timezone.now())
    assert again(upload).offset == 0


@pytest.mark.parametrize("where", ["resumable.finishing", "refer.saved", "resumable.settled"])
def test_an_upload_that_was_not_finished_wants_its_last_part_again(where: str) -> None:
    upload = begin()
    append(upload, 0, HALF)
    arm(Plan(f"raise:{where}"))
    try:
        with pytest.raises(Exception, match="Failpoint"):
            append(upload, HALF)
    finally:
        arm(None)
    ResumableUpload.objects.update(lease_until=timezone.now())
    offset = again(upload).offset
    assert HALF <= offset < len(CONTENT)
    append(upload, offset)
    assert content() == CONTENT


def test_partial_uploads_are_put_together_in_the_order_that_is_asked_for() -> None:
    cuts = [0, 1_000_000, 1_000_000, 2_000_000, len(CONTENT)]
    partials = []
    for start, end in pairwise(cuts):
        partials.append(resumable.begin(ME, length=end - start))
        resumable.append(partials[-1], 0, Stream(CONTENT[start:end]))
    for path in ("a", "b"):  # the second time as by a client that heard nothing
        final = resumable.concatenate(ME, [partial.pk for partial in partials], namespace=HOME, path=path)
        assert (final.length, final.is_whole) == (len(CONTENT), True)
        assert content(path) == CONTENT
    assert all(again(partial).is_whole for partial in partials)
    # They are kept for a repetition only.
    assert max(again(partial).expires_at for partial in partials) < timezone.now() + timedelta(hours=1)


def test_only_whole_partial_uploads_of_ones_own_are_put_together() -> None:
    whole, cut = resumable.begin(ME, length=1), resumable.begin(ME, length=2)
    for partial in (whole, cut):
        resumable.append(partial, 0, Stream(b"x"))
    strangers = resumable.begin("you", length=1)
    plain = begin(length=1)
    resumable.append(plain, 0, Stream(b"x"))
    for other, error in ((cut, UploadUnfinished), (plain, UploadUnfinished), (strangers, UploadNotFound)):
        with pytest.raises(error):
            resumable.concatenate(ME, [whole.pk, other.pk], namespace=HOME, path="b")
    assert ManagedResource.objects.count() == 1


def test_a_concatenation_with_the_wrong_hash_leaves_the_partial_uploads() -> None:
    partial = resumable.begin(ME, length=1)
    resumable.append(partial, 0, Stream(b"x"))
    with pytest.raises(HashMismatch):
        resumable.concatenate(ME, [partial.pk], namespace=HOME, path="b", sha384=sha384(b"y"))
    assert [upload.pk for upload in ResumableUpload.objects.all()] == [partial.pk]
    resumable.concatenate(ME, [partial.pk], namespace=HOME, path="b", sha384=sha384(b"x"))
    assert content("b") == b"x"


def test_ending_an_upload_deletes_its_parts(stored: Stored) -> None:
    upload = begin()
    append(upload, 0, HALF)
    resumable.end(upload)
    assert_empty(stored)
    with pytest.raises(UploadNotFound):
        again(upload)


def test_ending_a_finished_upload_leaves_the_object() -> None:
    upload = append(begin(), 0)
    resumable.end(upload)
    assert content() == CONTENT


def test_an_upload_that_ends_right_after_its_object_was_made_leaves_the_object() -> None:
    upload = begin()

    def end(**_: Any) -> None:
        resumable.end(upload)

    object_stored.connect(end)
    try:
        assert append(upload, 0).is_whole
    finally:
        object_stored.disconnect(end)
    assert content() == CONTENT
    assert not ResumableUpload.objects.exists()


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
def test_an_upload_may_have_more_parts_than_a_statement_takes_parameters(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["django_blobstore.upkeep.sweep"], "BATCH", 20)
    upload = begin(length=60)
    with few_parameters(database, 50):
        for offset in range(60):
            append(upload, offset, offset + 1)
    assert content() == CONTENT[:60]
    assert_settled(stored)


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
def test_more_uploads_than_a_statement_takes_parameters_expire_at_once(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its name as an attribute of the package is that of the function.
    monkeypatch.setattr(sys.modules["django_blobstore.upkeep.sweep"], "BATCH", 20)
    for _ in range(60):
        begin()
    ResumableUpload.objects.update(expires_at=F("created_at"))
    with few_parameters(database, 50):
        assert sweep().expired_uploads == 60
    assert_empty(stored)


@contextmanager
def few_parameters(database: str, most: int) -> Iterator[None]:
    """Let SQLite take only so many parameters in a statement; it may be built to take as few as 999."""
    connection = connections[database].connection
    before = connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, most)
    try:
        yield
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


def test_an_upload_that_ends_stops_the_request_that_brings_more(stored: Stored) -> None:
    upload = begin()
    with pytest.raises(UploadNotFound):
        resumable.append(upload, 0, Stream(CONTENT, {PART + 1: lambda: resumable.end(upload)}))
    assert_empty(stored)


def test_an_upload_belongs_to_whoever_began_it() -> None:
    with pytest.raises(UploadNotFound):
        resumable.find(begin().pk, "you")


def test_an_expired_upload_cannot_go_on_and_is_swept(stored: Stored) -> None:
    upload = begin()
    append(upload, 0, HALF)
    ResumableUpload.objects.update(expires_at=Now())
    with pytest.raises(UploadExpired):
        again(upload)
    with pytest.raises(UploadExpired):
        resumable.append(upload, HALF, Stream(b"x"))
    foreseen, done = sweep(dry_run=True), sweep()
    assert (foreseen.expired_uploads, foreseen.total_files) == (done.expired_uploads, done.deleted_files) == (1, 3)
    assert done.deleted_bytes == foreseen.deleted_bytes == HALF
    assert_empty(stored)
    with pytest.raises(ResourceNotFound):
        content()


def test_an_upload_lives_on_with_its_parts_as_long_as_bytes_come() -> None:
    upload = begin()
    append(upload, 0, PART)
    soon = timezone.now() + timedelta(minutes=30)
    ResumableUpload.objects.update(expires_at=soon)
    PendingFile.objects.update(lease_until=soon)
    assert append(upload, PART, HALF).expires_at > soon + timedelta(hours=23)
    assert {file.lease_until > soon + timedelta(hours=23) for file in PendingFile.objects.all()} == {True}  # type: ignore[operator]


def test_an_upload_under_way_is_no_finding_of_an_audit_and_survives_a_sweep(stored: Stored) -> None:
    upload = begin()
    append(upload, 0, HALF)
    assert not audit(fix=True, older_than=timedelta(0)).findings.left
    sweep()
    append(upload, HALF)
    assert content() == CONTENT


def test_a_path_is_pending_only_while_bytes_come_lately() -> None:
    begin()
    with pytest.raises(UploadPending):
        content()
    ResumableUpload.objects.update(lease_until=F("created_at"))
    with pytest.raises(ResourceNotFound):
        content()


def test_a_part_whose_file_was_swept_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "PART_LENGTH", 2 * HALF)
    upload = begin()

    def sweep_away() -> None:
        PendingFile.objects.update(lease_until=Now())
        sweep()

    with pytest.raises(LeaseLost):
        resumable.append(upload, 0, Stream(CONTENT[:HALF], {HALF - 1: sweep_away}))
    assert (again(upload).offset, UploadPart.objects.count()) == (0, 0)
