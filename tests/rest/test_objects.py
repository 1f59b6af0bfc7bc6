"""Objects over HTTP: raw bytes in and out, whole and in part, on a WSGI and an ASGI server."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import psutil
import pytest
from pytest_django import Settings

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.idleness import wait_until_idle
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.rest import api
from tests.rest.raw_http import head, send
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, Stream, content_of, sha384

CHUNK = 512 * 1024
LENGTHS = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7]


def test_contents_of_every_critical_length_come_back_as_they_were(
    http: httpx.Client, objects: str, stored: Stored
) -> None:
    for length in LENGTHS:
        content = content_of(length)
        put = http.put(f"{objects}{length}", content=content)
        assert put.status_code == 201
        assert (put.json()["length"], put.json()["sha384"]) == (length, sha384(content))
        got = http.get(f"{objects}{length}")
        assert got.content == content
        assert got.headers["content-length"] == str(length)
    assert_sound(stored)
    for length in LENGTHS:
        assert http.delete(f"{objects}{length}").status_code == 204
    assert_settled(stored)
    assert not stored.names()


def test_contents_sent_in_chunks_are_stored_whole(http: httpx.Client, objects: str, stored: Stored) -> None:
    for length in LENGTHS:
        content = content_of(length)
        blocks = [content[at : at + 100_000] for at in range(0, length, 100_000)]
        put = http.put(f"{objects}{length}", content=iter(blocks))
        assert (put.status_code, put.json()["sha384"]) == (201, sha384(content))
    assert_sound(stored)


def test_a_put_tells_a_new_object_from_a_replaced_one(http: httpx.Client, objects: str, stored: Stored) -> None:
    new = http.put(f"{objects}a/b.txt", content=b"one")
    replaced = http.put(f"{objects}a/b.txt", content=b"two")
    assert (new.status_code, replaced.status_code) == (201, 200)
    assert new.headers["etag"] == f'"{sha384(b"one")}"'
    assert replaced.headers["etag"] == f'"{sha384(b"two")}"'
    url = new.headers["location"]
    assert new.json() == {
        "path": "a/b.txt",
        "length": 3,
        "sha384": sha384(b"one"),
        "integrity": "sha384-" + base64.b64encode(hashlib.sha384(b"one").digest()).decode(),
        "content_type": "text/plain",
        "metadata": {},
        "reference_count": 1,
        "created_at": new.json()["created_at"],
        "modified_at": new.json()["modified_at"],
        "url": url,
    }
    assert http.get(url).content == b"two"
    assert replaced.json()["created_at"] == new.json()["created_at"] < replaced.json()["modified_at"]


def test_every_hash_that_is_right_lets_the_content_pass(http: httpx.Client, objects: str) -> None:
    content = content_of(2 * MIB)
    by_sha256 = f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
    by_sha512 = f"sha-512=:{base64.b64encode(hashlib.sha512(content).digest()).decode()}:"
    for number, headers in enumerate(
        [
            {"X-Content-SHA384": sha384(content).upper()},
            {"Repr-Digest": by_sha256},
            {"Content-Digest": by_sha512},
            {"Repr-Digest": f"md5=:AAAA:, {by_sha256} ,{by_sha512};a=1", "Content-Digest": by_sha256},
            {"Repr-Digest": "unixsum=:AAAA:", "Content-Encoding": "identity"},
        ]
    ):
        assert http.put(f"{objects}{number}", content=content, headers=headers).status_code == 201


def test_the_content_type_is_kept_or_else_guessed(http: httpx.Client, objects: str) -> None:
    def kept(path: str, given: str | None) -> str:
        headers = {} if given is None else {"Content-Type": given}
        return str(http.put(objects + path, content=b"x", headers=headers).json()["content_type"])

    assert kept("a.png", "application/x-mine; a=b") == "application/x-mine; a=b"
    assert kept("a.png", None) == "image/png"
    assert kept("a.png", "nonsense") == "image/png"
    assert kept("a.png", "a/" + "b" * 300) == "image/png"
    assert kept("a.tar.gz", None) == kept("a", None) == ""
    assert http.get(f"{objects}a").headers["content-type"] == "application/octet-stream"


def test_any_clean_path_names_an_object_of_its_own(http: httpx.Client, objects: str) -> None:
    paths = ["a", "A", "a b", "a%2Fb", "%FF", "a?b", "a#b", "a;b=c&d", "ü/\U0001f600", "~", "é", "e\u0301", "x" * 1024]
    for path in paths:
        put = http.put(objects + quote(path), content=path.encode())
        assert (put.status_code, put.json()["path"]) == (201, path)
    for path in paths:
        found = ManagedResource.objects.get(path=path)
        assert http.get(objects + quote(path)).content == path.encode()
        assert http.get(http.get(objects, params={"prefix": path}).json()["objects"][0]["url"]).content == path.encode()
        assert found.resource.length == len(path.encode())


def test_my_objects_and_the_global_ones_are_kept_apart(http: httpx.Client, objects: str) -> None:
    for place in (objects, "me/objects/", "global/objects/"):
        assert http.put(f"{place}x", content=place.encode()).status_code == 201
    for place in (objects, "me/objects/", "global/objects/"):
        assert http.get(f"{place}x").content == place.encode()
        assert http.get(place).json()["objects"][0]["url"].endswith(f"/{place}x")
    assert http.delete("me/objects/x").status_code == 204
    assert [http.get(f"{place}x").status_code for place in (objects, "me/objects/", "global/objects/")] == [
        200,
        404,
        200,
    ]


def test_what_is_sent_with_an_object_says_what_it_is_and_keeps_browsers_from_running_it(
    http: httpx.Client, objects: str
) -> None:
    content = b"<script>alert(1)</script>"
    put = http.put(f"{objects}ü.html", content=content, headers={"Content-Type": "text/html"})
    got = http.get(f"{objects}ü.html", headers={"Accept": "text/html"})
    assert got.status_code == 200
    assert got.content == content
    kept = {
        "content-type": "text/html",
        "content-disposition": "attachment; filename=\"_.html\"; filename*=UTF-8''%C3%BC.html",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cache-control": "private, no-cache, no-transform",
        "etag": put.headers["etag"],
        "accept-ranges": "bytes",
        "content-length": str(len(content)),
        "x-content-sha384": sha384(content),
        "repr-digest": f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:",
    }
    assert {name: got.headers.get(name) for name in kept} == kept
    http.put(f"{objects}a.png", content=b"png")
    assert http.get(f"{objects}a.png").headers["content-disposition"].startswith("inline")


def test_a_head_says_the_same_as_a_get_without_the_bytes(http: httpx.Client, objects: str, stored: Stored) -> None:
    http.put(f"{objects}x", content=b"content")
    varying = {"date", "connection", "server", "content-digest"}  # the last is of the bytes sent
    got, told = http.get(f"{objects}x"), http.head(f"{objects}x", headers={"Range": "bytes=1-2"})
    assert told.status_code == 200
    assert told.content == b""
    assert {name for name in got.headers if got.headers[name] != told.headers.get(name)} <= varying
    assert http.head(f"{objects}y").status_code == 404


def test_a_client_that_has_the_content_is_told_so(http: httpx.Client, objects: str) -> None:
    put = http.put(f"{objects}x", content=b"content")
    tag, modified = put.headers["etag"], http.head(f"{objects}x").headers["last-modified"]

    def status(**headers: str) -> int:
        answer = http.get(f"{objects}x", headers={name.replace("_", "-"): value for name, value in headers.items()})
        assert answer.content == (b"content" if answer.status_code == 200 else answer.content)
        assert answer.status_code != 304 or (answer.content, answer.headers["etag"]) == (b"", tag)
        return answer.status_code

    assert status(If_None_Match=tag) == status(If_None_Match=f"W/{tag}") == status(If_None_Match=f'"x", {tag}') == 304
    assert status(If_None_Match="*") == status(If_Modified_Since=modified) == 304
    assert status(If_None_Match='"x"') == status(If_None_Match='"x"', If_Modified_Since=modified) == 200
    assert status(If_Match=tag) == status(If_Match="*") == 200
    assert status(If_Match='"x"') == status(If_Unmodified_Since="Mon, 01 Jan 1990 00:00:00 GMT") == 412


def test_one_range_is_sent_alone(http: httpx.Client, objects: str) -> None:
    content = content_of(3 * MIB)
    http.put(f"{objects}x", content=content)
    total = len(content)
    for wanted, start, end in [
        ("bytes=0-0", 0, 1),
        (f"bytes=0-{total - 1}", 0, total),
        (f"bytes={CHUNK - 1}-{CHUNK}", CHUNK - 1, CHUNK + 1),
        (f"bytes={MIB - 1}-{2 * MIB}", MIB - 1, 2 * MIB + 1),
        ("bytes=5-", 5, total),
        ("bytes=-5", total - 5, total),
        (f"bytes=-{total * 2}", 0, total),
        (f"bytes={total - 1}-{total * 2}", total - 1, total),
        ("BYTES=1-2", 1, 3),
    ]:
        got = http.get(f"{objects}x", headers={"Range": wanted})
        assert (got.status_code, got.headers["content-range"]) == (206, f"bytes {start}-{end - 1}/{total}")
        assert got.content == content[start:end]


def test_a_range_without_a_byte_is_not_satisfiable(http: httpx.Client, objects: str) -> None:
    http.put(f"{objects}x", content=b"content")
    http.put(f"{objects}empty", content=b"")
    for path, wanted, total in [
        ("x", "bytes=7-", 7),
        ("x", "bytes=-0", 7),
        ("empty", "bytes=0-0", 0),
        ("empty", "bytes=-0", 0),
    ]:
        got = http.get(objects + path, headers={"Range": wanted})
        assert (got.status_code, got.json()["code"]) == (416, "range-not-satisfiable")
        assert got.headers["content-range"] == f"bytes */{total}"


def test_the_last_bytes_of_an_empty_object_are_all_of_it(http: httpx.Client, objects: str) -> None:
    http.put(f"{objects}empty", content=b"")
    got = http.get(f"{objects}empty", headers={"Range": "bytes=-5"})
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")
    assert "content-range" not in got.headers


def test_a_range_that_means_nothing_or_too_much_is_ignored(http: httpx.Client, objects: str) -> None:
    http.put(f"{objects}x", content=b"content")
    for wanted in [
        "bytes=2-1",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "bytes=0-1,b",
        "bytes=,",
        "bytes 0",
        "bytes=0x1-2",
    ]:
        got = http.get(f"{objects}x", headers={"Range": wanted})
        assert (wanted, got.status_code, got.content) == (wanted, 200, b"content")


def test_a_range_of_other_content_than_the_client_has_is_not_sent(http: httpx.Client, objects: str) -> None:
    tag = http.put(f"{objects}x", content=b"content").headers["etag"]
    modified = http.head(f"{objects}x").headers["last-modified"]
    for condition, status in [
        (tag, 206),
        (modified, 206),
        ('"x"', 200),
        (f"W/{tag}", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ]:
        got = http.get(f"{objects}x", headers={"Range": "bytes=0-2", "If-Range": condition})
        assert (condition, got.status_code, got.content) == (condition, status, b"con" if status == 206 else b"content")


def test_content_that_is_missing_or_changed_is_an_error_and_not_torn_bytes(
    http: httpx.Client, objects: str, stored: Stored
) -> None:
    for path, content in [("gone", b"gone"), ("changed", b"changed"), ("gone and big", content_of(3 * MIB))]:
        http.put(objects + path, content=content)
    for managed in ManagedResource.objects.select_related("resource"):
        name = managed.resource.path
        stored.storage.delete(name)
        if managed.path == "changed":
            with stored.storage.open(name, "wb") as file:
                file.write(b"CHANGED")
        got = http.get(objects + managed.path)
        assert (managed.path, got.status_code, got.json()["code"]) == (managed.path, 500, "content-damaged")
    assert not Resource.objects.filter(damaged_at=None).exists()
    assert http.put(f"{objects}gone", content=b"gone").status_code == 200
    assert http.get(f"{objects}gone").content == b"gone"


def test_content_that_turns_out_wrong_on_the_way_breaks_the_connection(
    http: httpx.Client, objects: str, stored: Stored
) -> None:
    content = content_of(3 * MIB)
    http.put(f"{objects}x", content=content)
    name = Resource.objects.get().path
    stored.storage.delete(name)
    with stored.storage.open(name, "wb") as file:
        file.write(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(f"{objects}x")
    assert Resource.objects.get().damaged_at
    for wanted in ("bytes=0-9", "bytes=-1", "bytes=0-9,20-29", "other=1"):
        refused = http.get(f"{objects}x", headers={"Range": wanted})
        assert (refused.status_code, refused.json()["code"]) == (500, "content-damaged")
    assert http.put(f"{objects}x", content=content).status_code == 200
    assert http.get(f"{objects}x", headers={"Range": "bytes=0-9"}).content == content[:10]


def test_a_path_whose_first_upload_is_under_way_says_try_again(
    http: httpx.Client, objects: str, bucket: Bucket, stored: Stored
) -> None:
    content = content_of(3 * MIB)
    seen: list[httpx.Response] = []
    stream = Stream(content, {2 * MIB: lambda: seen.append(http.get(f"{objects}x"))})
    ManagedStorage().put(Namespace(bucket=bucket.pk), "x", stream, len(content))
    [answer] = seen
    assert (answer.status_code, answer.json()["code"]) == (503, "upload-pending")
    assert int(answer.headers["retry-after"]) == answer.json()["retry_after"] > 0
    assert http.get(f"{objects}x").content == content


def test_readers_never_miss_an_object_that_is_replaced_all_the_time(
    stored: Stored, settings: Settings, bucket: Bucket, request: pytest.FixtureRequest
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    http = api.remote(request.getfixturevalue("site"))
    url = f"buckets/{bucket.pk}/objects/x"
    contents = [content_of(1000, label) for label in range(60)]
    http.put(url, content=contents[0])
    with ThreadPoolExecutor(4) as threads:
        writing = threads.submit(lambda: [http.put(url, content=content).status_code for content in contents])
        reading = [threads.submit(lambda: [http.get(url) for _ in range(60)]) for _ in range(3)]
        assert set(writing.result()) == {200}
        answers = [answer for future in reading for answer in future.result()]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} <= set(contents)
    assert_sound(stored)


def test_a_client_that_hangs_up_leaves_no_file_open(
    site: Site, http: httpx.Client, objects: str, stored: Stored
) -> None:
    http.put(f"{objects}x", content=content_of(30 * MIB))
    for _ in range(3):
        with http.stream("GET", f"{objects}x") as got:
            next(got.iter_bytes())
    wait_until_idle(site)
    if stored.kind != "files":
        return
    name = Resource.objects.get().path
    deadline = time.monotonic() + 120
    while open_files(site, name) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert open_files(site, name) == []


def open_files(site: Site, name: str) -> list[str]:
    """Return which open files of the site's processes are the stored file `name`."""
    processes = [psutil.Process(site.process.pid), *psutil.Process(site.process.pid).children(recursive=True)]
    return [file.path for process in processes for file in process.open_files() if file.path.endswith(name)]


def test_an_upload_whose_client_vanishes_leaves_nothing(site: Site, bucket: Bucket, stored: Stored) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    request = head("PUT", url, "x", f"Content-Length: {10 * MIB}") + content_of(4 * MIB)
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        our_port = connection.getsockname()[1]
        connection.sendall(request)
    wait_until_hung_up(int(port), our_port)
    assert_empty(stored)
    assert send(url, head("GET", url, "x")).status == 404


def wait_until_hung_up(port: int, our_port: int) -> None:
    """Return once the server at `port` has done with our connection, which it may not have taken up yet."""
    deadline = time.monotonic() + 120
    while any(
        there.laddr.port == port and there.raddr and there.raddr.port == our_port
        for there in psutil.net_connections("tcp4")
        if there.laddr and there.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT)
    ):
        assert time.monotonic() < deadline, "The server still has the connection of a client that is gone."
        time.sleep(0.05)
