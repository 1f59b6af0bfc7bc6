"""How digests of content are written in HTTP headers, and which the client wants (RFC 9530)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from django.http import HttpRequest

from django_blobstore.rest.problems import Problem

# The registered algorithms that are not broken, and what hashlib calls them.
_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}

# One member of a dictionary of byte sequences (RFC 8941, 3.2) with its parameters, which mean nothing here.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_PARAMETERS = rf'(?:;[ ]*{_KEY}(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[^\s",;]+))?)*'
_MEMBER = re.compile(rf"({_KEY})=:([A-Za-z0-9+/=]*):{_PARAMETERS}")
_WEIGHT = re.compile(rf"(?:^|,)[ \t]*({_KEY})=(\d|10)(?=[ \t]*(?:[,;]|$))")


def announced_digests(request: HttpRequest) -> dict[str, str]:
    """Return the hashes that the body of `request` must have, in hex by hashlib's names; those unknown are ignored.

    Raises a 400 `Problem` for a header that is malformed, or two that differ.
    """
    digests: dict[str, str] = {}
    for header in ("Repr-Digest", "Content-Digest"):
        for algorithm, value in _parsed(header, request.headers.get(header, "")).items():
            if digests.setdefault(algorithm, value) != value:
                raise Problem(400, "invalid-digest", f"Repr-Digest and Content-Digest differ in {algorithm}.")
    return digests


def is_welcome(request: HttpRequest, header: str, algorithm: str) -> bool:
    """Whether the client lets `header` tell a digest by `algorithm`: of what it wants, it refuses only what has 0."""
    weights = dict(_WEIGHT.findall(request.headers.get(f"Want-{header}", "")))
    return weights.get(algorithm) != "0"


def written(algorithm: str, digest: str) -> str:
    """Return the value of a header that tells one `digest`, given in hex."""
    return f"{algorithm}=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


def _parsed(header: str, text: str) -> dict[str, str]:
    digests = {}
    position = 0
    text = text.strip(" ")
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            raise Problem(400, "invalid-digest", f"{header} is not like 'sha-256=:<base64>:'.")
        if member[1] in _ALGORITHMS:
            digests[_ALGORITHMS[member[1]]] = _hex_of(header, member[1], member[2])
        position = _after_comma(header, text, member.end())
    return digests


def _after_comma(header: str, text: str, position: int) -> int:
    comma = re.compile(r"[ \t]*,[ \t]*(?=.)|$").match(text, position)
    if comma is None:
        raise Problem(400, "invalid-digest", f"{header} has something else than a comma at offset {position}.")
    return comma.end()


def _hex_of(header: str, algorithm: str, encoded: str) -> str:
    size = hashlib.new(_ALGORITHMS[algorithm], usedforsecurity=False).digest_size
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != size:
        raise Problem(400, "invalid-digest", f"{header} has no {size} bytes in base64 for {algorithm}.")
    return digest.hex()
