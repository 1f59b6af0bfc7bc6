"""Ranges, deletes and saves over any storage, whether it knows them natively or not."""

from __future__ import annotations

import io
import os
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
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


class Asked:
    """What a storage's S3 client asked for: "GetObject <Range>"."""

    def __init__(self, storage: Any) -> None:
        self.requests: list[str] = []
        events = storage.connection.meta.client.meta.events
        events.register("before-send.s3", self.note)

    def note(self, request: Any, event_name: str, **_: Any) -> None:
        self.requests.append(f"{event_name.rpartition('.')[2]} {request.headers.get('Range', b'').decode()}".strip())


class Breaking:
    """A way to the S3 server at `url` that cuts each answer with a body after `every` bytes of it."""

    def __init__(self, url: str, *, every: int) -> None:
        breaking = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                breaking.forward(self)

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._upstream = urlsplit(url)
        self._every = every
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def forward(self, request: BaseHTTPRequestHandler) -> None:
        connection = HTTPConnection(self._upstream.hostname or "", self._upstream.port)
        connection.request("GET", request.path, headers=dict(request.headers))
        answer = connection.getresponse()
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(answer.read()[: self._every])
        request.close_connection = True

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


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
    asked = Asked(storage)
    hooks.read_range(storage, name, 100, 50)
    assert asked.requests == ["GetObject bytes=100-149"]


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


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_an_s3_object_is_read_through_by_one_request(stored: Stored) -> None:
    data = os.urandom(LENGTH)
    name = stored.storage.save("content", ContentFile(data))
    asked = Asked(stored.storage)
    with hooks.open_for_reading(stored.storage, name) as file:
        assert b"".join(file.chunks(7000)) == data
        assert (file.size, file.tell()) == (LENGTH, LENGTH)
    assert asked.requests == ["GetObject"]


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_seeking_in_an_s3_object_reads_as_from_a_local_file(stored: Stored) -> None:
    data = os.urandom(LENGTH)
    name = stored.storage.save("content", ContentFile(data))
    local = io.BytesIO(data)
    asked = Asked(stored.storage)
    with hooks.open_for_reading(stored.storage, name) as file:
        for offset, whence, size in [(9, 0, 10), (-3, 1, 7), (-5, 2, 99), (0, 2, 5), (5, 2, 5), (0, 0, -1)]:
            assert file.seek(offset, whence) == local.seek(offset, whence)
            assert file.read(size) == local.read(size)
            assert file.tell() == local.tell()
        with pytest.raises(ValueError, match="before the start"):
            file.seek(-1)
    spans = [f"GetObject bytes={start}-" for start in (9, 16, LENGTH - 5, 0)]
    assert asked.requests == ["GetObject", *spans]


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_a_closed_s3_file_is_opened_again_from_the_storage(stored: Stored) -> None:
    name = stored.storage.save("pyproject.toml", ContentFile(b"not the local file"))
    file = hooks.open_for_reading(stored.storage, name)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with file.open() as again:
        assert again.read() == b"not the local file"


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_an_s3_object_replaced_while_it_is_read_is_never_mixed(stored: Stored, settings: Any) -> None:
    options = {**stored.options["OPTIONS"], "file_overwrite": True}
    settings.STORAGES = {**settings.STORAGES, "replacing": {**stored.options, "OPTIONS": options}}
    storage = storages["replacing"]
    name = storage.save("content", ContentFile(b"a" * LENGTH))
    with hooks.open_for_reading(storage, name) as file:
        file.read(10)
        storage.save("content", ContentFile(b"b" * LENGTH))
        file.seek(20)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            file.read(10)


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_an_s3_download_goes_on_after_its_connection_broke(stored: Stored, s3_url: str, settings: Any) -> None:
    data = os.urandom(3 * 2**20)
    name = stored.storage.save("content", ContentFile(data))
    with Breaking(s3_url, every=2**20) as breaking:
        options = {**stored.options["OPTIONS"], "endpoint_url": breaking.url}
        settings.STORAGES = {**settings.STORAGES, "breaking": {**stored.options, "OPTIONS": options}}
        asked = Asked(storages["breaking"])
        with hooks.open_for_reading(storages["breaking"], name) as file:
            assert b"".join(iter(lambda: file.read(50_000), b"")) == data
    assert len(asked.requests) >= 3


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_an_s3_download_that_never_goes_on_is_an_error(stored: Stored, s3_url: str, settings: Any) -> None:
    name = stored.storage.save("content", ContentFile(bytes(LENGTH)))
    with Breaking(s3_url, every=0) as breaking:
        options = {**stored.options["OPTIONS"], "endpoint_url": breaking.url}
        settings.STORAGES = {**settings.STORAGES, "breaking": {**stored.options, "OPTIONS": options}}
        file = hooks.open_for_reading(storages["breaking"], name)
        with pytest.raises(ConnectionError, match=r"broke off at byte 0 of 300000 5 times"):
            file.read()


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_s3_objects_are_deleted_by_the_thousand(stored: Stored) -> None:
    asked = Asked(stored.storage)
    hooks.delete_many(stored.storage, (f"{i}" for i in range(1001)))
    assert asked.requests == ["DeleteObjects"] * 2
