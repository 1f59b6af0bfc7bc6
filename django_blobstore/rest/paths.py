"""How objects' paths travel in URLs: any text in, only clean paths through, and the URL of an object out."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.urls import reverse
from django.urls.converters import StringConverter

from django_blobstore.errors import InvalidPath
from django_blobstore.namespaces import Namespace, check_path

# What Django writes in a path for a byte that is not UTF-8, and what also stands there for "%25FF".
_ESCAPED_BYTE = re.compile("%[89A-F][0-9A-F]")


class AnyTextConverter(StringConverter):
    """Matches whatever is left of a URL, newlines and slashes too, so that a bad path is refused by us, not lost."""

    regex = "(?s:.+)"


def object_path(request: HttpRequest, path: str) -> str:
    """Return the `path` captured from the URL of `request`, or raise `InvalidPath`."""
    if _ESCAPED_BYTE.search(path) and not _is_utf8(_raw_path(request)):
        raise InvalidPath(path, "it is not valid UTF-8")
    return check_path(path)


def object_url(request: HttpRequest, namespace: Namespace, path: str) -> str:
    """Return the URL of the object at `path` as the user of `request` speaks of it."""
    if namespace.bucket_id:
        return absolute_url(request, "bucket-object", bucket=namespace.bucket_id, path=path)
    return absolute_url(request, "me-object" if namespace.user else "global-object", path=path)


def absolute_url(request: HttpRequest, name: str, **kwargs: object) -> str:
    """Return the URL of our view `name`, under the namespace that the project included the URLs with."""
    match = request.resolver_match
    namespaces = match.namespaces if match else ["blobstore"]
    return request.build_absolute_uri(reverse(":".join([*namespaces, name]), kwargs=kwargs))


def _raw_path(request: HttpRequest) -> bytes:
    """Return the bytes of the path as the client sent them, or bytes that are not UTF-8 if the server hides them."""
    if isinstance(request, ASGIRequest):
        return unquote_to_bytes(request.scope.get("raw_path") or b"\xff")
    # PEP 3333 has no name for it. The first is gunicorn's, the second uWSGI's, mod_wsgi's and waitress's.
    raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or "%ff"
    return unquote_to_bytes(raw.partition("?")[0])


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
