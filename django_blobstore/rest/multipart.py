"""How several parts of an object become one body, multipart/byteranges (RFC 9110, section 14.6)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence

from django_blobstore.rest.ranges import Span


class Multipart:
    """The `spans` of an object of `total` bytes and its `part_type` as one body of `content_type` and `length`."""

    def __init__(self, spans: Sequence[Span], total: int, part_type: str) -> None:
        # Random, so that no content can have it.
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._spans = spans
        self._heads = [
            f"\r\n--{boundary}\r\nContent-Type: {part_type}\r\nContent-Range: {span.content_range(total)}\r\n\r\n"
            for span in spans
        ]
        self._end = f"\r\n--{boundary}--\r\n"
        self.length = sum(span.length for span in spans) + sum(map(len, self._heads)) + len(self._end)

    def blocks(self, read: Callable[[Span], Iterator[bytes]]) -> Iterator[bytes]:
        """Yield the body; `read` gives the bytes of a part, block by block."""
        for text, span in zip(self._heads, self._spans, strict=True):
            head = text.encode("ascii")
            for block in read(span):
                yield head + block
                head = b""
        yield self._end.encode("ascii")
