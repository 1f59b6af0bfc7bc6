"""Bytes under paths, over each kind of storage."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from pytest_django import Settings

from django_blobstore.digests import HashingReader
from django_blobstore.errors import LengthMismatch
from django_blobstore.resource_storage import (
    ArrivingFile,
    ResourceStorage,
    StorageNotConfigured,
    StorageRenamed,
    fresh_path,
)
from tests.stored import ALIAS, Stored, StoredInFiles
from tests.streams import Stream, content_of, sha384

CHUNK = 512 * 1024
LENGTHS = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
CONTENT = content_of(600_000)

every_kind = pytest.mark.parametrize("storage_kind", ["gridfs", "files", "memory", "s3"])


class Renaming(FileSystemStorage):
    """A storage that keeps files under other names than it is given."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return super().get_available_name(name + ".renamed", max_length)


@every_kind
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_put_is_got_back(stored: Stored, length: int) -> None:
    storage, content = ResourceStorage(), content_of(length)
    assert storage.put("aa/one", io.BytesIO(content)) == sha384(content)
    with storage.get("aa/one") as file:
        assert file.read() == content
    assert stored.names() == {"aa/one"}


@every_kind
def test_what_was_got_can_be_sought(stored: Stored) -> None:
    ResourceStorage().put("aa/one", CONTENT)
    with ResourceStorage().get("aa/one") as file:
        for start in (CHUNK - 3, 0, 599_990):
            file.seek(start)
            assert file.read(20) == CONTENT[start : start + 20]


@every_kind
def test_a_stream_of_short_reads_is_stored_whole(stored: Stored) -> None:
    assert ResourceStorage().put("aa/one", Stream(CONTENT, at_most=10_000)) == sha384(CONTENT)
    with ResourceStorage().get("aa/one") as file:
        assert file.read() == CONTENT


@every_kind
def test_a_length_bounds_what_is_read(stored: Stored) -> None:
    stream = Stream(CONTENT)
    assert ResourceStorage().put("aa/one", stream, 300_000) == sha384(CONTENT[:300_000])
    assert stream.position == 300_000


@every_kind
def test_fewer_bytes_than_announced_leave_nothing(stored: Stored) -> None:
    with pytest.raises(LengthMismatch) as raised:
        ResourceStorage().put("aa/one", CONTENT, 600_001)
    assert (raised.value.expected, raised.value.actual) == (600_001, 600_000)
    assert stored.names() == set()


@every_kind
@pytest.mark.parametrize("at", [0, 100_000, 600_000])
def test_a_stream_that_breaks_leaves_nothing(stored: Stored, at: int) -> None:
    def breaks() -> None:
        raise ConnectionResetError("The sender is gone.")

    with pytest.raises(ConnectionResetError):
        ResourceStorage().put("aa/one", Stream(CONTENT, {at: breaks}))
    assert stored.names() == set()


@every_kind
@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 0), (0, 1), (0, 600_000), (CHUNK - 1, 2), (CHUNK, CHUNK), (599_999, 1), (599_999, 10), (600_000, 5)],
)
def test_a_range_is_those_bytes_clipped_at_the_end(stored: Stored, start: int, length: int) -> None:
    ResourceStorage().put("aa/one", CONTENT)
    assert ResourceStorage().read_range("aa/one", start, length) == CONTENT[start : start + length]


@every_kind
def test_ranges_come_in_the_order_asked_for(stored: Stored) -> None:
    ResourceStorage().put("aa/one", CONTENT)
    ranges = [(500_000, 4096), (0, 10), (CHUNK - 5, 10), (0, 10), (599_990, 100)]
    read = list(ResourceStorage().read_ranges("aa/one", ranges))
    assert read == [CONTENT[start : start + length] for start, length in ranges]


@every_kind
@pytest.mark.parametrize("wrong", [(-1, 1), (0, -1)])
def test_a_range_before_the_start_is_refused(stored: Stored, wrong: tuple[int, int]) -> None:
    ResourceStorage().put("aa/one", b"x")
    with pytest.raises(ValueError, match=re.escape(str(wrong))):
        ResourceStorage().read_range("aa/one", *wrong)


@every_kind
def test_a_missing_file_is_a_file_not_found_error(stored: Stored) -> None:
    with pytest.raises(FileNotFoundError):
        ResourceStorage().get("aa/none").read(1)
    with pytest.raises(FileNotFoundError):
        ResourceStorage().read_range("aa/none", 0, 1)


@every_kind
def test_removing_takes_the_named_files_only_and_may_be_repeated(stored: Stored) -> None:
    storage = ResourceStorage()
    for name in ("aa/one", "aa/two", "bb/three"):
        storage.put(name, b"x")
    storage.remove("aa/one")
    storage.remove("aa/one")
    assert stored.names() == {"aa/two", "bb/three"}
    storage.remove_many(["aa/one", "aa/two", "cc/none"])
    assert stored.names() == {"bb/three"}


def test_a_storage_that_renames_is_refused_and_keeps_nothing(settings: Settings, tmp_path: Any) -> None:
    options = {"location": str(tmp_path)}
    settings.STORAGES = settings.STORAGES | {ALIAS: {"BACKEND": f"{__name__}.Renaming", "OPTIONS": options}}
    with pytest.raises(StorageRenamed) as raised:
        ResourceStorage().put("one", b"x")
    assert (raised.value.path, raised.value.actual) == ("one", "one.renamed")
    assert not list(tmp_path.iterdir())


def test_the_alias_is_that_of_the_settings_or_the_one_given(settings: Settings) -> None:
    assert ResourceStorage().alias == "blobstore"
    settings.BLOBSTORE = {"STORAGE": "default"}
    assert ResourceStorage().alias == "default"
    assert ResourceStorage("blobstore").alias == "blobstore"


def test_an_unknown_alias_is_refused_when_it_is_used() -> None:
    storage = ResourceStorage("nowhere")
    with pytest.raises(StorageNotConfigured, match="'nowhere'"):
        storage.get("aa/one")


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_directory_that_is_not_there_is_told_apart_from_a_missing_file(stored: StoredInFiles) -> None:
    stored.directory.mkdir()
    ResourceStorage().check_present()
    stored.directory.rmdir()
    with pytest.raises(ConnectionError, match="mount or restore it"):
        ResourceStorage().check_present()


def test_fresh_paths_differ_and_spread_over_folders() -> None:
    paths = {fresh_path() for _ in range(1000)}
    assert len(paths) == 1000
    assert all(re.fullmatch(r"([0-9a-f]{2})/\1[0-9a-f]{30}", path) for path in paths)


def test_an_arriving_file_is_read_once_and_leaves_the_stream_open() -> None:
    stream = io.BytesIO(CONTENT)
    with ArrivingFile(HashingReader(stream), "one") as file:
        assert not file.seekable()
        with pytest.raises(io.UnsupportedOperation):
            file.seek(0)
        assert file.multiple_chunks()
        assert file.read(10) == CONTENT[:10]
        assert b"".join(file.chunks(1000)) == CONTENT[10:]
        assert file.read() == b""
    assert not stream.closed
