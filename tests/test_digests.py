"""Hashing and counting while content passes, whatever the stream does."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from django.core.files.base import ContentFile
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.digests import HashingReader, as_readable, clean_hash
from django_blobstore.errors import ContentTooLarge, HashMismatch, InvalidHash, LengthMismatch
from tests.streams import Stream, content_of, sha384

CONTENT = content_of(1000)


def test_the_hashes_and_the_length_are_those_of_all_that_was_read() -> None:
    reader = HashingReader(CONTENT)
    reader.drain(7)
    assert reader.length == len(CONTENT)
    assert reader.sha384 == sha384(CONTENT)
    assert reader.hexdigest("sha256") == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("given_as", [bytes, bytearray, memoryview, io.BytesIO, ContentFile])
def test_content_comes_as_bytes_or_as_anything_with_read(given_as: Any) -> None:
    reader = HashingReader(given_as(CONTENT))
    assert reader.read(2000) == CONTENT


def test_what_can_be_read_is_not_wrapped() -> None:
    stream = Stream(CONTENT)
    assert as_readable(stream) is stream


@pytest.mark.parametrize("at_most", [1, 7, 999, 1000])
def test_short_reads_are_filled(at_most: int) -> None:
    reader = HashingReader(Stream(CONTENT, at_most=at_most))
    assert [reader.read(400), reader.read(400), reader.read(400), reader.read(400)] == [
        CONTENT[:400],
        CONTENT[400:800],
        CONTENT[800:],
        b"",
    ]


def test_no_byte_after_the_length_is_read() -> None:
    stream = Stream(CONTENT)
    reader = HashingReader(stream, 600)
    reader.drain(500)
    assert (reader.length, stream.position) == (600, 600)
    reader.check({"sha384": sha384(CONTENT[:600])})


def test_a_length_of_nothing_reads_nothing() -> None:
    stream = Stream(CONTENT)
    reader = HashingReader(stream, 0)
    assert reader.read(10) == b""
    assert stream.position == 0
    reader.check({"sha384": sha384(b"")})


def test_fewer_bytes_than_announced_are_a_length_mismatch() -> None:
    reader = HashingReader(CONTENT, 1001)
    reader.drain()
    with pytest.raises(LengthMismatch) as raised:
        reader.check({})
    assert (raised.value.expected, raised.value.actual) == (1001, 1000)


@pytest.mark.parametrize("algorithm", ["sha384", "sha256", "sha512"])
def test_another_hash_is_a_hash_mismatch_that_names_both(algorithm: str) -> None:
    reader = HashingReader(CONTENT, algorithms=["sha384", "sha256", "sha512"])
    reader.drain()
    other = hashlib.new(algorithm, b"other").hexdigest()
    with pytest.raises(HashMismatch) as raised:
        reader.check({algorithm: other})
    actual = hashlib.new(algorithm, CONTENT).hexdigest()
    assert (raised.value.expected, raised.value.actual, raised.value.algorithm) == (other, actual, algorithm)


def test_a_limit_lets_exactly_so_much_pass() -> None:
    HashingReader(CONTENT, limit=1000).drain()
    with pytest.raises(ContentTooLarge) as raised:
        HashingReader(CONTENT, limit=999).drain()
    assert raised.value.limit == 999


def test_too_great_a_length_is_refused_before_anything_is_read() -> None:
    stream = Stream(CONTENT)
    with pytest.raises(ContentTooLarge):
        HashingReader(stream, 1000, limit=999)
    assert stream.position == 0


def test_no_block_beyond_the_limit_is_handed_out() -> None:
    reader = HashingReader(CONTENT, limit=500)
    assert reader.read(500) == CONTENT[:500]
    with pytest.raises(ContentTooLarge):
        reader.read(1)


def test_a_peek_leaves_everything_to_be_read_and_is_hashed_once() -> None:
    reader = HashingReader(CONTENT)
    assert reader.peek(300) == CONTENT[:300]
    assert reader.peek(100) == CONTENT[:100]
    assert reader.read(200) == CONTENT[:200]
    assert reader.peek(5000) == CONTENT[200:]
    assert reader.read(5000) == CONTENT[200:]
    assert reader.sha384 == sha384(CONTENT)


@given(st.binary(max_size=60), st.lists(st.tuples(st.booleans(), st.integers(0, 25))), st.integers(1, 9))
def test_any_mix_of_peeks_and_reads_gives_the_content_in_order(
    content: bytes, steps: list[tuple[bool, int]], at_most: int
) -> None:
    reader, model = HashingReader(Stream(content, at_most=at_most)), io.BytesIO(content)
    for peeks, size in steps:
        if peeks:
            assert reader.peek(size) == content[model.tell() : model.tell() + size]
        else:
            assert reader.read(size) == model.read(size)
    assert reader.read(100) == model.read()
    assert (reader.length, reader.sha384) == (len(content), sha384(content))


def test_every_block_is_told_of_before_it_is_handed_on() -> None:
    lengths: list[int] = []
    reader = HashingReader(CONTENT, on_read=lambda: lengths.append(reader.length))
    assert reader.read(600) == CONTENT[:600]
    assert lengths == [600]
    reader.drain(600)
    assert lengths[:2] == [600, 1000]


def test_text_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="'rb'"):
        HashingReader(io.StringIO("text")).read(10)  # type: ignore[arg-type]


def test_a_hash_is_cleaned_to_lower_case() -> None:
    assert clean_hash("AB" * 48) == "ab" * 48
    assert clean_hash("AB" * 32, "sha256") == "ab" * 32


@pytest.mark.parametrize("value", ["", "ab" * 47, "ab" * 49, "zz" * 48, "ab" * 47 + "a\n", "٣" * 96, "0x" + "ab" * 47])
def test_what_is_no_sha384_is_refused(value: str) -> None:
    with pytest.raises(InvalidHash, match="96 hexadecimal digits"):
        clean_hash(value)


@pytest.mark.parametrize("content", [None, 5, "text", ["bytes"]])
def test_what_is_neither_bytes_nor_a_stream_is_refused(content: Any) -> None:
    with pytest.raises(TypeError, match="bytes or something with read"):
        as_readable(content)
