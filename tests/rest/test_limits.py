"""How often and how much: throttles by scope, and the limits on what a request says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from pytest_django import Settings

from django_blobstore.models import Bucket, ManagedResource, PutRequest, Resource
from tests import servers
from tests.rest import api
from tests.rest.raw_http import head, send
from tests.stored import Stored
from tests.streams import MIB, sha384

in_memory = pytest.mark.parametrize("storage_kind", ["memory"])
ASK = {"path": "copy", "sha384": sha384(b"content")}


@pytest.fixture
def rates(settings: Settings) -> Iterator[Any]:
    """Set the rate of a scope, with nothing counted yet."""
    cache.clear()

    def give(**given: str) -> None:
        named = {f"blobstore-{scope}": rate for scope, rate in given.items()}
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": named}

    yield give
    cache.clear()


def told_to_wait(answer: Any) -> bool:
    """Whether `answer` is the problem of who asks too often, with the seconds to wait."""
    if answer.status_code != 429:
        return False
    assert answer.json()["code"] == "throttled"
    assert 0 < int(answer["Retry-After"]) <= 86_400
    return True


@in_memory
def test_uploads_beyond_their_rate_are_to_wait_and_leave_nothing(
    database: str, bucket: Bucket, stored: Stored, rates: Any
) -> None:
    rates(upload="2/day")
    client, other = api.client(api.administrator()), api.client(api.person("other"))
    url = f"/api/buckets/{bucket.pk}/objects/"
    assert [api.put(client, f"{url}{n}", b"%d" % n).status_code for n in range(3)] == [201, 201, 429]
    assert told_to_wait(api.put(client, f"{url}3"))
    begun = client.post("/api/uploads/", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "1"})
    assert told_to_wait(begun)
    assert client.get(f"{url}0").status_code == 200
    assert api.put(other, "/api/me/objects/mine").status_code == 201
    assert sorted(ManagedResource.objects.values_list("path", flat=True)) == ["0", "1", "mine"]
    assert len(stored.names()) == Resource.objects.count() == 3


@in_memory
def test_asking_for_a_hash_and_answering_are_counted_apart(
    database: str, bucket: Bucket, stored: Stored, rates: Any
) -> None:
    rates(probe="1/day", proof="1/day")
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/"
    api.put(client, f"{url}objects/x", b"content")
    asked = client.post(f"{url}put-requests/", ASK, format="json")
    assert asked.status_code == 201
    assert told_to_wait(client.post(f"{url}put-requests/", ASK, format="json"))
    assert PutRequest.objects.count() == 1
    assert client.post(asked["Location"], {"proof": "0" * 96}, format="json").status_code == 409
    assert told_to_wait(client.post(asked["Location"], {"proof": "0" * 96}, format="json"))
    assert [managed.path for managed in ManagedResource.objects.all()] == ["x"]


@in_memory
def test_without_a_rate_nobody_waits(database: str, bucket: Bucket, stored: Stored, rates: Any) -> None:
    rates()
    client = api.client(api.administrator())
    assert {api.put(client, "/api/me/objects/x").status_code for _ in range(5)} == {201, 200}


@pytest.mark.parametrize("value", ["x" * 8193, "x" * 30_000], ids=len)
def test_a_header_that_is_too_long_is_refused(site: servers.Site, bucket: Bucket, value: str) -> None:
    answer = send(site.url, head("GET", site.url, "/api/buckets/", f"X-Long: {value}"))
    assert answer.status in (400, 431)
    answer = send(site.url, head("GET", site.url, "/api/buckets/", f"X-Long: {value[:8000]}"))
    assert answer.status == 200


@in_memory
def test_a_header_that_the_server_let_through_is_a_problem_too(database: str, bucket: Bucket, stored: Stored) -> None:
    client = api.client(api.administrator())
    answer = api.put(client, "/api/me/objects/x", HTTP_X_LONG="x" * 8193)
    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (431, "header-too-large", 8192)
    assert not ManagedResource.objects.exists()
    assert stored.names() == set()


@pytest.mark.parametrize("asked", ["limit=0", "limit=1001", "limit=x", "limit=-1"])
def test_a_page_of_too_many_is_refused(database: str, bucket: Bucket, asked: str) -> None:
    client = api.client(api.administrator())
    for url in ("/api/buckets/", f"/api/buckets/{bucket.pk}/objects/"):
        answer = client.get(f"{url}?{asked}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
        assert "limit" in answer.json()["errors"]


def test_json_has_at_most_a_megabyte(database: str, bucket: Bucket) -> None:
    client = api.client(api.administrator())
    # Django has a limit of its own, above which it answers by a page.
    for length in (MIB, 4 * MIB):
        answer = client.post("/api/buckets/", {"name": "x" * length}, format="json")
        assert (answer.status_code, answer.json()["code"]) == (413, "content-too-large")
    assert list(Bucket.objects.all()) == [bucket]


@in_memory
def test_a_path_has_at_most_1024_bytes(database: str, bucket: Bucket, stored: Stored) -> None:
    client = api.client(api.administrator())
    assert api.put(client, "/api/me/objects/" + "é" * 512).status_code == 201
    answer = api.put(client, "/api/me/objects/" + "é" * 512 + "x")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-path")
    assert ManagedResource.objects.count() == len(stored.names()) == 1
