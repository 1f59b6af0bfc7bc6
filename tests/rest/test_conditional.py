"""Requests that are meant for one state of an object only: what is decided, when, and in which order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.rest import api
from tests.rest.raw_http import head, send
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

LONG_AGO = "Mon, 01 Jan 1990 00:00:00 GMT"
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
FAR_AWAY = "Fri, 01 Jan 2100 00:00:00 GMT"
OTHER = f'"{sha384(b"other")}"'


def headers(conditions: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in conditions.items()}


@pytest.fixture
def content_there(http: httpx.Client, objects: str) -> Callable[[], bytes]:
    """What is at the path x."""
    return lambda: http.get(f"{objects}x").content


def test_reads_are_decided_in_the_order_of_the_rfc(http: httpx.Client, objects: str) -> None:
    tag = http.put(f"{objects}x", content=b"content").headers["etag"]

    def status(method: str = "GET", **conditions: str) -> int:
        return http.request(method, f"{objects}x", headers=headers(conditions)).status_code

    assert status(If_Match=tag, If_Unmodified_Since=LONG_AGO) == 200
    assert status(If_Match=OTHER, If_None_Match=tag) == 412
    assert status(If_Match=f"W/{tag}") == 412
    assert status(If_Match=f'"a,b", {tag}') == status(If_Match=f"{OTHER},{tag}") == 200
    assert status(If_Match="nonsense") == status(If_Match=tag.strip('"')) == status(If_Match="") == 412
    assert status(If_Unmodified_Since=EPOCH) == 412
    assert status(If_Unmodified_Since=FAR_AWAY) == status(If_Unmodified_Since="yesterday") == 200
    assert status(If_None_Match=tag, If_Modified_Since=LONG_AGO) == 304
    assert status(If_None_Match=OTHER, If_Modified_Since=FAR_AWAY) == 200
    assert status(If_Modified_Since=FAR_AWAY) == 304
    assert status(If_Modified_Since=EPOCH) == status(If_Modified_Since="now") == 200
    assert status("HEAD", If_None_Match=tag) == 304
    assert status("HEAD", If_Match=OTHER) == 412


def test_a_range_is_looked_at_after_the_conditions(http: httpx.Client, objects: str) -> None:
    tag = http.put(f"{objects}x", content=b"content").headers["etag"]

    def status(wanted: str, **conditions: str) -> int:
        return http.get(f"{objects}x", headers={"Range": wanted, **headers(conditions)}).status_code

    assert status("bytes=0-1", If_None_Match=tag) == 304
    assert status("bytes=0-1", If_Match=OTHER) == 412
    assert status("bytes=9-", If_Match=OTHER) == 412
    assert status("bytes=9-", If_Range=OTHER) == 200
    assert status("bytes=9-", If_Range=tag) == 416
    assert status("bytes=0-1", If_Range=f"W/{tag}") == status("bytes=0-1", If_Range=tag.upper()) == 200


def test_an_answer_that_nothing_changed_has_what_a_cache_updates(http: httpx.Client, objects: str) -> None:
    tag = http.put(f"{objects}x", content=b"content").headers["etag"]
    full = http.get(f"{objects}x")
    kept = http.get(f"{objects}x", headers={"If-None-Match": tag})
    for name in ("etag", "last-modified", "cache-control", "vary"):
        assert kept.headers.get(name) == full.headers.get(name)
    assert not {"content-type", "content-disposition", "repr-digest"} & set(kept.headers)


def test_a_put_that_creates_only_never_replaces(
    http: httpx.Client, objects: str, content_there: Callable[[], bytes], stored: Stored
) -> None:
    create = partial(http.put, f"{objects}x", headers={"If-None-Match": "*"})
    assert create(content=b"one").status_code == 201
    refused = create(content=b"two")
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert content_there() == b"one"
    assert_settled(stored)


def test_a_put_replaces_only_what_the_client_has_seen(
    http: httpx.Client, objects: str, content_there: Callable[[], bytes], stored: Stored
) -> None:
    tag = http.put(f"{objects}x", content=b"one").headers["etag"]

    def status(content: bytes, **conditions: str) -> int:
        return http.put(f"{objects}x", content=content, headers=headers(conditions)).status_code

    assert status(b"no", If_Match=OTHER) == status(b"no", If_Match=f"W/{tag}") == 412
    assert status(b"no", If_None_Match=tag) == status(b"no", If_None_Match=f"W/{tag}") == 412
    assert status(b"no", If_Unmodified_Since=LONG_AGO) == status(b"no", If_Unmodified_Since=EPOCH) == 412
    assert content_there() == b"one"
    assert status(b"two", If_Match=tag) == 200
    assert status(b"no", If_Match=tag) == 412
    assert status(b"three", If_Match="*") == status(b"four", If_None_Match=OTHER) == 200
    assert status(b"five", If_Unmodified_Since=FAR_AWAY) == 200
    assert content_there() == b"five"
    assert_settled(stored)


def test_what_is_not_there_can_only_be_created(http: httpx.Client, objects: str, stored: Stored) -> None:
    assert http.put(f"{objects}x", content=b"x", headers={"If-Match": "*"}).status_code == 412
    assert http.put(f"{objects}x", content=b"x", headers={"If-Match": OTHER}).status_code == 412
    for condition in ({"If-Match": "*"}, {"If-None-Match": "*"}, {"If-Unmodified-Since": LONG_AGO}):
        assert http.delete(f"{objects}x", headers=condition).status_code == 404
        assert http.get(f"{objects}x", headers=condition).status_code == 404
    assert_empty(stored)
    assert http.put(f"{objects}x", content=b"x", headers={"If-Unmodified-Since": LONG_AGO}).status_code == 201
    assert http.put(f"{objects}y", content=b"x", headers={"If-None-Match": OTHER}).status_code == 201


def test_a_condition_of_a_change_that_means_nothing_is_refused_and_not_ignored(
    http: httpx.Client, objects: str, content_there: Callable[[], bytes]
) -> None:
    tag = http.put(f"{objects}x", content=b"one").headers["etag"]
    for name in ("If-Match", "If-None-Match"):
        for value in ("", tag.strip('"'), f"{tag} {OTHER}", f"*, {tag}", f"w/{tag}", f"{tag},"):
            for answer in (
                http.put(f"{objects}x", content=b"two", headers={name: value}),
                http.delete(f"{objects}x", headers={name: value}),
            ):
                assert (name, value, answer.status_code) == (name, value, 400)
                assert answer.json()["code"] == "invalid-condition"
    assert content_there() == b"one"


def test_a_delete_removes_only_what_the_client_has_seen(http: httpx.Client, objects: str, stored: Stored) -> None:
    tag = http.put(f"{objects}x", content=b"one").headers["etag"]
    for condition in ({"If-Match": OTHER}, {"If-None-Match": "*"}, {"If-Unmodified-Since": LONG_AGO}):
        refused = http.delete(f"{objects}x", headers=condition)
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert http.get(f"{objects}x").content == b"one"
    assert http.delete(f"{objects}x", headers={"If-Match": tag}).status_code == 204
    assert http.get(f"{objects}x").status_code == 404
    assert_settled(stored)


def test_a_put_that_became_unwanted_while_its_body_came_changes_nothing(
    http: httpx.Client, objects: str, bucket: Bucket, stored: Stored
) -> None:
    tag = http.put(f"{objects}x", content=b"one").headers["etag"]
    content = content_of(3 * MIB)
    replace = partial(ManagedStorage().put, Namespace(bucket=bucket.pk), "x", b"meanwhile")
    refused = http.put(f"{objects}x", content=iter(meanwhile(content, replace)), headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert http.get(f"{objects}x").content == b"meanwhile"
    assert_sound(stored)
    assert Bucket.objects.with_usage().get(pk=bucket.pk).logical_bytes == len(b"meanwhile")


def meanwhile(content: bytes, do: Callable[[], object]) -> list[bytes]:
    """Return blocks of which the second is taken after `do` was called."""
    middle = len(content) // 2

    class Blocks(list[bytes]):
        def __iter__(self) -> Any:
            yield content[:middle]
            do()
            yield content[middle:]

    return Blocks()


@pytest.mark.parametrize("server", ["gunicorn"])
def test_a_doomed_upload_is_refused_before_its_body_is_sent(
    site: Site, http: httpx.Client, objects: str, stored: Stored
) -> None:
    http.put(f"{objects}x", content=b"one")
    url = f"{site.url}/api/"
    big = (f"Content-Length: {1024**4}", "If-None-Match: *")
    assert send(url, head("PUT", url, f"{objects}x", *big)).status == 412
    address = urlsplit(site.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=120) as connection:
        connection.sendall(head("PUT", url, f"{objects}x", *big, "Expect: 100-continue"))
        said = b""
        while b"precondition-failed" not in said and (block := connection.recv(65536)):
            said += block
    assert b" 412 " in said
    assert http.get(f"{objects}x").content == b"one"
    assert_settled(stored)


def test_who_may_only_add_never_replaces_what_came_while_their_body_did(
    site: Site, bucket: Bucket, objects: str, stored: Stored
) -> None:
    api.person("adder", "add_managedresource")
    replace = partial(ManagedStorage().put, Namespace(bucket=bucket.pk), "x", b"meanwhile")
    with api.remote(site, "adder") as adder:
        refused = adder.put(f"{objects}x", content=iter(meanwhile(content_of(3 * MIB), replace)))
        assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
        assert adder.put(f"{objects}x", content=b"again").status_code == 403
        assert adder.put(f"{objects}y", content=b"new").status_code == 201
    assert ManagedStorage().get(Namespace(bucket=bucket.pk), "x").read() == b"meanwhile"
    assert_sound(stored)


def test_who_may_only_change_never_makes_anew_what_went_while_their_body_came(
    site: Site, bucket: Bucket, objects: str, stored: Stored
) -> None:
    api.person("changer", "change_managedresource")
    store, namespace = ManagedStorage(), Namespace(bucket=bucket.pk)
    store.put(namespace, "x", b"old")
    remove = partial(store.remove, namespace, "x")
    with api.remote(site, "changer") as changer:
        refused = changer.put(f"{objects}x", content=iter(meanwhile(content_of(3 * MIB), remove)))
        assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
    assert not ManagedResource.objects.exists()
    assert_sound(stored)


def test_what_a_path_allows_can_be_asked(http: httpx.Client, objects: str, bucket: Bucket) -> None:
    answer = http.options(f"{objects}x")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, PUT, DELETE, HEAD, OPTIONS"
    assert answer.headers["accept-ranges"] == "bytes"
    for url in ("buckets/", f"buckets/{bucket.pk}/", objects, f"buckets/{bucket.pk}/put-requests/", "put-requests/x/"):
        answer = http.options(url)
        assert answer.is_success
        assert "OPTIONS" in answer.headers["allow"]
