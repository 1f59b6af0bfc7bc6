"""What the headers of a PUT say of its body, and which requests need no server to be told apart."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory

from django_blobstore.errors import InvalidPath
from django_blobstore.rest.body import arriving_content
from django_blobstore.rest.paths import object_path
from django_blobstore.rest.problems import Problem


def request(content: bytes = b"content", **headers: Any) -> WSGIRequest:
    return RequestFactory().generic("PUT", "/x", content, "", headers=headers)


def digest(algorithm: str, content: bytes = b"content") -> str:
    return base64.b64encode(hashlib.new(algorithm.replace("-", ""), content).digest()).decode()


def hex_digest(algorithm: str, content: bytes = b"content") -> str:
    return hashlib.new(algorithm, content).hexdigest()


A, B = digest("sha-256"), digest("sha-512")


@pytest.mark.parametrize(
    ("header", "algorithms"),
    [
        ("", []),
        (f"sha-256=:{A}:", ["sha256"]),
        (f"sha-256=:{A}:,sha-512=:{B}:", ["sha256", "sha512"]),
        (f" sha-512=:{B}: \t,\t sha-256=:{A}:;q=1;x ", ["sha256", "sha512"]),
        (f'sha-256=:{A}:;a="b,:c\\""', ["sha256"]),
        (f"sha-256=:{digest('sha-256', b'other')}:, sha-256=:{A}:", ["sha256"]),
        ("md5=:AAAA:, unixsum=::", []),
        ("*x.y_z-1=:AAAA:", []),
    ],
)
def test_known_digests_are_taken_and_unknown_ones_ignored(header: str, algorithms: list[str]) -> None:
    expected = {algorithm: hex_digest(algorithm) for algorithm in algorithms}
    for name in ("Repr-Digest", "Content-Digest"):
        assert dict(arriving_content(request(**{name: header}), "x").digests) == expected


@pytest.mark.parametrize(
    "header",
    [
        f"sha-256={A}",
        f"sha-256=:{A}",
        f"sha-256=:{A[:-4]}:",
        f"sha-256=:{A[:-1]}:",
        f"sha-256=:{A}: sha-512=:{B}:",
        f"sha-256=:{A}:,",
        f",sha-256=:{A}:",
        f"sha-256 =:{A}:",
        f"SHA-256=:{A}:",
        "sha-256",
        "sha-256=1",
        "sha-256=::",
        f"sha-256=:{hex_digest('sha256')}:",
        "=:AAAA:",
        "md5=AAAA",
    ],
)
def test_digests_that_are_not_well_formed_are_refused(header: str) -> None:
    for name in ("Repr-Digest", "Content-Digest"):
        with pytest.raises(Problem) as refused:
            arriving_content(request(**{name: header}), "x")
        assert (refused.value.status, refused.value.code) == (400, "invalid-digest")


def test_every_digest_given_is_expected() -> None:
    headers = {
        "Repr-Digest": f"sha-256=:{A}:",
        "Content-Digest": f"sha-256=:{A}:, sha-512=:{B}:",
        "X-Content-SHA384": hex_digest("sha384").upper(),
    }
    expected = {name: hex_digest(name) for name in ("sha256", "sha384", "sha512")}
    assert dict(arriving_content(request(**headers), "x").digests) == expected


@pytest.mark.parametrize("length", ["-1", "+7", "7.0", " 7", "7_0", "\u0667", "7,7"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    broken = request()
    broken.META["CONTENT_LENGTH"] = length
    with pytest.raises(Problem) as refused:
        arriving_content(broken, "x")
    assert (refused.value.status, refused.value.code) == (400, "invalid-length")


def test_a_chunked_body_whose_end_the_server_does_not_tell_needs_a_length() -> None:
    chunked = request(**{"Transfer-Encoding": "chunked"})
    with pytest.raises(Problem) as refused:
        arriving_content(chunked, "x")
    assert (refused.value.status, refused.value.code) == (400, "invalid-length")  # it has a Content-Length, too
    del chunked.META["CONTENT_LENGTH"]
    with pytest.raises(Problem) as refused:
        arriving_content(chunked, "x")
    assert (refused.value.status, refused.value.code) == (411, "length-required")
    chunked.META["wsgi.input_terminated"] = True
    assert arriving_content(chunked, "x").stream.read(7) == b"content"


def test_a_path_is_told_from_one_that_is_not_utf8_by_what_the_client_sent() -> None:
    """Django writes "%FF" for a byte that is not UTF-8, which is also what "%25FF" stands for."""
    for variable in ("RAW_URI", "REQUEST_URI"):
        for raw, path in [("/x/%25FF?a=%FF", "%FF"), ("/x/%FFa", None), ("/x/%25FF/%C3", None)]:
            sent = request()
            sent.META[variable] = raw
            if path:
                assert object_path(sent, path) == path
            else:
                with pytest.raises(InvalidPath):
                    object_path(sent, "%FF")
    with pytest.raises(InvalidPath):
        object_path(request(), "%FF")
    assert object_path(request(), "%41%7f100%") == "%41%7f100%"
