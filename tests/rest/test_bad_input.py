"""What broken and hostile clients send: each is told what was wrong, and nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import Settings

from django_blobstore.models import Bucket
from tests import servers
from tests.invariants import assert_empty
from tests.rest import api
from tests.rest.raw_http import Answer, chunked, head, send
from tests.stored import Stored
from tests.streams import MIB, content_of

BIG = content_of(3 * MIB)
WRONG_SHA384 = "X-Content-SHA384: " + "0" * 96
WRONG_SHA256 = "Repr-Digest: sha-256=:" + "A" * 43 + "=:"
LIMIT = 10 * MIB

# What is sent after the head of "PUT …/objects/x", and the status and code to come back.
BODIES: dict[str, tuple[list[str], bytes, int, str]] = {
    "no length": ([], b"", 411, "length-required"),
    "wrong SHA-384 of nothing": (["Content-Length: 0", WRONG_SHA384], b"", 422, "hash-mismatch"),
    "wrong SHA-384 of a small content": (["Content-Length: 5", WRONG_SHA384], b"hello", 422, "hash-mismatch"),
    "wrong SHA-256 of a small content": (["Content-Length: 5", WRONG_SHA256], b"hello", 422, "hash-mismatch"),
    "wrong SHA-384 of a big content": ([f"Content-Length: {len(BIG)}", WRONG_SHA384], BIG, 422, "hash-mismatch"),
    "wrong SHA-256 of a big content": ([f"Content-Length: {len(BIG)}", WRONG_SHA256], BIG, 422, "hash-mismatch"),
    "wrong SHA-384 of a chunked content": (
        ["Transfer-Encoding: chunked", WRONG_SHA384],
        chunked(b"hello", BIG),
        422,
        "hash-mismatch",
    ),
    "a SHA-384 that is none": (["Content-Length: 5", "X-Content-SHA384: xyz"], b"hello", 400, "invalid-hash"),
    "an empty SHA-384": (["Content-Length: 5", "X-Content-SHA384:"], b"hello", 400, "invalid-hash"),
    "a digest that is none": (["Content-Length: 5", "Repr-Digest: sha-256=abc"], b"hello", 400, "invalid-digest"),
    "a digest too short": (["Content-Length: 5", "Content-Digest: sha-256=:YQ==:"], b"hello", 400, "invalid-digest"),
    "two digests that differ": (
        ["Content-Length: 5", WRONG_SHA256, "Content-Digest: sha-256=:" + "B" * 43 + "=:"],
        b"hello",
        400,
        "invalid-digest",
    ),
    "a part": (["Content-Length: 5", "Content-Range: bytes 0-4/10"], b"hello", 400, "content-range-refused"),
    "an encoding": (["Content-Length: 5", "Content-Encoding: gzip"], b"hello", 415, "content-encoding-refused"),
    "too much": ([f"Content-Length: {LIMIT + 1}"], bytes(LIMIT + 1), 413, "content-too-large"),
    "too much in chunks": (["Transfer-Encoding: chunked"], chunked(*[BIG] * 4), 413, "content-too-large"),
}

# Bodies that end before they are complete, after which the client says that nothing more will come.
CUT_BODIES: dict[str, tuple[list[str], bytes, str]] = {
    "cut at once": (["Content-Length: 10"], b"", "length-mismatch"),
    "cut in a small content": (["Content-Length: 10"], b"hello", "length-mismatch"),
    "cut in a big content": ([f"Content-Length: {len(BIG)}"], BIG[:-1], "length-mismatch"),
    "lying by megabytes": ([f"Content-Length: {LIMIT}"], BIG, "length-mismatch"),
    "cut before the last chunk": (["Transfer-Encoding: chunked"], chunked(b"hello", end=b""), "incomplete-body"),
    "cut in a chunk": (["Transfer-Encoding: chunked"], b"ffffff\r\n" + BIG, "incomplete-body"),
    "a chunk without a size": (["Transfer-Encoding: chunked"], b"xyz\r\nhello\r\n0\r\n\r\n", "incomplete-body"),
}

BAD_QUERIES = {
    "prefix=a%00": "invalid",
    "after=%00": "invalid",
    "prefix=a%0A": "invalid-path",
    "after=%FF": "invalid-path",
    "prefix=" + "x" * 1025: "invalid-path",
    "delimiter=x": "invalid",
    "limit=0": "invalid",
    "limit=1001": "invalid",
    "limit=x": "invalid",
    "limit=1e9": "invalid",
    "limit=" + "9" * 2000: "invalid",
}

# Paths as they stand in the URL after ".../objects/".
BAD_PATHS = {
    "a parent": "a/%2E%2E/b",
    "a parent, plain": "a/../b",
    "only a parent": "..",
    "dot": "a/./b",
    "empty segment": "a//b",
    "leading slash": "/a",
    "final slash": "a/",
    "encoded slashes to a parent": "a%2F..%2Fb",
    "NUL": "a%00b",
    "newline": "a%0Ab",
    "line break at the end": "a%0A",
    "control character": "a%1Fb",
    "C1 control character": "a%C2%85b",
    "replacement character": "a%EF%BF%BDb",
    "invalid UTF-8": "a%FFb",
    "overlong UTF-8": "a%C0%AFb",
    "surrogate in UTF-8": "a%ED%A0%80b",
    "cut UTF-8": "a%E2%82",
    "1025 bytes": "x" * 1025,
    "1025 bytes in fewer characters": "%C3%A9" * 512 + "x",
}


@pytest.fixture(autouse=True)
def limit(settings: Settings) -> None:
    settings.BLOBSTORE = {"MAX_LENGTH": LIMIT}


def refusal(answer: Answer) -> tuple[int, str]:
    """Return the status and the code, which a HEAD has no room for."""
    is_problem = answer.headers.get("content-type") == "application/problem+json"
    return answer.status, answer.json()["code"] if is_problem and answer.body else ""


def test_bodies_that_are_not_what_they_say_are_refused_and_leave_nothing(
    site: servers.Site, bucket: Bucket, stored: Stored
) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    for case, (headers, body, status, code) in BODIES.items():
        answer = send(url, head("PUT", url, "x", *headers) + body)
        assert (case, *refusal(answer)) == (case, status, code)
        assert_empty(stored)


@pytest.mark.parametrize("server", ["gunicorn"])
def test_bodies_that_are_cut_are_refused_and_leave_nothing(
    site: servers.Site, bucket: Bucket, stored: Stored, logged: Callable[[], str]
) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    for case, (headers, body, code) in CUT_BODIES.items():
        answer = send(url, head("PUT", url, "x", *headers) + body, hang_up=True)
        assert (case, *refusal(answer)) == (case, 400, code)
        assert_empty(stored)
    assert "Traceback" not in logged()


@pytest.mark.parametrize("server", ["uvicorn"])
def test_bodies_that_are_cut_never_reach_an_application_behind_asgi(
    site: servers.Site, bucket: Bucket, stored: Stored, logged: Callable[[], str]
) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    for case, (headers, body, _) in CUT_BODIES.items():
        answer = send(url, head("PUT", url, "x", *headers) + body, hang_up=True)
        assert (case, answer.status) in [(case, 0), (case, 400)]
        assert_empty(stored)
    assert "Traceback" not in logged()


def test_json_in_chunks_is_read_as_any_other(site: servers.Site, bucket: Bucket) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/stat"
    start = head("POST", url, "", "Content-Type: application/json", "Transfer-Encoding: chunked")
    answer = send(url, start + chunked(b'{"paths": ', b'["x"]}'))
    assert (answer.status, [result["path"] for result in answer.json()["results"]]) == (200, ["x"])
    assert refusal(send(url, start + chunked(*[b" " * MIB] * 2))) == (413, "content-too-large")
    assert refusal(send(url, start + chunked(*[b" " * MIB] * 8))) == (413, "content-too-large")
    assert refusal(send(url, start + chunked())) == (400, "parse-error")


def test_paths_that_are_not_clean_are_refused_for_every_verb_and_leave_nothing(
    site: servers.Site, bucket: Bucket, stored: Stored
) -> None:
    for place, (case, path) in product([f"buckets/{bucket.pk}", "me"], BAD_PATHS.items()):
        url = f"{site.url}/api/{place}/objects/"
        put = send(url, head("PUT", url, path, "Content-Length: 5") + b"hello")
        others = [send(url, head(method, url, path)) for method in ("GET", "DELETE", "HEAD")]
        refused = (400, "invalid-path")
        assert (case, *map(refusal, [put, *others])) == (case, refused, refused, refused, (400, ""))
    assert_empty(stored)


def test_query_parameters_that_no_path_can_have_are_refused(site: servers.Site) -> None:
    url = f"{site.url}/api/me/objects/"
    for query, code in BAD_QUERIES.items():
        assert (query, *refusal(send(url, head("GET", url, f"?{query}")))) == (query, 400, code)


def test_buckets_that_are_not_there_or_foreign_are_not_found_and_not_made(site: servers.Site, stored: Stored) -> None:
    foreign = Bucket.objects.create(owner=api.person("owner"))
    api.person("stranger")
    asked = [("root", uuid4()), ("root", "x"), ("root", "%00"), ("stranger", foreign.pk)]
    verbs = [("PUT", "objects/x"), ("GET", "objects/x"), ("DELETE", "objects/x"), ("GET", "objects/")]
    for (user, bucket), (method, path) in product(asked, verbs):
        url = f"{site.url}/api/buckets/{bucket}/"
        answer = send(url, head(method, url, path, "Content-Length: 5", user=user) + b"hello")
        assert (user, bucket, method, *refusal(answer)) == (user, bucket, method, 404, "bucket-not-found")
    assert_empty(stored)
    assert list(Bucket.objects.all()) == [foreign]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "parse-error"),
        (b"\xff", "parse-error"),
        (b"[" * 200_000, "parse-error"),
        (b"[]", "invalid"),
        (b'{"path": 1}', "invalid"),
        (b'{"path": "a", "sha384": 1}', "invalid"),
        (b'{"path": "\\ud800", "sha384": ""}', "invalid-path"),
        (b'{"path": "a", "sha384": "\\ud800"}', "invalid-hash"),
        (b'{"path": "' + b"a" * MIB + b'"}', "content-too-large"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_json_that_is_not_what_it_should_be_is_refused(database: str, body: bytes, code: str) -> None:
    client = api.client(api.administrator())
    answer: Any = client.generic("POST", "/api/me/put-requests/", body, "application/json")
    assert answer["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (413 if code == "content-too-large" else 400, code)
