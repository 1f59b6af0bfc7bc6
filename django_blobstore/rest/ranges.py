"""Which part of an object a request asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from django_blobstore.rest.problems import Problem

# At most 18 digits: longer offsets than any content has.
_ONE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Span:
    """`length` bytes from the offset `start`."""

    start: int
    length: int

    def content_range(self, total: int) -> str:
        """Return the value of the header Content-Range."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{total}"


def requested_span(header: str, total: int) -> Span | None:
    """Return the part of `total` bytes that the Range `header` asks for; None for the whole.

    A header that is malformed, of another unit or of several ranges asks for the whole. Raises a 416 `Problem` for a
    range with no byte in it.
    """
    wanted = _ONE_RANGE.fullmatch(header)
    if wanted is None or not any(wanted.groups()):
        return None
    first, last = wanted.groups()
    if not first:
        length = min(int(last), total)
        span = Span(total - length, length)
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        end = min(int(last) + 1, total) if last else total
        span = Span(start, end - start)
    if span.length <= 0:
        raise _unsatisfiable(total)
    return span


def _unsatisfiable(total: int) -> Problem:
    detail = f"The range has no byte of the {total} there are."
    headers = {"Content-Range": f"bytes */{total}", "Accept-Ranges": "bytes"}
    return Problem(416, "range-not-satisfiable", detail, headers=headers, length=total)
