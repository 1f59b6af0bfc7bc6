"""Whether a request may go on, by what it says of the object that is there (RFC 9110, section 13)."""

from __future__ import annotations

import math
import re

from django.db import router
from django.http import HttpRequest
from django.utils.http import http_date, parse_http_date_safe

from django_blobstore.catalog import Condition
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.rest.problems import Problem
from django_blobstore.rows import find_object

_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_TAG = r'(W/)?("[!#-~\x80-\xff]*")'
_TAGS = re.compile(_TAG)
_LIST_OF_TAGS = re.compile(rf"\*|{_TAG}([ \t]*,[ \t]*{_TAG})*")


def entity_tag(managed: ManagedResource) -> str:
    """Return the strong validator of the content: equal exactly if every byte is."""
    return f'"{managed.resource.sha384}"'


def last_modified(managed: ManagedResource) -> str:
    """Return the validator that is a date."""
    return http_date(_modified(managed))


def is_conditional(request: HttpRequest) -> bool:
    """Whether `request` depends on what is there; If-Range does not count, as it only chooses between two answers."""
    return any(name in request.headers for name in _CONDITIONS)


def has_it_already(request: HttpRequest, managed: ManagedResource) -> bool:
    """Whether the client of this GET or HEAD is to be told (304) that it has the content of `managed`.

    Raises a 412 `Problem` if it wants other content or none.
    """
    return is_conditional(request) and _is_known(request, managed)


def require_as_wanted(request: HttpRequest, found: ManagedResource | None) -> None:
    """Raise a 412 `Problem` unless `found`, or nothing, is what this request would change.

    To be asked in the transaction of the change. Tags that are none are a 400: to ignore them would be to overwrite.
    """
    if not is_conditional(request):
        return
    for name in ("If-Match", "If-None-Match"):
        if not _LIST_OF_TAGS.fullmatch(request.headers.get(name, "*").strip(" \t")):
            raise Problem(400, "invalid-condition", f"{name} is '*', or entity tags in double quotes.")
    if _is_known(request, found):
        raise _other_content()


def asked_now_and_then(request: HttpRequest, allowed: Condition, namespace: Namespace, path: str) -> Condition:
    """Return what the commit asks about the object there is: whether it is `allowed`, and as this request wants it.

    A request with a condition asks at once too: a refusal needs no body.
    """

    def ask(found: ManagedResource | None) -> None:
        allowed(found)
        require_as_wanted(request, found)

    if is_conditional(request):
        ask(find_object(router.db_for_write(ManagedResource), namespace, path))
    return ask


def range_holds(request: HttpRequest, managed: ManagedResource) -> bool:
    """Whether the range asked for is one of this content; validators must be equal to the letter."""
    unless_changed = request.headers.get("If-Range")
    return unless_changed is None or unless_changed in (entity_tag(managed), last_modified(managed))


def _is_known(request: HttpRequest, found: ManagedResource | None) -> bool:
    """Whether If-None-Match names what is there, or else nothing is newer than If-Modified-Since, in a GET or HEAD.

    Raises a 412 before, in the order of 13.2.2, if it is not what If-Match or else If-Unmodified-Since want.
    """
    headers = request.headers
    if "If-Match" in headers:
        is_wanted = _names(headers["If-Match"], found)
    else:
        is_wanted = not _has_changed(found, headers.get("If-Unmodified-Since"), otherwise=False)
    if not is_wanted:
        raise _other_content()
    if "If-None-Match" in headers:
        return _names(headers["If-None-Match"], found, weakly=True)
    is_read = request.method in ("GET", "HEAD")
    return is_read and not _has_changed(found, headers.get("If-Modified-Since"), otherwise=True)


def _names(tags: str, found: ManagedResource | None, *, weakly: bool = False) -> bool:
    """Whether `tags` lists what is there; weak tags count only in a weak comparison."""
    if found is None or tags.strip(" \t") == "*":
        return found is not None
    return entity_tag(found) in {tag for weak, tag in _TAGS.findall(tags) if weakly or not weak}


def _has_changed(found: ManagedResource | None, header: str | None, *, otherwise: bool) -> bool:
    """Whether what is there is newer than the date in `header`; `otherwise` where that is no date or nothing there."""
    since = parse_http_date_safe(header) if header else None
    return otherwise if since is None or found is None else _modified(found) > since


def _other_content() -> Problem:
    return Problem(412, "precondition-failed", "The object is not the one that the request is meant for.")


def _modified(managed: ManagedResource) -> int:
    return math.floor(managed.modified_at.timestamp())
