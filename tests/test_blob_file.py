"""What `get` returns: a file like any other, which checks what it hands out."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.files.base import ContentFile
from hypothesis import example, given
from hypothesis import strategies as st

from django_blobstore.blob_file import BlobFile
from django_blobstore.errors import BlobstoreError, ContentDamaged, ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource
from tests.invariants import assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import Stream, content_of, sha384

MIB = 1024 * 1024
CONTENT = content_of(2 * MIB + 12_345)
HERE = Namespace(bucket="photos")


def put(content: bytes = CONTENT, path: str = "a") -> ManagedResource:
    return ManagedStorage().put(HERE, path, content)


def get(path: str = "a") -> BlobFile:
    return ManagedStorage().get(HERE, path)


def overwrite(stored: Stored, content: bytes | None) -> None:
    """Put `content`, or nothing at all, where the bytes of the only resource are."""
    path = Resource.objects.get().path
    stored.storage.delete(path)
    if content is not None:
        stored.storage.save(path, ContentFile(content))


def flipped(at: int) -> bytes:
    return CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :]


def read_in_blocks(file: BlobFile, size: int = MIB) -> tuple[bytes, BlobstoreError | None]:
    """Return what was handed out, and the error that ended it."""
    parts = []
    try:
        while block := file.read(size):
            parts.append(block)
    except BlobstoreError as error:
        return b"".join(parts), error
    return b"".join(parts), None


def a_file(content: bytes, stream: Any = None, declared: bytes | None = None) -> BlobFile:
    """Return a BlobFile that no row and no storage is behind."""
    resource = Resource(sha384=sha384(content if declared is None else declared), length=len(content))
    managed = ManagedResource(path="a", resource=resource, content_type="text/plain")
    return BlobFile(managed, stream or io.BytesIO(content), on_damage=AssertionError)  # type: ignore[arg-type]


def test_it_says_what_it_is(database: str, stored: Stored) -> None:
    ManagedStorage().put(HERE, "a/b", CONTENT, content_type="image/png")
    with get("a/b") as file:
        assert (file.name, file.size, file.sha384) == ("a/b", len(CONTENT), sha384(CONTENT))
        assert file.content_type == "image/png"
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert file.read() == CONTENT
    assert file.closed
    assert not file.readable()


@pytest.mark.parametrize("length", [0, 1, MIB, MIB + 1])
def test_it_reads_back_contents_of_any_length(database: str, stored: Stored, length: int) -> None:
    put(content_of(length))
    with get() as file:
        assert file.read() == content_of(length)
        assert file.read() == b""
        assert b"".join(file.chunks(1000)) == content_of(length)


operations = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 40)),
    st.tuples(st.just("readline"), st.integers(-1, 40)),
    st.tuples(st.just("seek"), st.integers(0, 60)),
    st.tuples(st.just("seek"), st.integers(-60, 60), st.sampled_from([io.SEEK_CUR, io.SEEK_END])),
    st.tuples(st.sampled_from(["tell", "read", "readline", "readlines", "__next__"])),
)


def outcome(file: Any, name: str, *arguments: int) -> Any:
    try:
        if name == "__next__":
            return next(iter(file), b"")
        return getattr(file, name)(*arguments)
    except ValueError:
        return ValueError


@example("a\nb", 9, [("readline",), ("seek", 0), ("read",)])
@example("a\nbc", 9, [("readline",), ("seek", 3), ("read",), ("seek", -2, io.SEEK_CUR), ("readlines",)])
@given(st.text("ab\n\r", max_size=50), st.integers(1, 9), st.lists(operations, max_size=20))
def test_it_does_what_bytes_io_does(text: str, at_most: int, steps: list[tuple[Any, ...]]) -> None:
    class Short(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, at_most))

        read1 = read  # type: ignore[assignment]

    file, model = a_file(text.encode(), Short(text.encode())), io.BytesIO(text.encode())
    for name, *arguments in steps:
        if name == "seek" and arguments[1:] and model.tell() < 0:
            continue
        expected = outcome_of_model(model, name, *arguments)
        assert outcome(file, name, *arguments) == expected
        assert file.tell() == model.tell()


def outcome_of_model(model: io.BytesIO, name: str, *arguments: int) -> Any:
    """Return what BytesIO does; it alone moves to 0 where others refuse to go before the start."""
    if name == "seek" and arguments[1:]:
        start = {io.SEEK_CUR: model.tell(), io.SEEK_END: len(model.getvalue())}[arguments[1]]
        if start + arguments[0] < 0:
            return ValueError
    return outcome(model, name, *arguments)


def test_it_can_be_read_as_text_and_by_a_buffer(database: str, stored: Stored) -> None:
    put("first\nzweite Zeile ä\n".encode())
    with get() as file, io.TextIOWrapper(io.BufferedReader(file)) as text:  # type: ignore[arg-type, type-var]
        assert list(text) == ["first\n", "zweite Zeile ä\n"]


def test_lines_do_not_disturb_the_check(database: str, stored: Stored) -> None:
    put(CONTENT)
    with get() as file:
        assert file.readline() + file.read() == CONTENT
        file.seek(0)
        assert b"".join(file) == CONTENT
    assert Resource.objects.get().damaged_at is None


def test_a_line_of_damaged_content_is_not_handed_out(database: str, stored: Stored) -> None:
    put(b"one\ntwo\n")
    overwrite(stored, b"one\ntwO\n")
    with get() as file, pytest.raises(ContentDamaged):
        file.readline()


@pytest.mark.parametrize("at", [0, MIB, len(CONTENT) - 1])
def test_a_flipped_byte_is_seen_before_the_last_block_is_handed_out(database: str, stored: Stored, at: int) -> None:
    managed = put()
    overwrite(stored, flipped(at))
    with get() as file:
        given_out, error = read_in_blocks(file)
    assert isinstance(error, ContentDamaged)
    assert (error.sha384, error.path) == (managed.resource.sha384, "a")
    assert given_out == flipped(at)[: 2 * MIB]
    assert Resource.objects.get().damaged_at is not None


def test_chunks_and_a_single_read_check_too(database: str, stored: Stored) -> None:
    put()
    overwrite(stored, flipped(5))
    with get() as file, pytest.raises(ContentDamaged):
        file.read()
    with get() as file, pytest.raises(ContentDamaged):
        list(file.chunks())


def test_the_end_of_damaged_content_cannot_be_had_by_asking_again(database: str, stored: Stored) -> None:
    put()
    overwrite(stored, flipped(5))
    with get() as file:
        for _ in range(2):
            given_out, error = read_in_blocks(file)
            assert isinstance(error, ContentDamaged)
        assert given_out == b""
        file.seek(len(CONTENT) - 1)
        with pytest.raises(ContentDamaged):
            file.read1()


@pytest.mark.parametrize("size", [1, 1000, MIB, 5 * MIB])
def test_read1_gives_what_is_there_and_checks_it(database: str, stored: Stored, size: int) -> None:
    put(CONTENT[-1000:] if size == 1 else CONTENT)
    with get() as file:
        pieces = list(iter(lambda: file.read1(size), b""))
        assert file.tell() == file.size
    assert sha384(b"".join(pieces)) == file.sha384
    assert max(map(len, pieces)) <= size


def test_content_without_a_sha256_is_checked_by_its_sha384(database: str, stored: Stored) -> None:
    put()
    Resource.objects.update(sha256="")
    with get() as file:
        assert file.read() == CONTENT
    overwrite(stored, flipped(5))
    with get() as file, pytest.raises(ContentDamaged):
        file.read()


@pytest.mark.parametrize("length", [0, 1, MIB, len(CONTENT) - 1])
def test_a_truncated_file_is_damaged_and_never_just_shorter(database: str, stored: Stored, length: int) -> None:
    put()
    overwrite(stored, CONTENT[:length])
    with get() as file:
        given_out, error = read_in_blocks(file)
    assert isinstance(error, ContentDamaged)
    assert CONTENT[:length].startswith(given_out)
    assert Resource.objects.get().damaged_at is not None


def test_a_longer_file_gives_no_byte_more(database: str, stored: Stored) -> None:
    put()
    overwrite(stored, CONTENT + b"more")
    with get() as file:
        assert file.read() == CONTENT


def test_a_missing_file_is_damaged_content(database: str, stored: Stored) -> None:
    put()
    overwrite(stored, None)
    with pytest.raises(ContentDamaged, match="missing"):
        get().read()
    assert Resource.objects.get().damaged_at is not None


@pytest.mark.parametrize("damaged", [None, b"", flipped(7)], ids=["missing", "empty", "flipped"])
def test_the_next_put_of_the_same_content_heals_it(database: str, stored: Stored, damaged: bytes | None) -> None:
    put()
    put(path="b")
    overwrite(stored, damaged)
    with pytest.raises(ContentDamaged):
        get().read()
    put(path="c")
    for path in "abc":
        assert get(path).read() == CONTENT
    resource = Resource.objects.get()
    assert (resource.reference_count, resource.damaged_at) == (3, None)
    assert_settled(stored)
    assert stored.names() == {resource.path}


@pytest.mark.parametrize("length", [10, 2 * MIB])
def test_small_and_large_contents_heal_whatever_put_is_used(database: str, stored: Stored, length: int) -> None:
    content = content_of(length)
    put(content)
    overwrite(stored, None)
    with pytest.raises(ContentDamaged):
        get().read()
    ManagedStorage().put(HERE, "a", Stream(content), check_hash=sha384(content))
    assert get().read() == content
    assert_settled(stored)


def test_a_file_replaced_while_it_is_read_is_not_taken_for_damaged(database: str, stored: Stored) -> None:
    put()
    old = Resource.objects.get().path
    with get() as file:
        assert file.read(MIB) == CONTENT[:MIB]
        put(b"new")
        overwritten = PendingFile.objects.get(path=old)
        stored.storage.delete(overwritten.path)
        stored.storage.save(overwritten.path, ContentFile(b""))
        file.seek(0)
        given_out, error = read_in_blocks(file)
    assert error is None or isinstance(error, ResourceNotFound)
    assert (error is None) == (given_out == CONTENT)
    assert Resource.objects.get().damaged_at is None
    assert_sound(stored)


def test_a_read_after_a_seek_is_not_checked_and_a_new_start_is() -> None:
    file = a_file(b"content", declared=b"other")
    file.seek(3)
    assert file.read() == b"tent"
    file.seek(0)
    with pytest.raises(AssertionError, match="hash"):
        file.read()


def test_a_pause_in_reading_does_not_end_the_check() -> None:
    file = a_file(b"content", declared=b"other")
    assert file.read(4) == b"cont"
    file.seek(1)
    assert file.read(2) == b"on"
    file.seek(4)
    with pytest.raises(AssertionError, match="hash"):
        file.read()


def test_it_cannot_be_written() -> None:
    for write in ("write", "writelines", "truncate"):
        with pytest.raises((io.UnsupportedOperation, AttributeError)):
            getattr(a_file(b"content"), write)(b"x")


class Faltering(io.BytesIO):
    """Gives half of what it is asked for, then fails once."""

    failures = 1

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() and self.failures:
            self.failures -= 1
            raise ConnectionError("gone for a moment")
        return super().read(-(-size // 2) if size and size > 0 else size)

    read1 = read  # type: ignore[assignment]


def test_whoever_reads_on_after_a_broken_connection_misses_nothing() -> None:
    content = content_of(1000)
    file = a_file(content, Faltering(content))
    with pytest.raises(ConnectionError):
        file.read(1000)
    assert file.tell() == 0
    assert file.read() == content
