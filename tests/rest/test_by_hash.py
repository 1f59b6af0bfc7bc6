"""Content by its hash in a bucket: immutable for caches, and not there for whoever has no object with it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.test import Client
from rest_framework.authtoken.models import Token

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from tests.rest import api
from tests.rest.test_statements import statements
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

IMMUTABLE = "private, max-age=31536000, immutable, no-transform"


@pytest.fixture
def by_hash(bucket: Bucket) -> str:
    return f"buckets/{bucket.pk}/by-sha384/"


def test_content_is_sent_by_its_hash_for_caches_to_keep(http: httpx.Client, objects: str, by_hash: str) -> None:
    content = content_of(2 * MIB)
    http.put(f"{objects}folder/page.html", content=content, headers={"Content-Type": "text/html"})
    by_path, got = http.get(f"{objects}folder/page.html"), http.get(by_hash + sha384(content))
    assert (got.status_code, got.content) == (200, content)
    assert got.headers["cache-control"] == IMMUTABLE
    varying = {"date", "connection", "server", "cache-control", "allow"}
    assert {name for name in by_path.headers if by_path.headers[name] != got.headers.get(name)} <= varying
    assert http.head(by_hash + sha384(content)).headers["content-length"] == str(len(content))
    assert http.get(by_hash + sha384(content).upper()).status_code == 200


def test_ranges_and_conditions_hold_for_hashes_too(http: httpx.Client, objects: str, by_hash: str) -> None:
    tag = http.put(f"{objects}x", content=b"content").headers["etag"]
    url = by_hash + sha384(b"content")
    part = http.get(url, headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.content, part.headers["cache-control"]) == (206, b"on", IMMUTABLE)
    known = http.get(url, headers={"If-None-Match": tag})
    assert (known.status_code, known.headers["cache-control"]) == (304, IMMUTABLE)
    assert http.get(url, headers={"If-Match": '"x"'}).status_code == 412
    assert http.get(url, headers={"Range": "bytes=7-"}).status_code == 416


def test_the_newest_object_says_what_the_content_is(http: httpx.Client, objects: str, by_hash: str) -> None:
    for path in ("a.txt", "b.png"):
        http.put(objects + path, content=b"content")
    got = http.get(by_hash + sha384(b"content"))
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-disposition"] == 'inline; filename="b.png"'
    http.put(f"{objects}a.txt", content=b"content")
    assert http.get(by_hash + sha384(b"content")).headers["content-type"] == "text/plain"


def test_content_of_other_buckets_is_not_there_like_any_that_nobody_has(
    http: httpx.Client, objects: str, by_hash: str, stored: Stored
) -> None:
    ManagedStorage().put(Namespace("other"), "x", b"elsewhere")
    ManagedStorage().put(Namespace(), "x", b"elsewhere")
    http.put(f"{objects}x", content=b"content")
    http.put(f"{objects}x", content=b"replaced")

    def told(content: bytes) -> tuple[int, dict[str, Any], set[str]]:
        answer = http.get(by_hash + sha384(content))
        text = answer.text.replace(sha384(content), "")
        return answer.status_code, {"text": text}, set(answer.headers)

    assert told(b"elsewhere") == told(b"nowhere") == told(b"content")
    assert told(b"elsewhere")[0] == 404
    assert told(b"replaced")[0] == 200


def test_what_is_no_hash_is_told_so(http: httpx.Client, by_hash: str) -> None:
    for text in ("x", "0" * 95, "0" * 97, "g" * 96, "%00"):
        answer = http.get(by_hash + text)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid-hash")


def test_only_who_may_view_objects_is_sent_content_by_its_hash(
    site: Site, http: httpx.Client, objects: str, by_hash: str
) -> None:
    http.put(f"{objects}x", content=b"content")
    for name, permission, status in [
        ("reader", "view_managedresource", 200),
        ("adder", "add_managedresource", 403),
    ]:
        api.person(name, permission)
        with api.remote(site, name) as client:
            assert client.get(by_hash + sha384(b"content")).status_code == status
    api.person("stranger")
    with api.remote(site, "stranger") as client:
        answer = client.get(by_hash + sha384(b"content"))
        assert (answer.status_code, answer.json()["code"]) == (404, "bucket-not-found")
    assert httpx.get(f"{site.url}/api/{by_hash}{sha384(b'content')}", timeout=120).status_code == 401


def test_methods_that_change_something_are_not_there(http: httpx.Client, by_hash: str) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        answer = http.request(method, by_hash + "0" * 96)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_content_by_its_hash_costs_no_more_statements_than_by_its_path(database: str, stored: Stored) -> None:
    owner = api.person("owner")
    own = Bucket.objects.create(owner=owner)
    ManagedStorage().put(Namespace(bucket=own.pk), "x", b"content")
    client = Client(headers={"Authorization": f"Token {Token.objects.create(user=owner).key}"})
    url = f"/api/buckets/{own.pk}/by-sha384/{sha384(b'content')}"
    assert len(statements(database, lambda: client.get(url))) == 3


@pytest.mark.parametrize("storage_kind", ["memory"])
def test_digests_are_told_unless_they_are_not_wanted(database: str, bucket: Bucket, stored: Stored) -> None:
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/objects/x"
    api.put(client, url)

    def told(**headers: str) -> tuple[bool, bool]:
        got: Any = client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return "Repr-Digest" in got, "Content-Digest" in got

    assert told() == (True, True)
    assert told(Range="bytes=1-2") == (True, False)
    assert told(Want_Repr_Digest="sha-256=0") == told(Want_Repr_Digest="sha-512=9, sha-256=0;a") == (False, True)
    assert told(Want_Repr_Digest="sha-256=10") == told(Want_Repr_Digest="sha-512=3, sha-256=1") == (True, True)
    assert told(Want_Repr_Digest="sha-512=1") == told(Want_Repr_Digest="%%") == (True, True)
    assert told(Want_Content_Digest="sha-256=0") == (True, False)
    got, told_only = client.get(url), client.head(url)
    assert got["Repr-Digest"] == got["Content-Digest"] == told_only["Repr-Digest"]
    assert "Content-Digest" not in told_only
