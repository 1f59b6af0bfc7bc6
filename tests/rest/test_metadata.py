"""What users say of their objects: in headers of a PUT, in those of a GET, in JSON, and changed without the bytes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.invariants import assert_settled
from tests.rest import api
from tests.servers import Site
from tests.stored import Stored

PREFIX = "X-Blobstore-Meta-"

# Values, and how they stand in a header.
VALUES = {
    "plain": ("red, green; \"blue\" <x@y> 'z' ~^`|\\", "red, green; \"blue\" <x@y> 'z' ~^`|\\"),
    "empty": ("", ""),
    "percent": ("100% %41", "100%25 %2541"),
    "spaces": ("  a  b ", "%20%20a  b%20"),
    "letters": ("Grüße, 世界 \U0001f600", "Gr%C3%BC%C3%9Fe, %E4%B8%96%E7%95%8C %F0%9F%98%80"),
}


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    return Bucket.objects.create(name="bucket", owner=api.person("owner"))


@pytest.fixture
def owner(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def put(client: APIClient, bucket: Bucket, metadata: dict[str, str]) -> Any:
    headers = {PREFIX + name: value for name, value in metadata.items()}
    return client.generic("PUT", f"/api/buckets/{bucket.pk}/objects/x", b"content", "text/x", headers=headers)


def describe(client: APIClient, bucket: Bucket, headers: dict[str, str] | None = None, **said: Any) -> Any:
    document = json.dumps({"path": "x", **said})  # with lone surrogates as ASCII, unlike the client's own encoder
    url = f"/api/buckets/{bucket.pk}/describe"
    return client.generic("POST", url, document, "application/json", headers=headers)


def kept() -> Any:
    return ManagedResource.objects.get().metadata


def test_every_text_comes_back_through_a_running_server(bucket: Bucket, site: Site) -> None:
    values, headers = ({name: pair[i] for name, pair in VALUES.items()} for i in (0, 1))
    url = f"buckets/{bucket.pk}/objects/x"
    with api.remote(site) as http:
        stored = http.put(url, content=b"x", headers={PREFIX + name: value for name, value in headers.items()})
        assert (stored.status_code, stored.json()["metadata"]) == (201, values)
        for answer in (http.get(url), http.head(url), http.get(url, headers={"Range": "bytes=0-0"})):
            assert {name: answer.headers[PREFIX + name] for name in headers} == headers
        again = {name: value for name, value in http.get(url).headers.items() if name.startswith(PREFIX.lower())}
        assert http.put(url, content=b"y", headers=again).json()["metadata"] == values
        assert http.put(url, content=b"z").json()["metadata"] == {}
        assert not [name for name in http.get(url).headers if name.startswith(PREFIX.lower())]


def test_names_are_in_lower_case_whatever_was_sent(owner: APIClient, bucket: Bucket) -> None:
    assert put(owner, bucket, {"Colour-Of-2": "red"}).json()["metadata"] == {"colour-of-2": "red"}
    assert owner.get(f"/api/buckets/{bucket.pk}/objects/x")[PREFIX + "Colour-Of-2"] == "red"
    listed = owner.get(f"/api/buckets/{bucket.pk}/objects/").json()["objects"]
    assert [shown["metadata"] for shown in listed] == [{"colour-of-2": "red"}]


REFUSED: dict[str, dict[str, str]] = {
    "a control character": {"a": "%0A"},
    "a NUL": {"a": "%00"},
    "no UTF-8": {"a": "%FF"},
    "raw letters": {"a": "ü"},
    "a name of dots": {"a.b": "x"},
    "a name that ends in a hyphen": {"a-": "x"},
    "no name": {"": "x"},
    "a long name": {"a" * 65: "x"},
    "too many": {f"a{n}": "x" for n in range(33)},
    "too long": {"a": "x" * 2048},
    "too long when encoded": {"a": "%C3%BC" * 350},
    "too long together": {"a": "x" * 1024, "b": "x" * 1024},
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_cannot_be_kept_is_refused_and_nothing_is_stored(
    owner: APIClient, bucket: Bucket, stored: Stored, what: str
) -> None:
    refused = put(owner, bucket, REFUSED[what])
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid-metadata")
    assert not ManagedResource.objects.exists()
    assert_settled(stored)


def test_the_most_there_may_be_is_kept(owner: APIClient, bucket: Bucket) -> None:
    most = {f"a{n:02}": "x" * 61 for n in range(32)}
    assert put(owner, bucket, most).json()["metadata"] == most
    assert put(owner, bucket, {"a" * 64: "x" * 1984}).status_code == 200


def test_a_description_changes_what_is_said_and_no_byte(owner: APIClient, bucket: Bucket, stored: Stored) -> None:
    before = put(owner, bucket, {"colour": "red"}).json()
    files = stored.names()
    described = describe(owner, bucket, metadata={"size": " ü "})
    changed = {"metadata": {"size": " ü "}, "modified_at": described.json()["modified_at"]}
    assert (described.status_code, described.json()) == (200, before | changed)
    assert described.json()["modified_at"] > before["modified_at"]
    described = describe(owner, bucket, content_type="image/png").json()
    assert (described["content_type"], described["metadata"]) == ("image/png", {"size": " ü "})
    answer = owner.get(f"/api/buckets/{bucket.pk}/objects/x")
    assert (answer["Content-Type"], answer[PREFIX + "Size"]) == ("image/png", "%20%C3%BC%20")
    described = describe(owner, bucket, content_type="", metadata={}).json()
    assert (described["content_type"], described["metadata"]) == ("", {})
    assert describe(owner, bucket).json() == described
    assert stored.names() == files
    assert_settled(stored)


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"path": "none"}, 404, "resource-not-found"),
        ({"path": "none", "metadata": {}}, 404, "resource-not-found"),
        ({"path": ".."}, 400, "invalid-path"),
        ({"content_type": "nonsense"}, 400, "invalid"),
        ({"content_type": "a/" + "b" * 300}, 400, "invalid"),
        ({"content_type": "a/b\r\nX: y"}, 400, "invalid"),
        ({"metadata": []}, 400, "invalid"),
        ({"metadata": None}, 400, "invalid"),
        ({"metadata": {"a": 1}}, 400, "invalid-metadata"),
        ({"metadata": {"a": None}}, 400, "invalid-metadata"),
        ({"metadata": {"A": "x"}}, 400, "invalid-metadata"),
        ({"metadata": {"a": "\0"}}, 400, "invalid-metadata"),
        ({"metadata": {"a": "\n"}}, 400, "invalid-metadata"),
        ({"metadata": {"a": "\ud800"}}, 400, "invalid-metadata"),
        ({"metadata": {"a": "ü" * 350}}, 400, "invalid-metadata"),
    ],
    ids=str,
)
def test_a_description_that_cannot_be_is_refused_and_changes_nothing(
    owner: APIClient, bucket: Bucket, said: dict[str, Any], status: int, code: str
) -> None:
    before = put(owner, bucket, {"colour": "red"}).json()
    refused = describe(owner, bucket, **said)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    [listed] = owner.get(f"/api/buckets/{bucket.pk}/objects/").json()["objects"]
    assert listed == before


def test_a_description_is_of_the_content_that_its_author_knows(owner: APIClient, bucket: Bucket) -> None:
    before = put(owner, bucket, {"colour": "red"})
    known, other = before["ETag"], f'"{"0" * 96}"'
    for headers in ({"If-Match": other}, {"If-None-Match": known}, {"If-None-Match": "*"}):
        refused = describe(owner, bucket, headers, metadata={"a": "b"})
        assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    assert describe(owner, bucket, {"If-Match": "no tag"}, metadata={"a": "b"}).status_code == 400
    assert describe(owner, bucket, {"If-Match": other}).status_code == 412
    assert kept() == {"colour": "red"}
    described = describe(owner, bucket, {"If-Match": known}, metadata={"a": "b"})
    assert (described.status_code, described["ETag"], kept()) == (200, known, {"a": "b"})
    assert describe(owner, bucket, {"If-Match": known}, path="none", metadata={}).status_code == 404


def test_a_cache_that_asks_by_date_learns_of_a_new_description(owner: APIClient, bucket: Bucket) -> None:
    put(owner, bucket, {})
    ManagedResource.objects.update(modified_at=timezone.now() - timedelta(hours=1))
    url = f"/api/buckets/{bucket.pk}/objects/x"
    headers = {"If-Modified-Since": owner.get(url)["Last-Modified"]}
    assert owner.get(url, headers=headers).status_code == 304
    describe(owner, bucket, metadata={"a": "b"})
    assert owner.get(url, headers=headers).status_code == 200


def test_what_was_set_in_python_and_is_no_such_text_is_in_the_json_alone(owner: APIClient, bucket: Bucket) -> None:
    metadata = {"fine": "x", "Number": 1, "list": [1], "line": "a\nb"}
    ManagedStorage().put(Namespace(bucket=bucket.pk), "x", b"content", metadata=metadata)
    answer = owner.get(f"/api/buckets/{bucket.pk}/objects/x")
    assert [name for name in answer.headers if name.startswith(PREFIX)] == [PREFIX + "Fine"]
    [listed] = owner.get(f"/api/buckets/{bucket.pk}/objects/").json()["objects"]
    assert listed["metadata"] == metadata


def test_only_who_may_change_objects_may_describe_them(owner: APIClient, bucket: Bucket) -> None:
    put(owner, bucket, {})
    reader = api.person("reader", "view_managedresource", "add_managedresource", "delete_managedresource")
    writer = api.person("writer", "change_managedresource")
    asked = [describe(api.client(user), bucket, metadata={"a": "b"}) for user in (None, reader, writer)]
    assert [answer.status_code for answer in asked] == [401, 403, 200]
    assert kept() == {"a": "b"}


def test_metadata_survives_httpx_headers_in_any_case(bucket: Bucket, site: Site) -> None:
    with api.remote(site) as http:
        headers = httpx.Headers({"x-blobSTORE-meta-A": "1", "X-Blobstore-Metal": "no"})
        stored = http.put(f"buckets/{bucket.pk}/objects/x", content=b"x", headers=headers)
        assert stored.json()["metadata"] == {"a": "1"}
