"""Which parts of an object a request asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django_blobstore.rest.problems import Problem

MOST_PARTS = 16
# Bytes that two parts may be apart and still are sent as one: what is said before a part takes as many.
CLOSE = 128

# More digits than any length has, and fewer than Python refuses to convert.
_RANGE = re.compile(r"(\d{0,40})-(\d{0,40})", re.ASCII)


@dataclass(frozen=True)
class Span:
    """`length` bytes from the offset `start`."""

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length

    def content_range(self, total: int) -> str:
        """Return the value of the header Content-Range."""
        return f"bytes {self.start}-{self.end - 1}/{total}"


def requested_spans(header: str, total: int) -> list[Span]:
    """Return the parts of `total` bytes that the Range `header` asks for, in its order; none for the whole.

    Parts that overlap or nearly touch are one. A header that is malformed, of another unit or of more than 16 parts
    asks for the whole, and so do the last bytes of an empty content: by RFC 9110, 14.1.2, they are all of it, which no
    Content-Range can tell. Raises a 416 `Problem` if no range has a byte in it.
    """
    ranges = _parsed(header)
    if not ranges or (not total and any(map(_is_of_the_end, ranges))):
        return []
    asked = [span for first, last in ranges if (span := _span(first, last, total)).length > 0]
    if not asked:
        raise _unsatisfiable(total)
    joined = _joined(asked)
    if len(joined) > MOST_PARTS:
        return []
    return list(dict.fromkeys(next(part for part in joined if part.end >= span.end) for span in asked))


def _parsed(header: str) -> list[tuple[str, str]]:
    """Return the first and last positions as they stand; none if any of the ranges has no meaning."""
    unit, _, listed = header.partition("=")
    found = [_RANGE.fullmatch(text) for part in listed.split(",") if (text := part.strip(" \t"))]
    ranges = [(match[1], match[2]) for match in found if match and _has_meaning(match[1], match[2])]
    return ranges if unit.lower() == "bytes" and len(ranges) == len(found) else []


def _has_meaning(first: str, last: str) -> bool:
    return int(first) <= int(last) if first and last else bool(first or last)


def _is_of_the_end(positions: tuple[str, str]) -> bool:
    """Whether it asks for the last bytes, and for more than none of them."""
    first, last = positions
    return not first and int(last) > 0


def _span(first: str, last: str, total: int) -> Span:
    if not first:
        length = min(int(last), total)
        return Span(total - length, length)
    end = min(int(last) + 1, total) if last else total
    return Span(int(first), end - int(first))


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return `spans` in ascending order, with one in the place of those that overlap or are close."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and span.start <= joined[-1].end + CLOSE:
            before = joined.pop()
            span = Span(before.start, max(before.end, span.end) - before.start)
        joined.append(span)
    return joined


def _unsatisfiable(total: int) -> Problem:
    detail = f"The range has no byte of the {total} there are."
    headers = {"Content-Range": f"bytes */{total}", "Accept-Ranges": "bytes"}
    return Problem(416, "range-not-satisfiable", detail, headers=headers, length=total)
