"""What users say of their objects, and how it travels: short texts of any characters, in headers and in JSON.

In a header ``X-Blobstore-Meta-<name>``, whatever a header cannot carry, and the percent sign, is percent-encoded UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from django.http import HttpRequest

from django_blobstore.descriptions import CONTROL
from django_blobstore.models import ManagedResource
from django_blobstore.rest.problems import Problem

PREFIX = "X-Blobstore-Meta-"

MAX_NAMES = 32
# Names and values as headers have them. Proxies give all headers of an answer 4 KiB, some of them.
MAX_BYTES = 2048

NAME = re.compile("[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_AS_THEY_ARE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_OUTER_SPACES = re.compile("^ +| +$")


def sent_metadata(request: HttpRequest) -> dict[str, str]:
    """Return the metadata in the headers of `request`, by name in lower case. Raises a `Problem` if it cannot be."""
    prefix = PREFIX.lower()
    sent = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith(prefix)}
    return checked_metadata({name.removeprefix(prefix): _decoded(name, value) for name, value in sent.items()})


def metadata_headers(managed: ManagedResource) -> dict[str, str]:
    """Return the headers that tell the metadata of `managed`, but not what was set in Python and is no such text."""
    if not managed.metadata:
        return {}
    told = {name: value for name, value in managed.metadata.items() if not _fault(name, value)}
    return {PREFIX + name.title(): _encoded(value) for name, value in told.items()}


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return `metadata`, or raise a `Problem` if it is too much, or a name or value is not what it may be."""
    if len(metadata) > MAX_NAMES:
        raise _refused(f"There are {len(metadata)} names, more than {MAX_NAMES}")
    for name, value in metadata.items():
        if fault := _fault(name, value):
            raise _refused(f"{name!r}: {fault}")
    length = sum(len(name) + len(_encoded(value)) for name, value in metadata.items())
    if length > MAX_BYTES:
        raise _refused(f"Names and values have {length} bytes as headers, more than {MAX_BYTES}")
    return dict(metadata)


def _fault(name: str, value: object) -> str:
    if not NAME.fullmatch(name):
        return "a name has at most 64 lower-case letters, digits and, between them, hyphens"
    if not isinstance(value, str):
        return "a value is text"
    return "a value has no control character or lone surrogate" if CONTROL.search(value) else ""


def _decoded(name: str, value: str) -> str:
    if not value.isascii():
        raise _refused(f"{name!r}: send other characters than ASCII as percent-encoded UTF-8")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise _refused(f"{name!r}: its percent-encoded bytes are not UTF-8") from None


def _encoded(value: str) -> str:
    return _OUTER_SPACES.sub(lambda spaces: "%20" * len(spaces[0]), quote(value, safe=_AS_THEY_ARE))


def _refused(reason: str) -> Problem:
    return Problem(400, "invalid-metadata", f"The metadata cannot be kept. {reason}.")
