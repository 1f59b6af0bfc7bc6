"""How an object's bytes leave over HTTP without a browser ever taking them for a page of this site."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from django_blobstore.blob_file import BlobFile
from django_blobstore.errors import ContentDamaged
from django_blobstore.models import ManagedResource
from django_blobstore.offload import read_ahead
from django_blobstore.resource_storage import BLOCK_SIZE
from django_blobstore.signals import object_served, tell_now

UNKNOWN_TYPE = "application/octet-stream"

# Nothing here can run a script. SVG, PDF and XML can.
_SHOWN_FAMILIES = ("audio/", "video/")
_SHOWN_TYPES = {
    "image/apng",
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/plain",
}
# Some clients undo a percent encoding that nobody made, or take a backslash for what it stands before.
_PLAIN_NAME = re.compile(r"[ !#$&-\[\]-~]+")
# What a page of this site may load as a script, whatever else is said of it; and as what it is sent instead.
_SCRIPTS = re.compile(
    r"(?:application/(?:x-)?|text/(?:x-)?)(?:ecma|java)script|text/(?:jscript|livescript|javascript1\.[0-5])"
)
_TEXT = "text/plain"
# In bytes, as most file systems have it, and what no ending worth keeping is longer than.
_LONGEST_NAME = 255
_LONGEST_ENDING = 32
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110, 5.6.2
MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(\s*;\s*{_TOKEN}=({_TOKEN}|"[ !#-\[\]-~]*"))*')


class Blocks:
    """Blocks of an open file, as the content of a `StreamingHttpResponse`, which closes the file."""

    def __init__(self, file: BlobFile, blocks: Iterator[bytes]) -> None:
        self._file = file
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        self._file.close()


class AsyncBlocks:
    """The same under ASGI, where each block is read in a thread while the one before is sent."""

    def __init__(self, file: BlobFile, blocks: Iterator[bytes], length: int) -> None:
        self._file = file
        self._blocks = blocks
        self._length = length

    def __aiter__(self) -> AsyncIterator[bytes]:
        return read_ahead(self._blocks, self._length)

    def close(self) -> None:
        self._file.close()


class Part(NamedTuple):
    """Some of what an open file has: `length` bytes in `blocks`."""

    blocks: Iterator[bytes]
    length: int


def body(request: HttpRequest, file: BlobFile, part: Part | None = None) -> Blocks | AsyncBlocks:
    """Return what a `StreamingHttpResponse` to `request` sends: `part` of `file`, or by default all of it.

    Django reads the whole content into memory if the iterator is not of the server's kind, so it is chosen here. Raises
    `ContentDamaged` if not even the first block can be read, or if content marked as damaged still is.
    """
    if file.managed.resource.damaged_at:
        deque(file.chunks(BLOCK_SIZE), maxlen=0)  # to read it all is to check it
    blocks, length = part or Part(file.chunks(BLOCK_SIZE), file.size)
    started = _started(file, blocks)
    tell_now(object_served, ManagedResource, managed=file.managed, request=request)
    return AsyncBlocks(file, started, length) if isinstance(request, ASGIRequest) else Blocks(file, started)


def require_sound_parts(managed: ManagedResource) -> None:
    """Raise `ContentDamaged` if the content is marked so: of a part nobody can tell whether its bytes are right."""
    if managed.resource.damaged_at:
        reason = "it is marked so, and a part of it cannot be checked as the whole is"
        raise ContentDamaged(managed.resource.sha384, managed.path, reason)


def headers(managed: ManagedResource, *, inline: bool = False) -> dict[str, str]:
    """Return the headers without which the bytes of `managed` must not be sent.

    They make it a download. With `inline`, raster images, audio, video and plain text may be shown instead.
    """
    content_type = _harmless(managed.content_type)
    filename = _fitting(managed.path.rpartition("/")[2])
    kind = "inline" if inline and can_be_shown(managed.content_type) else "attachment"
    return {
        "Content-Type": content_type,
        "Content-Disposition": _disposition(kind, filename),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def _harmless(content_type: str) -> str:
    """Return the type to send content as, which with nosniff no browser takes for a script."""
    if not is_media_type(content_type):
        return UNKNOWN_TYPE
    return _TEXT if _SCRIPTS.fullmatch(_essence(content_type)) else content_type


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_media_type(text: str) -> bool:
    """Whether `text` can stand in a Content-Type header."""
    return MEDIA_TYPE.fullmatch(text) is not None


def can_be_shown(content_type: str) -> bool:
    """Whether a browser may show content of this type without running any of it."""
    essence = _essence(content_type)
    return is_media_type(content_type) and (essence in _SHOWN_TYPES or essence.startswith(_SHOWN_FAMILIES))


def _started(file: BlobFile, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Return `blocks` of `file` with the first one read, so that missing bytes are an error and no torn answer."""
    try:
        return chain([next(blocks, b"")], blocks)
    except BaseException:
        file.close()
        raise


def _fitting(filename: str) -> str:
    """Return `filename`, or what of it fits in a directory, with its ending.

    No client can keep more, and proxies refuse answers whose headers are too long: in one a name takes up to four times
    its bytes.
    """
    encoded = filename.encode()
    if len(encoded) <= _LONGEST_NAME:
        return filename
    ending = PurePosixPath(filename).suffix.encode()
    if len(ending) > _LONGEST_ENDING:
        ending = b""
    return (encoded[: _LONGEST_NAME - len(ending)] + ending).decode(errors="ignore")


def _disposition(kind: str, filename: str) -> str:
    """Return the value of Content-Disposition (RFC 6266): by a name every client reads the same, or by two."""
    if _PLAIN_NAME.fullmatch(filename):
        return f'{kind}; filename="{filename}"'
    plain = re.sub(r"[^\w .,()+-]", "_", filename, flags=re.ASCII)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
