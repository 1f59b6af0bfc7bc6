"""Resumable upload over HTTP: what tus 1.0.0 asks of each request and answer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from django_blobstore import resumable
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, Resource, ResumableUpload
from tests.invariants import assert_sound
from tests.rest import api, raw_http
from tests.servers import Site
from tests.stored import Stored
from tests.streams import content_of, sha384

CONTENT = content_of(300_000)
HALF = 150_000
TYPE = "application/offset+octet-stream"
VERSION = {"Tus-Resumable": "1.0.0"}


def told(**metadata: str) -> str:
    """Return `metadata` as the header Upload-Metadata has it."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())


def checksum(algorithm: str, content: bytes) -> str:
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm} {base64.b64encode(digest).decode()}"


@pytest.fixture
def client(site: Site) -> Any:
    with api.remote(site) as client:
        client.headers.update(VERSION)
        yield client


def begin(client: httpx.Client, length: int = len(CONTENT), content: bytes = b"", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = {"Content-Type": TYPE} if content else {}
    return client.post("uploads/", content=content, headers={"Upload-Length": str(length)} | kind | names)


def patch(client: httpx.Client, url: str, offset: int, content: bytes, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.patch(url, content=content, headers={"Upload-Offset": str(offset), "Content-Type": TYPE} | names)


def target(bucket: Bucket, path: str = "a/b", **more: str) -> str:
    return told(bucket=str(bucket.pk), path=path, **more)


def test_an_upload_in_two_requests_becomes_an_object(client: httpx.Client, bucket: Bucket) -> None:
    metadata = target(bucket, content_type="image/png", sha384=sha384(CONTENT))
    begun = begin(client, Upload_Metadata=metadata)
    assert begun.status_code == 201
    url = begun.headers["Location"]
    assert begun.headers["Upload-Expires"].endswith("GMT")
    object_url = f"buckets/{bucket.pk}/objects/a/b"
    pending = client.get(object_url)
    assert (pending.status_code, pending.json()["code"]) == (503, "upload-pending")
    assert pending.headers["Retry-After"]

    first = patch(client, url, 0, CONTENT[:HALF])
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, str(HALF))
    asked = client.head(url)
    assert asked.status_code == 200
    assert asked.headers["Upload-Offset"] == str(HALF)
    assert asked.headers["Upload-Length"] == str(len(CONTENT))
    assert asked.headers["Upload-Metadata"] == metadata
    assert asked.headers["Cache-Control"] == "no-store"
    assert asked.headers["Tus-Resumable"] == "1.0.0"

    second = patch(client, url, HALF, CONTENT[HALF:])
    assert (second.status_code, second.headers["Upload-Offset"]) == (204, str(len(CONTENT)))
    assert second.headers["Content-Location"].endswith(object_url)
    stored = client.get(object_url)
    assert (stored.content, stored.headers["Content-Type"]) == (CONTENT, "image/png")
    assert client.head(url).headers["Upload-Offset"] == str(len(CONTENT))


def test_the_server_says_what_it_can(client: httpx.Client) -> None:
    answer = client.options("uploads/", headers={"Tus-Resumable": ""})
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,sha384"
    assert set(answer.headers["Tus-Extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "expiration",
        "checksum",
        "termination",
        "concatenation",
    }


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1"])
def test_another_version_is_refused_and_the_right_one_named(client: httpx.Client, version: str | None) -> None:
    client.headers.pop("Tus-Resumable")
    answer = begin(client, **({"Tus_Resumable": version} if version else {}))
    assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert not ResumableUpload.objects.exists()


@pytest.mark.parametrize("method", ["GET", "PUT", "TRACE"])
def test_a_method_that_tus_does_not_have_is_refused_whatever_the_version(database: str, method: str) -> None:
    client = api.client(api.administrator())
    for url in ("/api/uploads/", "/api/uploads/abc/"):
        answer = client.generic(method, url)
        assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed")
        assert "OPTIONS" in answer["Allow"]


def test_creation_may_bring_the_first_bytes_or_all(client: httpx.Client, bucket: Bucket) -> None:
    begun = begin(client, content=CONTENT[:HALF], Upload_Metadata=target(bucket))
    assert (begun.status_code, begun.headers["Upload-Offset"]) == (201, str(HALF))
    assert patch(client, begun.headers["Location"], HALF, CONTENT[HALF:]).status_code == 204
    whole = begin(client, content=CONTENT, Upload_Metadata=target(bucket, "c"))
    assert (whole.status_code, whole.headers["Upload-Offset"]) == (201, str(len(CONTENT)))
    for path in ("a/b", "c"):
        assert client.get(f"buckets/{bucket.pk}/objects/{path}").content == CONTENT


def test_an_empty_upload_is_an_object_at_once(client: httpx.Client, bucket: Bucket) -> None:
    assert begin(client, 0, Upload_Metadata=target(bucket)).headers["Upload-Offset"] == "0"
    assert client.get(f"buckets/{bucket.pk}/objects/a/b").content == b""


def test_the_length_may_come_later(client: httpx.Client, bucket: Bucket) -> None:
    headers = {"Upload-Defer-Length": "1", "Upload-Metadata": target(bucket)}
    url = client.post("uploads/", headers=headers).headers["Location"]
    patch(client, url, 0, CONTENT[:HALF])
    asked = client.head(url)
    assert (asked.headers["Upload-Defer-Length"], "Upload-Length" in asked.headers) == ("1", False)
    done = patch(client, url, HALF, CONTENT[HALF:], Upload_Length=str(len(CONTENT)))
    assert done.headers["Upload-Offset"] == str(len(CONTENT))
    assert client.get(f"buckets/{bucket.pk}/objects/a/b").content == CONTENT


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384"])
def test_bytes_are_compared_with_their_checksum(client: httpx.Client, algorithm: str) -> None:
    url = begin(client).headers["Location"]
    wrong = patch(client, url, 0, CONTENT[:HALF], Upload_Checksum=checksum(algorithm, b"something else"))
    assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum-mismatch")
    assert client.head(url).headers["Upload-Offset"] == "0"
    right = patch(client, url, 0, CONTENT[:HALF], Upload_Checksum=checksum(algorithm, CONTENT[:HALF]))
    assert (right.status_code, right.headers["Upload-Offset"]) == (204, str(HALF))


def test_content_of_another_hash_than_declared_is_refused_and_forgotten(client: httpx.Client, bucket: Bucket) -> None:
    url = begin(client, Upload_Metadata=target(bucket, sha384=sha384(b"something else"))).headers["Location"]
    refused = patch(client, url, 0, CONTENT)
    assert (refused.status_code, refused.json()["code"]) == (422, "hash-mismatch")
    assert client.head(url).status_code == 404
    assert client.get(f"buckets/{bucket.pk}/objects/a/b").status_code == 404


def test_an_upload_can_be_ended(client: httpx.Client, stored: Stored) -> None:
    url = begin(client, content=CONTENT[:HALF]).headers["Location"]
    assert client.delete(url).status_code == 204
    assert client.head(url).status_code == 404
    assert patch(client, url, HALF, CONTENT[HALF:]).status_code == 404
    assert not stored.names()


def test_partial_uploads_are_put_together(client: httpx.Client, bucket: Bucket) -> None:
    urls = []
    for part in (CONTENT[:HALF], CONTENT[HALF:]):
        urls.append(begin(client, HALF, part, Upload_Concat="partial").headers["Location"])
        assert client.head(urls[-1]).headers["Upload-Concat"] == "partial"
    headers = {"Upload-Concat": f"final;{' '.join(urls)}", "Upload-Metadata": target(bucket)}
    final = client.post("uploads/", headers=headers)
    assert final.status_code == 201
    url = final.headers["Location"]
    asked = client.head(url)
    assert asked.headers["Upload-Concat"] == headers["Upload-Concat"]
    assert asked.headers["Upload-Offset"] == asked.headers["Upload-Length"] == str(len(CONTENT))
    assert patch(client, url, len(CONTENT), b"").status_code == 403
    assert client.get(f"buckets/{bucket.pk}/objects/a/b").content == CONTENT


def test_without_a_target_the_object_is_the_users_own(client: httpx.Client) -> None:
    nameless = begin(client, content=CONTENT, Upload_Metadata="")
    assert client.get(nameless.headers["Content-Location"]).content == CONTENT
    assert "/me/objects/" in nameless.headers["Content-Location"]
    begin(client, content=CONTENT, Upload_Metadata=told(filename="a.png", filetype="image/png"))
    assert client.get("me/objects/a.png").headers["Content-Type"] == "image/png"
    begin(client, content=CONTENT, Upload_Metadata=told(namespace="global", path="b"))
    assert client.get("global/objects/b").content == CONTENT


def test_what_is_said_of_the_content_is_kept_with_the_object(client: httpx.Client, bucket: Bucket) -> None:
    said = {"content_type": "image/png", "meta-colour": "grün", "META-Size-2": " 100% ", "relativePath": "null"}
    begin(client, content=CONTENT, Upload_Metadata=target(bucket, **said))
    parts = [begin(client, HALF, half, Upload_Concat="partial") for half in (CONTENT[:HALF], CONTENT[HALF:])]
    joined = f"final;{' '.join(part.headers['Location'] for part in parts)}"
    client.post("uploads/", headers={"Upload-Concat": joined, "Upload-Metadata": target(bucket, "joined", **said)})
    for path in ("a/b", "joined"):
        stored = client.get(f"buckets/{bucket.pk}/objects/{path}")
        assert (stored.content, stored.headers["Content-Type"]) == (CONTENT, "image/png")
        assert stored.headers["X-Blobstore-Meta-Colour"] == "gr%C3%BCn"
        assert stored.headers["X-Blobstore-Meta-Size-2"] == "%20100%25%20"
        assert "X-Blobstore-Meta-Relativepath" not in stored.headers
    begin(client, content=CONTENT, Upload_Metadata=target(bucket, **{"meta-colour": "", "meta-size": "1"}))
    [listed] = client.get(f"buckets/{bucket.pk}/objects/?prefix=a/").json()["objects"]
    assert (listed["content_type"], listed["metadata"]) == ("", {"colour": "", "size": "1"})


def meanwhile(content: bytes, do: Callable[[], object]) -> Iterator[bytes]:
    """Yield the two halves of `content` and call `do` between them."""
    middle = len(content) // 2
    yield content[:middle]
    do()
    yield content[middle:]


@pytest.mark.parametrize("by", ["one request", "the last of two"])
def test_who_may_only_add_never_replaces_what_came_while_their_upload_did(
    site: Site, bucket: Bucket, stored: Stored, by: str
) -> None:
    api.person("adder", "add_managedresource")
    content = content_of(3 * 1024 * 1024)
    replace = partial(ManagedStorage().put, Namespace(bucket=bucket.pk), "x", b"meanwhile")
    headers = VERSION | {"Upload-Metadata": target(bucket, "x"), "Upload-Length": str(len(content))}
    with api.remote(site, "adder") as adder:
        adder.headers.update({"Content-Type": TYPE, "Connection": "close"})
        if by == "one request":
            # Where the body is on disk before it is looked at, it is refused at the beginning, else in the commit.
            refused = adder.post("uploads/", content=meanwhile(content, replace), headers=headers)
        else:
            url = adder.post("uploads/", content=b"", headers=headers | {"Content-Length": "0"}).headers["Location"]
            headers = VERSION | {"Upload-Offset": "0"}
            refused = adder.patch(url, content=meanwhile(content, replace), headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
    assert ManagedStorage().get(Namespace(bucket=bucket.pk), "x").read() == b"meanwhile"
    assert Resource.objects.count() == 1
    assert_sound(stored)
    for upload in ResumableUpload.objects.all():
        assert not upload.is_whole
        resumable.end(upload)
    assert len(stored.names()) == 1


def test_an_upload_for_a_new_object_replaces_none_and_can_go_on_without_the_condition(
    client: httpx.Client, bucket: Bucket, stored: Stored
) -> None:
    new, read = {"If_None_Match": "*"}, f"buckets/{bucket.pk}/objects/a/b"
    url = begin(client, Upload_Metadata=target(bucket), **new).headers["Location"]
    assert patch(client, url, 0, CONTENT[:HALF], **new).status_code == 204
    ManagedStorage().put(Namespace(bucket=bucket.pk), "a/b", b"quicker")
    for refused in (
        patch(client, url, HALF, CONTENT[HALF:], **new),
        begin(client, Upload_Metadata=target(bucket), **new),
        begin(client, len(CONTENT), CONTENT, Upload_Metadata=target(bucket), **new),
    ):
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert client.get(read).content == b"quicker"
    assert client.head(url).headers["Upload-Offset"] == str(HALF)
    assert patch(client, url, HALF, CONTENT[HALF:]).status_code == 204
    assert client.get(read).content == CONTENT
    assert patch(client, url, len(CONTENT), b"", **new).status_code == 204, "It has become the object that is there."
    assert_sound(stored)


def test_whether_an_object_is_new_is_decided_in_the_commit(
    client: httpx.Client, bucket: Bucket, stored: Stored
) -> None:
    put = partial(ManagedStorage().put, Namespace(bucket=bucket.pk), "a/b", b"quicker")
    new = {"If-None-Match": "*", "Content-Type": TYPE}
    body = meanwhile(CONTENT, put)
    refused = client.post(
        "uploads/", content=body, headers=new | {"Upload-Length": str(len(CONTENT)), "Upload-Metadata": target(bucket)}
    )
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert client.get(f"buckets/{bucket.pk}/objects/a/b").content == b"quicker"
    assert_sound(stored)


def test_the_method_may_be_said_by_a_header(client: httpx.Client) -> None:
    url = begin(client).headers["Location"]
    headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", "Content-Type": TYPE}
    assert client.post(url, content=CONTENT[:HALF], headers=headers).headers["Upload-Offset"] == str(HALF)
    assert client.post(url, headers={"X-HTTP-Method-Override": "HEAD"}).headers["Upload-Offset"] == str(HALF)
    assert client.post(url, headers={"X-HTTP-Method-Override": "DELETE"}).status_code == 204


def test_a_body_without_a_length_is_read_to_its_end(client: httpx.Client) -> None:
    url = begin(client).headers["Location"]
    answer = client.patch(
        url,
        content=iter([CONTENT[:1000], CONTENT[1000:HALF]]),
        headers={"Upload-Offset": "0", "Content-Type": TYPE},
    )
    assert answer.headers["Upload-Offset"] == str(HALF)


@pytest.mark.parametrize("server", ["gunicorn"])
@pytest.mark.parametrize("how", ["by length", "in chunks"])
def test_the_bytes_before_a_client_hung_up_count(client: httpx.Client, site: Site, how: str) -> None:
    url = begin(client).headers["Location"]
    path = url.removeprefix(site.url)
    said = [f"Content-Length: {len(CONTENT)}"] if how == "by length" else ["Transfer-Encoding: chunked"]
    headers = [*said, "Tus-Resumable: 1.0.0", "Upload-Offset: 0", f"Content-Type: {TYPE}"]
    body = CONTENT[:HALF] if how == "by length" else raw_http.chunked(CONTENT[:HALF], end=b"")
    raw_http.send(site.url, raw_http.head("PATCH", site.url, path, *headers) + body, hang_up=True)
    offset = int(client.head(url).headers["Upload-Offset"])
    # Of a chunked body gunicorn keeps back what it was reading when the end came.
    assert offset == (HALF if how == "by length" else 0)
    patch(client, url, offset, CONTENT[offset:])
    assert client.head(url).headers["Upload-Offset"] == str(len(CONTENT))


def test_a_request_at_another_offset_is_refused(client: httpx.Client) -> None:
    url = begin(client, content=CONTENT[:HALF]).headers["Location"]
    for offset in (0, HALF - 1, HALF + 1):
        answer = patch(client, url, offset, CONTENT[offset:])
        assert (answer.status_code, answer.json()["code"]) == (409, "offset-mismatch")
    assert client.head(url).headers["Upload-Offset"] == str(HALF)


def test_more_than_announced_is_refused(client: httpx.Client) -> None:
    url = begin(client, HALF).headers["Location"]
    assert patch(client, url, 0, CONTENT).status_code == 400
    assert client.head(url).headers["Upload-Offset"] == "0"


BAD: dict[str, tuple[dict[str, str], int]] = {
    "no length": ({"Upload-Length": ""}, 400),
    "a negative length": ({"Upload-Length": "-1"}, 400),
    "no number": ({"Upload-Length": "many"}, 400),
    "two kinds of length": ({"Upload-Defer-Length": "1"}, 400),
    "metadata not in base64": ({"Upload-Metadata": "path ä"}, 400),
    "metadata not in UTF-8": ({"Upload-Metadata": "path /w=="}, 400),
    "a key twice": ({"Upload-Metadata": "path YQ==,path YQ=="}, 400),
    "a bad path": ({"Upload-Metadata": told(path="../a")}, 400),
    "a bad hash": ({"Upload-Metadata": told(path="a", sha384="abc")}, 400),
    "a namespace that is none": ({"Upload-Metadata": told(namespace="you", path="a")}, 400),
    "a bucket that is none": ({"Upload-Metadata": told(bucket="nowhere", path="a")}, 404),
    "a concatenation of nothing": ({"Upload-Concat": "final;"}, 400),
    "a concatenation of what is not there": ({"Upload-Concat": "final;/api/uploads/abc/"}, 404),
    "an unknown concatenation": ({"Upload-Concat": "half"}, 400),
    "metadata of a name that cannot be": ({"Upload-Metadata": told(path="a", **{"meta-a.b": "x"})}, 400),
    "metadata with a control character": ({"Upload-Metadata": told(path="a", **{"meta-a": "\0"})}, 400),
    "too much metadata": ({"Upload-Metadata": told(path="a", **{"meta-a": "x" * 2048})}, 400),
    "an unknown checksum": ({"Upload-Checksum": "md5 abc", "Content-Type": TYPE}, 400),
    "a checksum of another length": ({"Upload-Checksum": "sha1 YQ==", "Content-Type": TYPE}, 400),
}


@pytest.mark.parametrize("what", list(BAD))
def test_a_bad_request_is_refused_and_begins_nothing(database: str, what: str) -> None:
    headers, status = BAD[what]
    client = api.client(api.administrator())
    given = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"} | headers
    kind = given.pop("Content-Type", "")
    answer = client.generic(
        "POST", "/api/uploads/", b"0123456789" if kind else b"", kind, headers={k: v for k, v in given.items() if v}
    )
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert not ResumableUpload.objects.exists()


@pytest.mark.parametrize("headers", [{}, {"Upload-Offset": "x"}, {"Upload-Offset": "-1"}])
def test_a_request_that_says_no_offset_is_refused(database: str, headers: dict[str, str]) -> None:
    client = api.client(api.administrator())
    begun = client.post("/api/uploads/", headers=VERSION | {"Upload-Length": "1"})
    answer = client.generic("PATCH", begun["Location"], b"x", TYPE, headers=VERSION | headers)
    assert answer.status_code == 400
    assert client.generic("PATCH", begun["Location"], b"x", "text/plain", headers=VERSION).status_code == 415


def test_an_upload_longer_than_the_limit_is_refused(database: str, settings: Settings) -> None:
    settings.BLOBSTORE = {"MAX_LENGTH": 10}
    client = api.client(api.administrator())
    assert client.options("/api/uploads/")["Tus-Max-Size"] == "10"
    assert client.post("/api/uploads/", headers=VERSION | {"Upload-Length": "11"}).status_code == 413


def test_nobody_sees_an_upload_of_somebody_else(database: str) -> None:
    url = api.client(api.administrator()).post("/api/uploads/", headers=VERSION | {"Upload-Length": "9"})["Location"]
    stranger = api.client(api.person("stranger", "add_managedresource", "change_managedresource"))
    for method in ("HEAD", "PATCH", "DELETE"):
        answer = stranger.generic(method, url, b"x", TYPE, headers=VERSION | {"Upload-Offset": "0"})
        assert answer.status_code == 404
    assert ResumableUpload.objects.get().offset == 0


def test_an_upload_needs_the_rights_of_a_put_at_its_begin_and_at_its_end(bucket: Bucket) -> None:
    writer = api.person("writer", "add_managedresource", "change_managedresource")
    headers = VERSION | {"Upload-Length": "1", "Upload-Metadata": target(bucket)}
    url = api.client(writer).post("/api/uploads/", headers=headers)["Location"]
    reader = api.client(api.person("reader", "view_managedresource"))
    assert reader.post("/api/uploads/", headers=headers).status_code == 403
    assert api.client(api.person("stranger")).post("/api/uploads/", headers=headers).status_code == 404
    assert api.client().post("/api/uploads/", headers=headers).status_code == 401
    writer.user_permissions.clear()
    deprived = api.client(type(writer).objects.get(pk=writer.pk))
    answer = deprived.generic("PATCH", url, b"x", TYPE, headers=VERSION | {"Upload-Offset": "0"})
    assert answer.status_code == 404
    assert ResumableUpload.objects.get().offset == 0
