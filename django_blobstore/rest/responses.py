"""Bytes out: an object as the answer to GET and HEAD, whole or in part, without ever being whole in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import http_date

from django_blobstore import serving
from django_blobstore.blob_file import BlobFile
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.resource_storage import BLOCK_SIZE
from django_blobstore.rest.handover import handed_over
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.ranges import Span, requested_span


def entity_tag(managed: ManagedResource) -> str:
    """Return the strong validator of the content: equal exactly if every byte is."""
    return f'"{managed.resource.sha384}"'


def blob_response(request: HttpRequest, store: ManagedStorage, managed: ManagedResource) -> HttpResponseBase:
    """Return the bytes of `managed` that `request` asks for, who else has them, or that it has them already (304).

    The first block is read before anything is sent, so that missing or damaged content is still an error the client
    sees; one found later breaks the connection. Raises `Problem` for a range or condition that cannot be met, and what
    `ManagedStorage.open` raises.
    """
    headers = _headers(managed)
    if settled := _by_condition(request, managed, headers):
        return settled
    span = _span(request, managed)
    if elsewhere := handed_over(request, managed, headers, span):
        return elsewhere
    total = managed.resource.length
    if span:
        headers["Content-Range"] = span.content_range(total)
    part = span or Span(0, total)
    headers["Content-Length"] = str(part.length)
    status = 206 if span else 200
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    # Ranges and lengths are of these very bytes, so GZipMiddleware and its like must leave them alone.
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    file = store.open(managed)
    content = serving.body(request, file, _blocks(file, part))
    return StreamingHttpResponse(content, status=status, headers=headers)


def _headers(managed: ManagedResource) -> dict[str, str]:
    return serving.headers(managed, inline=True) | {
        "ETag": entity_tag(managed),
        "Last-Modified": http_date(_modified(managed)),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache, no-transform",
        "X-Content-SHA384": managed.resource.sha384,
    }


def _modified(managed: ManagedResource) -> int:
    return math.floor(managed.modified_at.timestamp())


def _by_condition(
    request: HttpRequest, managed: ManagedResource, headers: dict[str, str]
) -> HttpResponseNotModified | None:
    """Return a 304 if the client has the content already; raise a 412 if it asked for other content only."""
    verdict = get_conditional_response(request, entity_tag(managed), _modified(managed))
    if verdict is None:
        return None
    if verdict.status_code == 412:
        raise Problem(412, "precondition-failed", "The object is not the one that the request names.")
    kept = ("ETag", "Last-Modified", "Cache-Control")
    return HttpResponseNotModified(headers={name: headers[name] for name in kept})


def _span(request: HttpRequest, managed: ManagedResource) -> Span | None:
    if request.method != "GET" or "Range" not in request.headers:
        return None
    # If-Range means: the part if nothing changed, else the whole. Both validators must be equal to the letter.
    unchanged = (entity_tag(managed), http_date(_modified(managed)))
    if request.headers.get("If-Range", unchanged[0]) not in unchanged:
        return None
    return requested_span(request.headers["Range"], managed.resource.length)


def _blocks(file: BlobFile, part: Span) -> Iterator[bytes]:
    """Return the blocks of `part`, with the first one read already."""
    try:
        file.seek(part.start)
        first = file.read(min(BLOCK_SIZE, part.length))
    except BaseException:
        file.close()
        raise
    return _with_rest(file, first, part.length - len(first))


def _with_rest(file: BlobFile, block: bytes, left: int) -> Iterator[bytes]:
    with file:
        while block:
            yield block
            block = file.read(min(BLOCK_SIZE, left))
            left -= len(block)
