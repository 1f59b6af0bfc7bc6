"""Bytes out: an object as the answer to GET and HEAD, whole or in parts, without ever being whole in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.http.response import HttpResponseBase

from django_blobstore import serving
from django_blobstore.blob_file import BlobFile
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.resource_storage import BLOCK_SIZE
from django_blobstore.rest.conditions import entity_tag, has_it_already, last_modified, range_holds
from django_blobstore.rest.content_host import sent_to_content_host
from django_blobstore.rest.digest_fields import is_welcome, written
from django_blobstore.rest.handover import handed_over
from django_blobstore.rest.metadata import metadata_headers
from django_blobstore.rest.multipart import Multipart
from django_blobstore.rest.ranges import Span, requested_spans
from django_blobstore.signals import object_served, tell_now

# Bytes may be kept, but who may read them, and whether a path still has them, is asked each time; unless they are asked
# for by their hash (RFC 8246).
REVALIDATED = "private, no-cache, no-transform"
IMMUTABLE = "private, max-age=31536000, immutable, no-transform"


def blob_response(
    request: HttpRequest, store: ManagedStorage, managed: ManagedResource, *, cache_control: str = REVALIDATED
) -> HttpResponseBase:
    """Return the bytes of `managed` that `request` asks for, who else has them, or that it has them already (304).

    The first block is read before anything is sent, so that missing or damaged content is still an error the client
    sees; one found later breaks the connection. Parts of content marked as damaged are not sent. Raises `Problem` for a
    range or condition that cannot be met, and what `ManagedStorage.open` raises.
    """
    headers = _headers(request, managed) | {"Cache-Control": cache_control}
    if has_it_already(request, managed):
        kept = ("ETag", "Last-Modified", "Cache-Control")
        return HttpResponseNotModified(headers={name: headers[name] for name in kept})
    spans = _spans(request, managed)
    if elsewhere := sent_to_content_host(request, managed):
        return elsewhere
    if elsewhere := handed_over(request, managed, headers, in_part=bool(spans)):
        tell_now(object_served, ManagedResource, managed=managed, request=request)
        return elsewhere
    if request.method == "HEAD":
        return HttpResponse(headers=headers | {"Content-Length": str(managed.resource.length)})
    # Ranges and lengths are of these very bytes, so GZipMiddleware and its like must leave them alone.
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    if spans:
        serving.require_sound_parts(managed)
    file = store.open(managed, start=spans[0].start if spans else 0)
    return _in_parts(request, file, headers, spans) if spans else _whole(request, file, headers)


def _headers(request: HttpRequest, managed: ManagedResource) -> dict[str, str]:
    headers = serving.headers(managed, inline=True) | {
        "ETag": entity_tag(managed),
        "Last-Modified": last_modified(managed),
        "Accept-Ranges": "bytes",
        "X-Content-SHA384": managed.resource.sha384,
    }
    return headers | metadata_headers(managed) | _digest("Repr-Digest", request, managed)


def _digest(header: str, request: HttpRequest, managed: ManagedResource) -> dict[str, str]:
    """Return the `header` that tells the SHA-256 of the whole, unless it is not known or not wanted."""
    sha256 = managed.resource.sha256
    return {header: written("sha-256", sha256)} if sha256 and is_welcome(request, header, "sha-256") else {}


def _spans(request: HttpRequest, managed: ManagedResource) -> list[Span]:
    if request.method != "GET" or "Range" not in request.headers or not range_holds(request, managed):
        return []
    return requested_spans(request.headers["Range"], managed.resource.length)


def _whole(request: HttpRequest, file: BlobFile, headers: dict[str, str]) -> StreamingHttpResponse:
    headers |= {"Content-Length": str(file.size)} | _digest("Content-Digest", request, file.managed)
    return _streamed(request, file, headers, serving.Part(_blocks(file, Span(0, file.size)), file.size))


def _in_parts(
    request: HttpRequest, file: BlobFile, headers: dict[str, str], spans: Sequence[Span]
) -> StreamingHttpResponse:
    if len(spans) == 1:
        headers["Content-Range"] = spans[0].content_range(file.size)
        part = serving.Part(_blocks(file, spans[0]), spans[0].length)
    else:
        multipart = Multipart(spans, file.size, headers["Content-Type"])
        headers["Content-Type"] = multipart.content_type
        part = serving.Part(multipart.blocks(partial(_blocks, file)), multipart.length)
    headers["Content-Length"] = str(part.length)
    return _streamed(request, file, headers, part, status=206)


def _streamed(
    request: HttpRequest, file: BlobFile, headers: dict[str, str], part: serving.Part, *, status: int = 200
) -> StreamingHttpResponse:
    return StreamingHttpResponse(serving.body(request, file, part), status=status, headers=headers)


def _blocks(file: BlobFile, span: Span) -> Iterator[bytes]:
    """Yield the bytes of `span` as the storage gives them; what fits in one block comes whole, and so is checked."""
    file.seek(span.start)
    block = file.read(min(BLOCK_SIZE, span.length))
    while block:
        yield block
        block = file.read1(min(BLOCK_SIZE, span.end - file.tell()))
