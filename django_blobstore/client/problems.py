"""What can go wrong for a client, as one tree, and the way out of each.

::

    ClientError
    ├── Refused          the store answered with a problem (RFC 9457): `status`, `code`, `detail`, `facts`
    ├── Unreachable      the store did not answer, or hung up
    ├── ContentDiffers   bytes are not those that they should be
    ├── InvalidAddress   a text that names no bucket or object (also a ValueError)
    ├── NotLoggedIn      no URL or no token is known
    └── Stopped          the caller had it end

Each has the `exit_code` that the ``blobstore`` command ends with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from django_blobstore.errors import BlobstoreError

FAILED, USAGE, NOT_FOUND, NOT_ALLOWED, DIFFERENT, UNREACHABLE, NO_ROOM = 1, 2, 3, 4, 5, 6, 7

_EXIT_CODES = {401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND, 413: NO_ROOM, 422: DIFFERENT, 507: NO_ROOM}
_PASSING = {423, 429, 502, 503, 504}

# Where the detail does not say what to do.
_WAYS_OUT = {
    "authentication-failed": "Log in again with `blobstore login URL`.",
    "not-authenticated": "Log in with `blobstore login URL`, or set BLOBSTORE_TOKEN.",
    "permission-denied": "Ask the owner of the bucket or an administrator for the right.",
    "resource-not-found": "See what is there with `blobstore ls`.",
    "bucket-not-found": "See which buckets there are with `blobstore ls`.",
    "hash-mismatch": "If the file changed while it was sent, put it again.",
    "content-damaged": "Put the same content again from a good copy, which heals it.",
    "quota-exceeded": "Remove something, or ask for a larger quota.",
    "invalid-path": "Choose another path.",
}
_NO_PROBLEM = "Is {url} the store's REST interface? `blobstore login URL` sets it."


class ClientError(BlobstoreError):
    """The root of what a client raises; `may_pass` says whether waiting helps, `retry_after` how long, in seconds."""

    exit_code = FAILED
    may_pass = False
    retry_after: float | None = None


class Refused(ClientError):
    """The store answered with `status` and a stable `code` ("" if it was not the store that answered)."""

    def __init__(
        self, status: int, code: str, detail: str, *, facts: Mapping[str, Any] | None = None, way_out: str = ""
    ) -> None:
        hint = way_out or _WAYS_OUT.get(code, "")
        super().__init__(f"{detail} {hint}" if hint else detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.facts = dict(facts or {})

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        if self.status in _EXIT_CODES:
            return _EXIT_CODES[self.status]
        return UNREACHABLE if self.status in _PASSING or self.status >= 500 else FAILED

    @property
    def may_pass(self) -> bool:  # type: ignore[override]
        # Of a resumable upload, another request may have brought bytes.
        return self.status in _PASSING or self.code == "offset-mismatch"


class Unreachable(ClientError):
    """The store at `url` did not answer for `reason`."""

    exit_code = UNREACHABLE
    may_pass = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} cannot be reached: {reason}. Try again; what has been sent is not sent again.")
        self.url = url
        self.reason = reason


class ContentDiffers(ClientError):
    """What is at `name` is not what it should be, for `reason`."""

    exit_code = DIFFERENT

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}.")
        self.name = name
        self.reason = reason


class InvalidAddress(ClientError, ValueError):
    """`address` names nothing, for `reason`."""

    exit_code = USAGE

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address!r} is not an address: {reason}.")
        self.address = address
        self.reason = reason


class NotLoggedIn(ClientError):
    """Which store is meant, or who asks it, is not known, for `reason`, a sentence."""

    exit_code = NOT_ALLOWED

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} Log in with `blobstore login URL`, or set BLOBSTORE_URL and BLOBSTORE_TOKEN.")


class Stopped(ClientError):
    """The caller had the work end before it was done."""

    def __init__(self) -> None:
        super().__init__("Stopped.")


def refused(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Return the answer to a request to `url`, which is not a good one, as an error."""
    document = _document(body)
    errors = document.get("errors") if "detail" in document else document
    detail = str(document.get("detail") or f"{url} was answered with status {status}.")
    if errors:
        detail += f" {json.dumps(errors)}"
    way_out = "" if document else _NO_PROBLEM.format(url=url)
    error = Refused(status, str(document.get("code", "")), detail, facts=document, way_out=way_out)
    error.retry_after = _seconds(headers.get("retry-after", ""))
    return error


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(retry_after: str) -> float | None:
    """Return what a Retry-After header says: seconds or, of some proxies, a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
