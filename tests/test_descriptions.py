"""What may be said of an object: refused before a byte or row is written, or kept as it is by every database."""

from __future__ import annotations

import math
from typing import Any

import pytest

from django_blobstore import resumable
from django_blobstore.descriptions import MAX_TYPE_LENGTH, check_content_type, clean_metadata
from django_blobstore.errors import InvalidContentType, InvalidMetadata, InvalidName, InvalidNamespace
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PutRequest, ResumableUpload
from tests.invariants import assert_empty, assert_sound
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

BUCKET = Namespace("bucket")
# Lone: no text that UTF-8 can write has one.
SURROGATE = chr(0xD800)

CIRCLE: dict[str, Any] = {}
CIRCLE["itself"] = CIRCLE

REFUSED_TYPES = {"t" * (MAX_TYPE_LENGTH + 1): "256 characters", "text/plain\0": "control", SURROGATE: "surrogate"}
REFUSED_METADATA: dict[str, tuple[dict[Any, Any], str]] = {
    "NUL": ({"a": "b\0"}, "NUL"),
    "NUL in a name": ({"\0": "b"}, "NUL"),
    "NUL far down": ({"a": [1, {"b": ("c", "\0")}]}, "NUL"),
    "surrogate": ({"a": SURROGATE}, "surrogate"),
    "not a number": ({"a": math.nan}, "JSON"),
    "infinity": ({"a": [math.inf]}, "JSON"),
    "an object": ({"a": object()}, "JSON"),
    "bytes": ({"a": b"b"}, "JSON"),
    "a circle": (CIRCLE, "JSON"),
}
BAD: list[tuple[dict[str, Any], type[InvalidName]]] = [
    *[({"content_type": content_type}, InvalidContentType) for content_type in REFUSED_TYPES],
    ({"metadata": {"a": "\0"}}, InvalidMetadata),
    ({"metadata": {"a": math.nan}}, InvalidMetadata),
]
# As far as one may go.
KEPT: dict[str, Any] = {
    "content_type": "ä" * MAX_TYPE_LENGTH,
    "metadata": {"": None, "a\n\x01": [1, 2.5, True, {"b": "\\u0000 🦆 \ufffd"}]},
}


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


@pytest.mark.parametrize("content_type", list(REFUSED_TYPES))
def test_a_content_type_that_cannot_be_kept_is_refused_with_the_reason(content_type: str) -> None:
    with pytest.raises(InvalidContentType, match=REFUSED_TYPES[content_type]):
        check_content_type(content_type)


@pytest.mark.parametrize("kind", list(REFUSED_METADATA))
def test_metadata_that_cannot_be_kept_is_refused_with_the_reason(kind: str) -> None:
    metadata, reason = REFUSED_METADATA[kind]
    with pytest.raises(InvalidMetadata, match=reason):
        clean_metadata(metadata)


def test_what_can_be_kept_stays_as_it_is() -> None:
    assert check_content_type(KEPT["content_type"]) == KEPT["content_type"]
    assert clean_metadata(KEPT["metadata"]) == KEPT["metadata"]
    assert clean_metadata(None) == {}


def test_a_put_with_what_cannot_be_kept_stores_nothing(store: ManagedStorage, stored: Stored) -> None:
    for said, error in BAD:
        for content in (b"small", content_of(MIB + 1)):
            with pytest.raises(error):
                store.put(BUCKET, "a", content, **said)
    assert_empty(stored)


def test_a_description_that_cannot_be_kept_changes_nothing(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", b"content", content_type="text/plain", metadata={"a": "b"})
    for said, error in BAD:
        with pytest.raises(error):
            store.describe(BUCKET, "a", **said)
    managed = ManagedResource.objects.get()
    assert (managed.content_type, managed.metadata) == ("text/plain", {"a": "b"})
    assert_sound(stored)


def test_neither_put_request_nor_upload_begins_with_what_cannot_be_kept(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", b"content")
    for said, error in BAD:
        with pytest.raises(error):
            store.put_request(BUCKET, "b", sha384(b"content"), **said)
        with pytest.raises(error):
            resumable.begin("me", namespace=BUCKET, path="b", **said)
    for requester in ("r" * 151, "r\0"):
        with pytest.raises(InvalidNamespace, match="requester"):
            store.put_request(BUCKET, "b", sha384(b"content"), requester=requester)
        with pytest.raises(InvalidNamespace, match="requester"):
            resumable.begin(requester, namespace=BUCKET, path="b")
    assert not PutRequest.objects.exists()
    assert not ResumableUpload.objects.exists()


def test_every_database_keeps_what_may_be_said(store: ManagedStorage, stored: Stored) -> None:
    store.put(BUCKET, "a", b"content", **KEPT)
    managed = store.stat(BUCKET, "a")
    assert (managed.content_type, managed.metadata) == (KEPT["content_type"], KEPT["metadata"])
    assert_sound(stored)
