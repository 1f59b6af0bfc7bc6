"""Who else can send an object's bytes once we allowed it: the storage itself, or the web server in front of us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from django_blobstore.conf import conf
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.storages import hooks

# Seconds in which the client, or nginx, must have begun to fetch.
SIGNED_FOR = 60


def handed_over(
    request: HttpRequest, managed: ManagedResource, headers: Mapping[str, str], *, in_part: bool
) -> HttpResponse | None:
    """Return an answer that has somebody else send `managed`, or parts of it, under `headers`; None if we must.

    We must under ``SERVE_METHOD = "stream"``, for content known to be damaged, and where the storage has neither files
    nor signed URLs, whichever the method needs.
    """
    hand_over = _METHODS.get(conf.SERVE_METHOD)
    if hand_over is None or request.method != "GET" or managed.resource.damaged_at:
        return None
    return None if _would_be_asked_again(request, in_part) else hand_over(managed.resource, headers)


def _would_be_asked_again(request: HttpRequest, in_part: bool) -> bool:
    """Tell whether `request` has a condition that was decided but might not be so by the sender's tags and dates.

    No tag of ours is one of theirs, so If-None-Match holds there too, and If-Range brings the whole at worst.
    """
    decided = {"If-Match", "If-Unmodified-Since", "If-Modified-Since", *(() if in_part else ("If-Range",))}
    return any(name in request.headers for name in decided)


def _redirect(resource: Resource, headers: Mapping[str, str]) -> HttpResponse | None:
    url = _signed_url(resource, headers)
    if url is None:
        return None
    # The URL is as secret as the bytes, and soon of no use.
    told = {"Cache-Control": "no-store", "X-Content-SHA384": headers["X-Content-SHA384"]}
    return HttpResponseRedirect(url, headers=told)


def _x_accel(resource: Resource, headers: Mapping[str, str]) -> HttpResponse | None:
    location = conf.SERVE_LOCATION.get(resource.storage)
    if location is None:
        return None
    if _file(resource):
        return _sent_by_server(headers, "X-Accel-Redirect", location + quote(resource.path))
    url = _signed_url(resource, headers)
    if url is None:
        return None
    parts = urlsplit(url)
    return _sent_by_server(
        headers, "X-Accel-Redirect", f"{location}{parts.scheme}/{parts.netloc}{parts.path}?{parts.query}"
    )


def _x_sendfile(resource: Resource, headers: Mapping[str, str]) -> HttpResponse | None:
    file = _file(resource)
    return _sent_by_server(headers, "X-Sendfile", quote(file)) if file else None


_METHODS: dict[str, Callable[[Resource, Mapping[str, str]], HttpResponse | None]] = {
    "redirect": _redirect,
    "x-accel": _x_accel,
    "x-sendfile": _x_sendfile,
}


def _sent_by_server(headers: Mapping[str, str], header: str, where: str) -> HttpResponse:
    # Whether there are ranges is said by who cuts them.
    told = {name: value for name, value in headers.items() if name != "Accept-Ranges"}
    return HttpResponse(headers=told | {header: where})


def _file(resource: Resource) -> str | None:
    """Return the path of the file with the bytes of `resource`, unless it is missing or has another length."""
    storage = ResourceStorage(resource.storage).storage
    if not hooks.keeps_files(storage):
        return None
    try:
        is_whole = storage.size(resource.path) == resource.length
    except FileNotFoundError:
        return None
    return storage.path(resource.path) if is_whole else None


def _signed_url(resource: Resource, headers: Mapping[str, str]) -> str | None:
    storage = ResourceStorage(resource.storage).storage
    return hooks.signed_url(storage, resource.path, headers, seconds=SIGNED_FOR)
