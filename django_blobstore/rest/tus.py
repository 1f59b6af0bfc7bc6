"""Resumable upload as tus 1.0.0 has it: what the headers of each request say, and which its answer has."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import uuid
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.http import http_date
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer

from django_blobstore import resumable
from django_blobstore.catalog import Condition
from django_blobstore.conf import conf
from django_blobstore.digests import Readable
from django_blobstore.errors import LengthMismatch, UploadNotFound
from django_blobstore.models import ResumableUpload
from django_blobstore.namespaces import check_path
from django_blobstore.rest import limits
from django_blobstore.rest.body import UNKNOWN_LENGTH, arriving_content, kept_content_type
from django_blobstore.rest.conditions import asked_now_and_then
from django_blobstore.rest.metadata import checked_metadata
from django_blobstore.rest.paths import absolute_url, object_url
from django_blobstore.rest.permissions import Place
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.quotas import require_room
from django_blobstore.rest.viewsets import JSONWhateverIsAccepted, StoreViewSet

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
ALGORITHMS = ("sha1", "sha256", "sha384")
MEDIA_TYPE = "application/offset+octet-stream"

_ID = re.compile("[A-Za-z0-9_-]{1,22}")
_NUMBER = re.compile("[0-9]{1,18}")
_FINAL = "final;"
# How a key begins that names metadata of the object.
_META = "meta-"


class Arriving(NamedTuple):
    """The bytes of one request: `length` of them, unless negative, with the `digest` they must have."""

    stream: Readable
    length: int
    digest: tuple[str, str] | None = None


class UploadViewSet(StoreViewSet):
    """Resumable uploads, which nobody but whoever began them can see."""

    serializer_class = Serializer  # of nothing: all is said in headers
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONWhateverIsAccepted
    throttle_scopes = {"create": limits.UPLOAD}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # Before anything looks at the method, the check against forged requests too.
        request.method = request.headers.get("X-HTTP-Method-Override", request.method or "").upper()
        return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        is_ours = self.action and request.method != "OPTIONS"
        if is_ours and request.headers.get("Tus-Resumable") != VERSION:
            detail = f"Say Tus-Resumable: {VERSION}; no other version is spoken here."
            raise Problem(412, "unknown-tus-version", detail, headers={"Tus-Version": VERSION})

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers["Tus-Resumable"] = VERSION
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def discover(self, request: Request, **kwargs: str) -> Response:
        headers = {"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Checksum-Algorithm": ",".join(ALGORITHMS)}
        if conf.MAX_LENGTH is not None:
            headers["Tus-Max-Size"] = str(conf.MAX_LENGTH)
        return Response(status=204, headers=headers)

    def create(self, request: Request) -> Response:
        concatenation = request.headers.get("Upload-Concat", "")
        if concatenation.startswith(_FINAL):
            upload = self._concatenate(concatenation.removeprefix(_FINAL))
        elif concatenation in ("", "partial"):
            upload = self._begin(is_partial=bool(concatenation))
        else:
            raise _malformed("Upload-Concat", "it is 'partial', or 'final;' and the URLs of partial uploads")
        location = absolute_url(request._request, "upload", upload=upload.pk)
        return Response(status=201, headers={"Location": location, **self._headers(upload)})

    def show(self, request: Request, upload: str) -> Response:
        found = self._find(upload)
        length = {"Upload-Defer-Length": "1"} if found.length is None else {"Upload-Length": str(found.length)}
        return Response(status=200, headers={**found.said, **length, **self._headers(found)})

    def append(self, request: Request, upload: str) -> Response:
        if not self._brings_bytes:
            raise Problem(415, "unsupported-media-type", f"The bytes of an upload come as {MEDIA_TYPE}.")
        offset = self._number("Upload-Offset")
        if offset is None:
            raise _malformed("Upload-Offset", "it says at which byte this request goes on")
        found = self._find(upload)
        if found.said.get("Upload-Concat", "").startswith(_FINAL):
            raise Problem(403, "upload-is-final", "Nothing can be added to an upload made of others.")
        condition = None if found.partial else self._still_allowed(found)
        return Response(status=204, headers=self._headers(self._append(found, offset, self._arriving(), condition)))

    def destroy(self, request: Request, upload: str) -> Response:
        resumable.end(self._find(upload))
        return Response(status=204)

    def _begin(self, *, is_partial: bool) -> ResumableUpload:
        length = self._length()
        target = {} if is_partial else self._target(UNKNOWN_LENGTH if length is None else length)
        condition = target.pop("condition", None)
        first = self._arriving() if self._brings_bytes else Arriving(io.BytesIO(), 0)
        upload = resumable.begin(self._requester, length=length, said=self._said(), **target)
        return self._append(upload, 0, first, condition) if self._brings_bytes or length == 0 else upload

    def _still_allowed(self, upload: ResumableUpload) -> Condition:
        """Return what the commit asks; the rights may have gone since the upload was begun, and the bucket too."""
        place = Place.of_namespace(self.user, upload.namespace)
        place.require_put(upload.path)
        # What is whole has become the object that is there.
        return place.put_condition() if upload.is_whole else self._condition(place, upload.path)

    def _condition(self, place: Place, path: str) -> Condition:
        return asked_now_and_then(self.request._request, place.put_condition(), place.namespace, path)

    def _append(
        self, upload: ResumableUpload, offset: int, arriving: Arriving, condition: Condition | None
    ) -> ResumableUpload:
        if upload.length is not None and offset + arriving.length > upload.length:
            raise LengthMismatch(upload.length, offset + arriving.length)
        length = self._number("Upload-Length")
        wanted: dict[str, Any] = {"length": length, "digest": arriving.digest, "condition": condition}
        return resumable.append(upload, offset, arriving.stream, **wanted)

    @property
    def _brings_bytes(self) -> bool:
        return bool(self.request.META.get("CONTENT_TYPE") == MEDIA_TYPE)

    def _arriving(self) -> Arriving:
        content = arriving_content(self.request._request, "")
        return Arriving(content.stream, content.length, self._digest())

    def _concatenate(self, urls: str) -> ResumableUpload:
        ids = [_checked_id(urlsplit(url).path.rstrip("/").rpartition("/")[2]) for url in urls.split()]
        if not ids:
            raise _malformed("Upload-Concat", "it names no upload")
        return resumable.concatenate(self._requester, ids, said=self._said(), **self._target())

    def _target(self, length: int = UNKNOWN_LENGTH) -> dict[str, Any]:
        """Return where the object is to be, and what is known of it, once the user may put `length` bytes there."""
        said = _parse_metadata(self.request.headers.get("Upload-Metadata", ""))
        # The names that Uppy and others give to the same things.
        path = said.get("path") or said.get("filename") or said.get("name") or str(uuid.uuid4())
        place = self._place(said)
        place.require_put(check_path(path))
        require_room(place, path, length)
        return {
            "namespace": place.namespace,
            "path": path,
            "sha384": said.get("sha384", ""),
            "content_type": kept_content_type(said.get("content_type") or said.get("filetype") or "", path),
            "metadata": checked_metadata(_metadata(said)),
            "condition": self._condition(place, path),
        }

    def _place(self, said: dict[str, str]) -> Place:
        if said.get("bucket"):
            return Place.of_bucket(self.user, said["bucket"])
        match said.get("namespace", "me"):
            case "me" | "global" as route:
                return Place.of_route(self.user, route)
        raise _malformed("Upload-Metadata", "its namespace is 'me' or 'global'; name a bucket as bucket")

    def _find(self, id: str) -> ResumableUpload:
        return resumable.find(_checked_id(id), self._requester)

    def _headers(self, upload: ResumableUpload) -> dict[str, str]:
        headers = {"Upload-Offset": str(upload.offset), "Upload-Expires": http_date(upload.expires_at.timestamp())}
        if upload.is_whole and not upload.partial:
            headers["Content-Location"] = object_url(self.request._request, upload.namespace, upload.path)
        return headers

    @property
    def _requester(self) -> str:
        return str(self.user.pk)

    def _said(self) -> dict[str, str]:
        """Return the headers that must be repeated whenever the upload is asked for."""
        headers = self.request.headers
        return {name: headers[name] for name in ("Upload-Metadata", "Upload-Concat") if name in headers}

    def _length(self) -> int | None:
        """Return the length announced for a new upload; None for later."""
        length = self._number("Upload-Length")
        deferred = self.request.headers.get("Upload-Defer-Length")
        if (length is None) == (deferred is None) or deferred not in (None, "1"):
            raise _malformed(
                "Upload-Length", "it says how many bytes will come, or Upload-Defer-Length: 1 takes its place"
            )
        return length

    def _number(self, header: str) -> int | None:
        text = self.request.headers.get(header)
        if text is not None and not _NUMBER.fullmatch(text):
            raise _malformed(header, "it is a number of bytes")
        return None if text is None else int(text)

    def _digest(self) -> tuple[str, str] | None:
        """Return the algorithm and the hash in hex that the bytes of this request must have, if it says so."""
        text = self.request.headers.get("Upload-Checksum")
        if text is None:
            return None
        algorithm, _, encoded = text.partition(" ")
        if algorithm not in ALGORITHMS:
            raise _malformed("Upload-Checksum", f"it begins with one of {', '.join(ALGORITHMS)}")
        digest = _decoded("Upload-Checksum", encoded)
        if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise _malformed("Upload-Checksum", f"it has not the length of a {algorithm}")
        return algorithm, digest.hex()


def _checked_id(id: str) -> str:
    if not _ID.fullmatch(id):
        raise UploadNotFound(id)
    return id


def _parse_metadata(header: str) -> dict[str, str]:
    """Return the pairs of an Upload-Metadata header, which may be empty."""
    said: dict[str, str] = {}
    for pair in filter(None, map(str.strip, header.split(","))):
        key, _, encoded = pair.partition(" ")
        if key in said:
            raise _malformed("Upload-Metadata", f"it has {key!r} twice")
        try:
            said[key] = _decoded("Upload-Metadata", encoded).decode()
        except UnicodeDecodeError:
            raise _malformed("Upload-Metadata", f"its {key!r} is not UTF-8") from None
    return said


def _metadata(said: dict[str, str]) -> dict[str, str]:
    return {key.lower().removeprefix(_META): value for key, value in said.items() if key.lower().startswith(_META)}


def _decoded(header: str, text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(header, "a value is not base64") from None


def _malformed(header: str, fault: str) -> Problem:
    return Problem(400, "invalid-header", f"{header} is not as it should be: {fault}.")
