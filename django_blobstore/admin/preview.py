"""What of an object's content a page of the admin shows: never anything that a browser could run."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from django_blobstore import serving
from django_blobstore.blob_file import BlobFile
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.resource_storage import BLOCK_SIZE, ResourceStorage

TEXT_BYTES = 64 * 1024
LARGEST_IMAGE = 32 * 1024 * 1024
# Text that people read as it stands. What a browser would render as a page is not shown even as its source.
_TEXTS = {"application/json", "application/x-ndjson", "application/toml", "application/yaml", "application/x-yaml"}
_NOT_SHOWN = {"text/html", "text/xml"}
_ONE_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True)
class Preview:
    """How to show a content: as an "image", "audio", "video" or "text", or not at all ("")."""

    kind: str = ""
    text: str = ""
    is_cut: bool = False

    @classmethod
    def of(cls, managed: ManagedResource) -> Preview:
        resource = managed.resource
        if not resource.is_sound or not resource.length:
            return cls()
        media_type = managed.content_type.partition(";")[0].strip().lower()
        family = media_type.partition("/")[0]
        if serving.can_be_shown(media_type) and family in ("audio", "video"):
            return cls(family)
        if serving.can_be_shown(media_type) and family == "image":
            return cls("image" if resource.length <= LARGEST_IMAGE else "")
        return _text_of(managed) if _is_text(media_type, managed.path) else cls()


def _is_text(media_type: str, path: str) -> bool:
    guessed = media_type or mimetypes.guess_type(path)[0] or ""
    return guessed in _TEXTS or (guessed.startswith("text/") and guessed not in _NOT_SHOWN)


def _text_of(managed: ManagedResource) -> Preview:
    """Return the first `TEXT_BYTES` as text; nothing if they cannot be read, or are none."""
    resource = managed.resource
    try:
        start = ResourceStorage(resource.storage).read_range(resource.path, 0, min(TEXT_BYTES, resource.length))
    except OSError:
        return Preview()
    if b"\0" in start:
        return Preview()
    return Preview("text", start.decode(errors="replace"), resource.length > TEXT_BYTES)


def shown(request: HttpRequest, managed: ManagedResource) -> HttpResponseBase:
    """Return the bytes of `managed` for an image or a player, or the one range of them that is asked for.

    Types that a browser could run are sent as a download. Raises what `ManagedStorage.open` raises.
    """
    length = managed.resource.length
    headers = {**serving.headers(managed, inline=True), "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    asked = _ONE_RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None:
        return _sent(request, ManagedStorage().open(managed), headers, 0, length)
    start, last = int(asked[1]), min(int(asked[2] or length), length - 1)
    if start > last:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{length}"})
    serving.require_sound_parts(managed)
    headers["Content-Range"] = f"bytes {start}-{last}/{length}"
    return _sent(request, ManagedStorage().open(managed), headers, start, last + 1 - start, status=206)


def _sent(
    request: HttpRequest, file: BlobFile, headers: dict[str, str], start: int, length: int, *, status: int = 200
) -> StreamingHttpResponse:
    # Lengths are of these very bytes, so GZipMiddleware and its like must leave them alone.
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    part = serving.Part(_blocks(file, start, length), length)
    headers["Content-Length"] = str(length)
    return StreamingHttpResponse(serving.body(request, file, part), status=status, headers=headers)


def _blocks(file: BlobFile, start: int, length: int) -> Iterator[bytes]:
    file.seek(start)
    while length:
        block = file.read(min(BLOCK_SIZE, length))
        length -= len(block)
        yield block
