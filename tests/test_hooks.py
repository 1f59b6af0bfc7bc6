"""Ranges, deletes and saves over any storage, whether it knows them natively or not."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, storages

from django_blobstore.storages import hooks
from tests.stored import Stored

on_every_storage = pytest.mark.parametrize("storage_kind", ["gridfs", "files", "memory", "s3"])
LENGTH = 300_000


class Nibbling(File):  # type: ignore[type-arg]
    """A file whose `read` gives fewer bytes than there are."""

    def read(self, n: int = -1) -> bytes:
        data: bytes = self.file.read(min(n, 1000))
        return data


class NibblingStorage(FileSystemStorage):
    """A storage of somebody else, whose files do what `io.RawIOBase` allows."""

    def _open(self, name: str, mode: str = "rb") -> Nibbling:
        return Nibbling(super()._open(name, mode))  # type: ignore[misc]


@on_every_storage
@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (0, 1), (7, 100_000), (LENGTH - 1, 1), (LENGTH - 1, 9), (LENGTH, 1), (LENGTH + 9, 9), (0, 10**9)],
)
def test_a_range_is_the_slice_of_the_content(stored: Stored, start: int, length: int) -> None:
    data = os.urandom(LENGTH)
    name = stored.storage.save("folder/content", ContentFile(data))
    assert hooks.read_range(stored.storage, name, start, length) == data[start : start + length]


@on_every_storage
def test_ranges_come_in_the_order_asked_for(stored: Stored) -> None:
    data = os.urandom(LENGTH)
    name = stored.storage.save("content", ContentFile(data))
    ranges = [(i * 9973 % LENGTH, 4096) for i in range(40)] + [(0, 10), (0, 10), (LENGTH - 5, 9)]
    expected = [data[start : start + length] for start, length in ranges]
    assert list(hooks.read_ranges(stored.storage, name, ranges)) == expected


@on_every_storage
@pytest.mark.parametrize("length", [0, 1])
def test_a_range_of_a_missing_file_is_not_found(stored: Stored, length: int) -> None:
    with pytest.raises(FileNotFoundError):
        hooks.read_range(stored.storage, "missing", 0, length)


@on_every_storage
@pytest.mark.parametrize("wanted", [(-1, 5), (0, -1)])
def test_a_negative_range_is_refused(stored: Stored, wanted: tuple[int, int]) -> None:
    name = stored.storage.save("content", ContentFile(b"abc"))
    with pytest.raises(ValueError, match="0 or more"):
        hooks.read_range(stored.storage, name, *wanted)


@on_every_storage
def test_a_range_of_an_empty_file_is_empty(stored: Stored) -> None:
    name = stored.storage.save("content", ContentFile(b""))
    assert hooks.read_range(stored.storage, name, 0, 10) == b""


@on_every_storage
def test_many_names_are_deleted_whether_they_exist_or_not(stored: Stored) -> None:
    names = [hooks.save(stored.storage, f"ab/{i}", ContentFile(b"abc")) for i in range(5)]
    hooks.delete_many(stored.storage, ["missing", *names[1:]])
    assert stored.names() == {"ab/0"}


@on_every_storage
@pytest.mark.parametrize("length", [None, LENGTH])
def test_what_was_saved_is_opened(stored: Stored, length: int | None) -> None:
    data = os.urandom(LENGTH)
    name = hooks.save(stored.storage, "ab/content", File(io.BytesIO(data)))
    assert name == "ab/content"
    with hooks.open_for_reading(stored.storage, name, length) as file:
        assert file.read() == data


@on_every_storage
@pytest.mark.parametrize("length", [None, 10])
def test_opening_a_missing_file_is_not_found(stored: Stored, length: int | None) -> None:
    with pytest.raises(FileNotFoundError):
        hooks.open_for_reading(stored.storage, "missing", length)


def test_a_short_read_is_not_the_end_of_a_range(tmp_path: Any) -> None:
    storage = NibblingStorage(location=tmp_path)
    data = os.urandom(LENGTH)
    storage.save("content", ContentFile(data))
    assert hooks.read_range(storage, "content", 10, 50_000) == data[10:50_010]


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_a_range_of_an_s3_object_never_downloads_the_object(stored: Stored) -> None:
    storage: Any = stored.storage
    name = storage.save("content", ContentFile(bytes(LENGTH)))
    asked: list[str | None] = []
    events = storage.connection.meta.client.meta.events
    events.register("before-send.s3.GetObject", lambda request, **_: asked.append(request.headers.get("Range")))
    hooks.read_range(storage, name, 100, 50)
    assert asked == [b"bytes=100-149"]


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_an_s3_storage_with_a_location_finds_its_objects(stored: Stored, settings: Any) -> None:
    options = {**stored.options["OPTIONS"], "location": "tenants/one"}
    settings.STORAGES = {**settings.STORAGES, "located": {**stored.options, "OPTIONS": options}}
    located = storages["located"]
    located.save("content", ContentFile(b"abcdef"))
    assert stored.names() == {"tenants/one/content"}
    assert hooks.read_range(located, "content", 2, 3) == b"cde"


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_ranges_of_a_compressing_s3_storage_are_those_of_the_content(stored: Stored, settings: Any) -> None:
    options = {**stored.options["OPTIONS"], "gzip": True}
    settings.STORAGES = {**settings.STORAGES, "gzip": {**stored.options, "OPTIONS": options}}
    text = b"some text " * 1000
    name = storages["gzip"].save("content.txt", ContentFile(text))
    assert hooks.read_range(storages["gzip"], name, 5000, 20) == text[5000:5020]
