"""Bytes in: the raw body of a PUT with what its headers say of it, under WSGI and ASGI, and small JSON bodies."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, JSONParser

from django_blobstore import serving
from django_blobstore.descriptions import MAX_TYPE_LENGTH
from django_blobstore.digests import Readable, clean_hash
from django_blobstore.rest.digest_fields import announced_digests
from django_blobstore.rest.problems import Problem

UNKNOWN_LENGTH = -1
JSON_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class ArrivingContent:
    """The body of a PUT: `length` bytes, or all of `stream` if negative, with the `digests` they must have, in hex."""

    stream: Readable
    length: int
    digests: Mapping[str, str]
    content_type: str


def arriving_content(request: HttpRequest, path: str) -> ArrivingContent:
    """Return the body of `request` unread. Raises `Problem` and `InvalidHash` for headers that cannot be honoured."""
    _refuse_parts_and_encodings(request)
    stream, length = _stream(request)
    content_type = kept_content_type(request.META.get("CONTENT_TYPE") or "", path)
    return ArrivingContent(BodyReader(stream), length, _digests(request), content_type)


def unannounced_body(request: HttpRequest) -> BodyReader | None:
    """Return the body of `request` if nothing but its end tells how long it is; otherwise None.

    Raises a 411 `Problem` if the server does not tell the end.
    """
    is_open = "Transfer-Encoding" in request.headers or _is_past_http_1(request)
    return None if request.META.get("CONTENT_LENGTH") or not is_open else BodyReader(_stream(request)[0])


def kept_content_type(given: str, path: str) -> str:
    """Return the media type `given`, or else the one that the ending of `path` tells, or "" if none does."""
    if len(given) <= MAX_TYPE_LENGTH and serving.is_media_type(given):
        return given
    guessed, encoding = mimetypes.guess_type(path)
    return "" if encoding else guessed or ""


class HasRead(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyReader:
    """Reads the body in full blocks and tells a client that went away from a storage that fails."""

    def __init__(self, stream: HasRead) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:  # each server has its own for a broken chunk
            detail = "The body broke off or is not chunked as it says; nothing was stored."
            raise Problem(400, "incomplete-body", detail) from error


class SmallJSONParser(BaseParser):
    """Parses a JSON body of at most 1 MiB.

    It is no `JSONParser`: of one, REST framework takes the whole body into memory first.
    """

    media_type = JSONParser.media_type
    renderer_class = JSONParser.renderer_class

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        document = stream.read(JSON_LIMIT + 1)
        if len(document) > JSON_LIMIT:
            detail = f"A JSON body has at most {JSON_LIMIT} bytes."
            raise Problem(413, "content-too-large", detail, limit=JSON_LIMIT)
        try:
            return JSONParser().parse(io.BytesIO(document), media_type, parser_context)
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error


def _refuse_parts_and_encodings(request: HttpRequest) -> None:
    if "Content-Range" in request.headers:
        detail = "A part of an object cannot be put; send the whole content without Content-Range."
        raise Problem(400, "content-range-refused", detail)
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        detail = f"Content is stored as it is sent; send it without Content-Encoding {encoding!r}."
        raise Problem(415, "content-encoding-refused", detail, headers={"Accept-Encoding": "identity"})


def _stream(request: HttpRequest) -> tuple[HasRead, int]:
    """Return where the body is read and its length, negative if only its end tells."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    chunked = "Transfer-Encoding" in request.headers
    if chunked and declared:
        # RFC 9112, 6.3. Some servers refuse it, others read the chunks; one between may have gone by the length.
        detail = "Send Content-Length or Transfer-Encoding, not both: they may tell two servers two lengths."
        headers = {"Connection": "close"} if isinstance(request, ASGIRequest) else {}  # WSGI leaves that to the server
        raise Problem(400, "invalid-length", detail, headers=headers)
    if isinstance(request, ASGIRequest):
        # Django has the body on disk by now.
        if chunked or (not declared and _is_past_http_1(request)):
            return request, UNKNOWN_LENGTH
    elif chunked and request.META.get("wsgi.input_terminated"):
        # Django's own reader would find nothing: it goes by Content-Length alone.
        return request.META["wsgi.input"], UNKNOWN_LENGTH
    if chunked or not declared:
        detail = "Say the length of the body in Content-Length."
        raise Problem(411, "length-required", detail)
    if not (declared.isascii() and declared.isdigit()):
        raise Problem(400, "invalid-length", f"Content-Length {declared!r} is not a number.")
    return request, int(declared)


def _is_past_http_1(request: HttpRequest) -> bool:
    """Whether a body needs no announcement: it ends with the stream that it has to itself."""
    return isinstance(request, ASGIRequest) and not request.scope.get("http_version", "1.1").startswith("1")


def _digests(request: HttpRequest) -> dict[str, str]:
    sha384 = request.headers.get("X-Content-SHA384")
    digests = announced_digests(request)
    return digests if sha384 is None else digests | {"sha384": clean_hash(sha384)}
