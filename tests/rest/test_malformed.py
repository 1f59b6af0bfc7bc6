"""Requests that are no HTTP, or two kinds of it at once: refused with 4xx, by the server or us, and nothing stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, PendingFile
from tests.invariants import assert_empty
from tests.rest.raw_http import head, send
from tests.servers import Site
from tests.stored import Stored

# Headers after those every request has, and the body. None of them may be taken for a whole content.
MALFORMED: dict[str, tuple[list[str], bytes]] = {
    "two lengths that differ": (["Content-Length: 5", "Content-Length: 6"], b"hello!"),
    "two lengths in one header": (["Content-Length: 5, 6"], b"hello!"),
    "a length and chunks": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    "chunks and a length": (["Transfer-Encoding: chunked", "Content-Length: 5"], b"5\r\nhello\r\n0\r\n\r\n"),
    "a negative length": (["Content-Length: -1"], b"hello"),
    "a length with a sign": (["Content-Length: +5"], b"hello"),
    "a length that is no number": (["Content-Length: five"], b"hello"),
    "a length in hex": (["Content-Length: 0x5"], b"hello"),
    "an empty length": (["Content-Length:"], b"hello"),
    "a length in other digits": (["Content-Length: \u00b2"], b"hello"),
    "an endless length": (["Content-Length: " + "9" * 5000], b"hello"),
    "chunks that are not last": (["Transfer-Encoding: chunked, identity"], b"5\r\nhello\r\n0\r\n\r\n"),
    "chunks twice": (["Transfer-Encoding: chunked, chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    "chunks with a control character": (["Transfer-Encoding: \x0bchunked"], b"5\r\nhello\r\n0\r\n\r\n"),
    "a negative chunk": (["Transfer-Encoding: chunked"], b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk with a sign": (["Transfer-Encoding: chunked"], b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk in 0x": (["Transfer-Encoding: chunked"], b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk without a size": (["Transfer-Encoding: chunked"], b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk of too many bytes": (["Transfer-Encoding: chunked"], b"5\r\nhello!!\r\n0\r\n\r\n"),
    "a chunk of endless size": (["Transfer-Encoding: chunked"], b"f" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
    "a header on two lines": (["Content-Length: 5", "X-Folded: a", " b"], b"hello"),
    "a length on two lines": (["Content-Length:", " 5"], b"hello"),
    "a header without a colon": (["Content-Length: 5", "nonsense"], b"hello"),
    "a header without a name": (["Content-Length: 5", ": x"], b"hello"),
    "a space before the colon": (["Content-Length : 5"], b"hello"),
    "a NUL in a header": (["Content-Length: 5", "X-Null: a\0b"], b"hello"),
    "a carriage return in a header": (["Content-Length: 5", "X-Bare: a\rContent-Length: 6"], b"hello"),
    "a header that is too long": (["Content-Length: 5", "X-Long: " + "x" * 300_000], b"hello"),
    "too many headers": (["Content-Length: 5", *(f"X-{number}: {'x' * 200}" for number in range(2000))], b"hello"),
    "no length at all": ([], b""),
}

# What a server takes all the same: of folded lines it may make one (RFC 9112, 5.2), and a head may be long. From whom
# hangs up at once it may have taken it before it notices.
TAKEN = {"uvicorn": ["too many headers"], "uvicorn on h11": ["a header on two lines", "a length on two lines"]}

REQUEST_LINES = {
    "no version": b"PUT /api/me/objects/x\r\n\r\n",
    "an unknown version": b"PUT /api/me/objects/x HTTP/9.9\r\nHost: x\r\n\r\n",
    "a method that is none": b"P(T /api/me/objects/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the path": b"GET /api/me/objects/\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /api/me/objects/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is too long": b"GET /api/me/objects/" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "binary": bytes(range(256)) * 8 + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
}

pytestmark = pytest.mark.parametrize("server", ["gunicorn", "uvicorn", "uvicorn on h11"])


@pytest.fixture
def refusals(server: str) -> set[int]:
    """The statuses of a refusal; uvicorn may also hang up on whom it does not understand or hear any more."""
    return {*range(400, 500), *([0] if "uvicorn" in server else [])}


def test_bodies_of_ambiguous_or_impossible_length_are_refused_and_leave_nothing(
    site: Site, bucket: Bucket, stored: Stored, server: str, refusals: set[int], logged: Callable[[], str]
) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    taken = TAKEN.get(server, [])
    answers = {
        case: send(url, head("PUT", url, "x", *headers) + body, hang_up=True).status
        for case, (headers, body) in MALFORMED.items()
        if case not in taken
    }
    assert {case: status for case, status in answers.items() if status not in refusals} == {}
    assert_nothing_stays(stored)
    for path in taken:
        headers, body = MALFORMED[path]
        assert send(url, head("PUT", url, quote(path), *headers) + body).status == 201
        assert ManagedStorage().get_for_bucket(bucket.pk, path).read() == b"hello"
    assert "Traceback" not in logged()


def test_an_unknown_transfer_coding_is_refused_as_the_rfc_says(
    site: Site, bucket: Bucket, stored: Stored, refusals: set[int]
) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    answer = send(url, head("PUT", url, "x", "Transfer-Encoding: sdch") + b"hello", hang_up=True)
    assert answer.status in {*refusals, 501}  # RFC 9112, 6.1: a server that does not know it SHOULD answer 501
    assert_nothing_stays(stored)


def test_requests_that_are_no_http_are_refused(site: Site, stored: Stored, refusals: set[int]) -> None:
    answers = {case: send(site.url, line, hang_up=True).status for case, line in REQUEST_LINES.items()}
    assert {case: status for case, status in answers.items() if status not in refusals} == {}
    assert_nothing_stays(stored)


def test_a_second_request_cannot_hide_in_the_body_of_a_first(site: Site, bucket: Bucket, stored: Stored) -> None:
    url = f"{site.url}/api/buckets/{bucket.pk}/objects/"
    hidden = head("PUT", url, "hidden", "Content-Length: 6") + b"hidden"
    for headers in (["Content-Length: 5", "Transfer-Encoding: chunked"], ["Transfer-Encoding: xchunked"]):
        answer = send(url, head("PUT", url, "x", *headers) + b"0\r\n\r\n" + hidden)
        assert answer.status in {400, 501}  # 501 is for an unknown coding, and nobody has hung up before the answer
        assert_nothing_stays(stored)


def assert_nothing_stays(stored: Stored) -> None:
    """Fail if anything is stored once the views have ended: uvicorn hangs up first, and lets them end after that."""
    deadline = time.monotonic() + 120
    while PendingFile.objects.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert_empty(stored)
