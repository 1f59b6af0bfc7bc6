"""Several ranges of one object: which are joined, which refused, and how they travel."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from django_blobstore.models import Bucket, Resource
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.ranges import CLOSE, MOST_PARTS, Span, requested_spans
from tests.rest import api
from tests.servers import Site
from tests.stored import Stored
from tests.streams import MIB, content_of

TOTAL = 1_000_000


def parts_of(got: Any) -> list[tuple[str, str, bytes]]:
    """Return the type, the range and the bytes of each part of a multipart answer."""
    head = f"Content-Type: {got.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + got.content, policy=email.policy.HTTP)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    parts = [part for part in message.iter_parts() if isinstance(part, EmailMessage)]
    return [(part["Content-Type"], part["Content-Range"], part.get_payload(decode=True)) for part in parts]


def ranges(*pairs: tuple[int, int]) -> str:
    return "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs)


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-9,1000-1009", [(0, 10), (1000, 10)]),
        ("bytes=1000-1009,0-9", [(1000, 10), (0, 10)]),
        ("bytes=0-9,5-20", [(0, 21)]),
        ("bytes=0-99,10-19", [(0, 100)]),
        ("bytes=0-9,0-9", [(0, 10)]),
        (f"bytes=0-9,{10 + CLOSE}-{20 + CLOSE}", [(0, 21 + CLOSE)]),
        (f"bytes=0-9,{11 + CLOSE}-{20 + CLOSE}", [(0, 10), (11 + CLOSE, 10)]),
        ("bytes=5000-5009,0-9,5005-5020", [(5000, 21), (0, 10)]),
        ("bytes=-10,0-9", [(TOTAL - 10, 10), (0, 10)]),
        (f"bytes=0-9,{TOTAL}-", [(0, 10)]),
        ("bytes=0-9,-0", [(0, 10)]),
        ("bytes= 0-9 ,\t1000-1009 ,", [(0, 10), (1000, 10)]),
        (f"bytes=0-{2**64 - 1}", [(0, TOTAL)]),
        ("bytes=0-9,20-10", []),
        ("bytes=0-9,x", []),
        ("bytes=0-9,1 0-20", []),
        ("bytes=0-9;1000-1009", []),
        ("bytes=\u0661-9", []),
        ("bytes=" + "9" * 5000 + "-", []),
        ("", []),
    ],
)
def test_ranges_are_joined_where_they_overlap_or_nearly_touch(header: str, spans: list[tuple[int, int]]) -> None:
    assert requested_spans(header, TOTAL) == [Span(*span) for span in spans]


def test_more_parts_than_sixteen_are_the_whole() -> None:
    apart = [(start, start) for start in range(0, TOTAL, 10_000)]
    assert len(requested_spans(ranges(*apart[:MOST_PARTS]), TOTAL)) == MOST_PARTS
    assert requested_spans(ranges(*apart[: MOST_PARTS + 1]), TOTAL) == []
    assert requested_spans(ranges(*[(0, 0)] * 10_000), TOTAL) == [Span(0, 1)]


@pytest.mark.parametrize("header", [f"bytes={TOTAL}-", "bytes=-0,-0", f"bytes={TOTAL}-{TOTAL + 5},-0"])
def test_ranges_of_which_none_has_a_byte_are_not_satisfiable(header: str) -> None:
    with pytest.raises(Problem) as refused:
        requested_spans(header, TOTAL)
    assert (refused.value.status, refused.value.headers["Content-Range"]) == (416, f"bytes */{TOTAL}")


@pytest.mark.parametrize("header", ["bytes=-1", "bytes=-5", "bytes=0-,-1", "bytes=-0,-1"])
def test_the_last_bytes_of_nothing_are_all_of_it(header: str) -> None:
    # "When a selected representation has zero length, the only satisfiable form of range-spec in a GET request is a
    # suffix-range with a non-zero suffix-length" (RFC 9110, 14.1.2). nginx and Apache send all of it, too.
    assert requested_spans(header, 0) == []


@pytest.mark.parametrize("header", ["bytes=-0", "bytes=0-", "bytes=0-0"])
def test_other_ranges_of_nothing_are_not_satisfiable(header: str) -> None:
    with pytest.raises(Problem) as refused:
        requested_spans(header, 0)
    assert (refused.value.status, refused.value.headers["Content-Range"]) == (416, "bytes */0")


@given(
    st.integers(1, 3000),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 1500)), min_size=1, max_size=12),
)
def test_whatever_is_asked_for_and_there_is_in_one_part_and_nothing_is_twice(
    total: int, asked: list[tuple[int, int]]
) -> None:
    wanted = {byte for start, more in asked for byte in range(start, min(start + more + 1, total))}
    header = ranges(*[(start, start + more) for start, more in asked])
    if not wanted:
        with pytest.raises(Problem):
            requested_spans(header, total)
        return
    spans = requested_spans(header, total)
    sent = [byte for span in spans for byte in range(span.start, span.end)]
    assert len(sent) == len(set(sent))
    assert wanted <= set(sent)
    assert max(sent) < total


def test_several_ranges_are_sent_as_parts_of_the_announced_length(http: httpx.Client, objects: str) -> None:
    content = content_of(5 * MIB + 3)
    total = len(content)
    http.put(f"{objects}x", content=content, headers={"Content-Type": "application/x-mine"})
    for spans in [
        [(0, 0), (1000, 1999)],
        [(3 * MIB, 5 * MIB - 1), (0, 2 * MIB)],
        [(0, 2 * MIB), (2 * MIB + 1000, total - 1)],
        [(at, at + 9) for at in range(0, total, total // 15)],
    ]:
        got = http.get(f"{objects}x", headers={"Range": ranges(*spans)})
        assert got.status_code == 206
        assert got.headers["content-length"] == str(len(got.content))
        assert "content-range" not in got.headers
        assert parts_of(got) == [
            ("application/x-mine", f"bytes {first}-{min(last, total - 1)}/{total}", content[first : last + 1])
            for first, last in spans
        ]


def test_parts_are_as_safe_from_browsers_as_the_whole(http: httpx.Client, objects: str) -> None:
    whole = http.put(f"{objects}x.html", content=bytes(2000)) and http.get(f"{objects}x.html")
    got = http.get(f"{objects}x.html", headers={"Range": "bytes=0-1,1000-1001"})
    same = ["content-disposition", "x-content-type-options", "content-security-policy", "etag", "repr-digest"]
    assert got.status_code == 206
    assert [got.headers[name] for name in same] == [whole.headers[name] for name in same]
    assert got.headers["content-type"].startswith("multipart/byteranges; boundary=")
    assert "content-digest" not in got.headers


def test_boundaries_differ_from_answer_to_answer(http: httpx.Client, objects: str) -> None:
    http.put(f"{objects}x", content=bytes(2000))
    types = {http.get(f"{objects}x", headers={"Range": "bytes=0-1,-1"}).headers["content-type"] for _ in range(5)}
    assert len(types) == 5


def test_several_ranges_joined_into_one_are_sent_as_one(http: httpx.Client, objects: str) -> None:
    http.put(f"{objects}x", content=b"content")
    got = http.get(f"{objects}x", headers={"Range": "bytes=1-2,4-5"})
    assert (got.status_code, got.headers["content-range"], got.content) == (206, "bytes 1-5/7", b"onten")


def test_parts_of_missing_content_are_an_error_and_no_torn_answer(
    http: httpx.Client, objects: str, stored: Stored
) -> None:
    http.put(f"{objects}x", content=content_of(2 * MIB))
    stored.storage.delete(Resource.objects.get().path)
    got = http.get(f"{objects}x", headers={"Range": "bytes=0-1,1000-1001"})
    assert (got.status_code, got.json()["code"]) == (500, "content-damaged")


def test_parts_of_a_big_object_are_sent_within_little_memory(
    http: httpx.Client, objects: str, site: Site, stored: Stored
) -> None:
    http.put(f"{objects}x", content=bytes(96 * MIB))
    http.get(f"{objects}x", headers={"Range": "bytes=0-9,1000-1009"})
    before = memory_of(site)
    half = 48 * MIB
    wanted = {"Range": ranges((half + 1000, 2 * half - 1), (0, half))}
    with http.stream("GET", f"{objects}x", headers=wanted) as got:
        assert sum(map(len, got.iter_raw())) == int(got.headers["content-length"])
        assert memory_of(site) - before < 48 * MIB


def memory_of(site: Site) -> int:
    """Return the resident bytes of the site's processes."""
    parent = psutil.Process(site.process.pid)
    return sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)])


@pytest.mark.parametrize("middleware", ["gzip.GZipMiddleware", "http.ConditionalGetMiddleware"])
def test_middleware_leaves_parts_as_they_are(
    database: str, bucket: Bucket, stored: Stored, settings: Settings, middleware: str
) -> None:
    settings.MIDDLEWARE = [f"django.middleware.{middleware}", *settings.MIDDLEWARE]
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/objects/x.txt"
    api.put(client, url, b"compressible " * 1000)
    got: Any = client.get(url, headers={"Accept-Encoding": "gzip", "Range": "bytes=0-999,5000-5999"})
    content = b"".join(got.streaming_content)
    assert (got.status_code, got["Content-Length"], got.get("Content-Encoding")) == (206, str(len(content)), None)
    assert content.count(b"Content-Range: bytes ") == 2
