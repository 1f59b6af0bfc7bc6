"""Many clients at once over HTTP: exactly one of them gets what only one can have."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import httpx
import pytest

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from django_blobstore.proof import RequestResponse, answer
from tests.invariants import assert_settled
from tests.rest import api
from tests.servers import Site
from tests.stored import Stored
from tests.streams import content_of, sha384

# Threads that share a process, as it is deployed; behind ASGI only the threads would be others.
pytestmark = pytest.mark.parametrize("server", ["gunicorn"])

CREATORS = 32
ANSWERS = 64


def at_once(site: Site, requests: list[Callable[[httpx.Client], httpx.Response]]) -> list[httpx.Response]:
    """Send all `requests` at the same time, each on a connection of its own."""
    barrier = Barrier(len(requests))

    def send(request: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
        with api.remote(site) as client:
            barrier.wait(120)
            return request(client)

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(send, requests))


def put(content: bytes, url: str, condition: dict[str, str], client: httpx.Client) -> httpx.Response:
    return client.put(url, content=content, headers=condition)


@pytest.mark.parametrize("length", [100, 1_500_000])
def test_one_of_many_simultaneous_creations_succeeds(site: Site, objects: str, stored: Stored, length: int) -> None:
    contents = [content_of(length, number) for number in range(CREATORS)]
    puts = [partial(put, content, f"{objects}x", {"If-None-Match": "*"}) for content in contents]
    answers = at_once(site, puts)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 412: CREATORS - 1}
    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 201]
    assert Resource.objects.get().sha384 == sha384(contents[winner])
    assert_settled(stored)


def test_one_of_many_simultaneous_replacements_of_what_was_seen_succeeds(
    site: Site, http: httpx.Client, objects: str, stored: Stored
) -> None:
    tag = http.put(f"{objects}x", content=b"seen").headers["etag"]
    puts = [partial(put, content_of(50, number), f"{objects}x", {"If-Match": tag}) for number in range(CREATORS)]
    answers = at_once(site, puts)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: CREATORS - 1}
    assert_settled(stored)


def test_one_of_many_simultaneous_answers_to_a_put_request_succeeds(
    site: Site, http: httpx.Client, bucket: Bucket, stored: Stored
) -> None:
    content = content_of(5000)
    ManagedStorage().put(Namespace("elsewhere"), "original", content)
    asked = http.post(f"buckets/{bucket.pk}/put-requests/", json={"path": "copy", "sha384": sha384(content)}).json()
    proof = {"proof": proof_of(content, asked)}
    answers = at_once(site, [lambda client: client.post(f"put-requests/{asked['request_id']}/", json=proof)] * ANSWERS)
    counted = Counter(answer.status_code for answer in answers)
    assert (counted.pop(201), counted.keys()) == (1, {410})
    assert sorted(ManagedResource.objects.values_list("path", flat=True)) == ["copy", "original"]
    assert Resource.objects.get().reference_count == 2
    assert_settled(stored)


def proof_of(content: bytes, asked: dict[str, Any]) -> str:
    """Return what a holder of `content` answers to the put request `asked`."""
    challenge = RequestResponse(
        request_id=asked["request_id"],
        range_start=asked["range_start"],
        range_length=asked["range_length"],
        nonce=base64.b64decode(asked["nonce"]),
        ranges=tuple((start, length) for start, length in asked["ranges"]),
        algorithm=asked["algorithm"],
    )
    return answer(content, challenge, sha384(content)).sha384
