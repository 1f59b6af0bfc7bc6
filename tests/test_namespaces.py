"""Namespaces, and which paths can name something in them."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.errors import InvalidNamespace, InvalidPath
from django_blobstore.namespaces import MAX_PATH_BYTES, MAX_USER_LENGTH, Namespace, check_path, clean_path

BUCKET = uuid.UUID("0b0e2f5c-6a3b-4f43-9a3e-0f4d4c1a2b3c")

SURROGATE = chr(0xD800)

CLEAN = [
    "a",
    "a/b/c",
    "...",
    ".hidden/..double",
    "a b/c:d\\e?f#g%2e%2e",
    "ä/日本語/🦆",
    "e\u0301",  # not composed: paths are opaque
    "x" * MAX_PATH_BYTES,
    "é" * (MAX_PATH_BYTES // 2),
    "\U0010ffff",
]

UNCLEAN = {
    "": "empty",
    ".": "segment",
    "..": "segment",
    "../other/a": "segment",
    "a/../../b": "segment",
    "a/./b": "segment",
    "a//b": "segment",
    "a/": "segment",
    "a/..": "segment",
    "x" * (MAX_PATH_BYTES + 1): "1025 bytes",
    "x" + "é" * (MAX_PATH_BYTES // 2): "1025 bytes",
    "a\0b": "control",
    "a\nb": "control",
    "a\x7f": "control",
    "a\x85": "control",
    "a\ufffd": "U+FFFD",
    "a" + SURROGATE: "UTF-8",
}


@pytest.mark.parametrize("path", CLEAN)
def test_a_clean_path_stays_as_it_is(path: str) -> None:
    assert check_path(path) == path
    assert clean_path(path) == path


@pytest.mark.parametrize("path", list(UNCLEAN))
def test_an_unclean_path_is_refused_with_the_reason(path: str) -> None:
    for check in (check_path, clean_path):
        with pytest.raises(InvalidPath, match=UNCLEAN[path].replace("+", r"\+")) as raised:
            check(path)
        assert raised.value.value == path


def test_one_leading_slash_is_taken_off_in_python_only() -> None:
    assert clean_path("/a/b") == "a/b"
    with pytest.raises(InvalidPath, match="starts with a slash"):
        check_path("/a/b")


@pytest.mark.parametrize("path", ["//a", "/", "/../a"])
def test_a_leading_slash_hides_nothing(path: str) -> None:
    with pytest.raises(InvalidPath):
        clean_path(path)


@given(st.text())
def test_whatever_passes_stays_below_its_namespace_and_passes_again(path: str) -> None:
    try:
        cleaned = clean_path(path)
    except InvalidPath:
        return
    assert check_path(cleaned) == cleaned
    assert not {"", ".", ".."} & set(cleaned.split("/"))
    assert 1 <= len(cleaned.encode()) <= MAX_PATH_BYTES
    assert cleaned.isprintable() or not set(cleaned) & {chr(code) for code in [*range(32), *range(127, 160)]}


def test_neither_bucket_nor_user_is_the_global_namespace() -> None:
    assert Namespace().bucket_id is None
    assert str(Namespace()) == "global"
    assert Namespace().bucket_name == ""


@pytest.mark.parametrize("spelled", [BUCKET, str(BUCKET), str(BUCKET).upper(), BUCKET.hex, f"{{{BUCKET}}}"])
def test_a_uuid_is_the_bucket_however_it_is_spelled(spelled: str | uuid.UUID) -> None:
    assert Namespace(bucket=spelled).bucket_id == BUCKET
    assert Namespace(bucket=spelled).bucket_name == ""


def test_a_name_stands_for_the_same_bucket_for_ever() -> None:
    assert Namespace(bucket="photos").bucket_id == uuid.UUID("f74a0c2e-9537-5ba7-8f7b-2a43e6c632cc")
    assert Namespace(bucket="photos").bucket_id != Namespace(bucket="Photos").bucket_id
    assert Namespace(bucket="photos").bucket_name == "photos"


def test_a_bucket_method_refuses_an_empty_bucket_which_would_mean_everybody() -> None:
    with pytest.raises(InvalidNamespace):
        Namespace.of_bucket("")


@pytest.mark.parametrize("kind", ["bucket", "user"])
@pytest.mark.parametrize("key", ["a\0", "a\n", "\ufffd", SURROGATE, "x" * (MAX_USER_LENGTH + 1)])
def test_a_key_that_cannot_be_stored_is_refused(kind: str, key: str) -> None:
    with pytest.raises(InvalidNamespace, match=kind):
        Namespace(**{kind: key})


@pytest.mark.parametrize("kind", ["bucket", "user"])
def test_a_key_of_the_greatest_length_is_taken(kind: str) -> None:
    assert getattr(Namespace(**{kind: "é" * MAX_USER_LENGTH}), kind) == "é" * MAX_USER_LENGTH


def test_a_namespace_says_what_it_is() -> None:
    assert str(Namespace(bucket="photos", user="7")) == "bucket photos, user 7"
