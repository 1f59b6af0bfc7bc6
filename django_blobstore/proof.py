"""Proof of access: what is asked of somebody who says to hold some bytes, and what an honest holder answers.

Nothing here imports Django, so that a client can use it. The scheme follows the usual spot checks of provable data
possession: a holder of 99 % of a large content passes less than one time in a hundred.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import BinaryIO

WHOLE_UP_TO = 64 * 1024 * 1024
SAMPLES = 460
SAMPLE_LENGTH = 4096
BLOCK_SIZE = 1024 * 1024

HMAC = "hmac-sha384"
SEED = "sha384"

Range = tuple[int, int]

_REQUEST_ID = re.compile("[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class RequestResponse:
    """What to prove: hash `ranges`, each ``(start, length)`` in bytes, keyed with `nonce`, before `expires_at`.

    `range_start` and `range_length` are the first range, which is the only one in the ``sha384`` algorithm.
    """

    request_id: str
    range_start: int
    range_length: int
    nonce: bytes = b""
    ranges: tuple[Range, ...] = ()
    length: int = 0
    expires_at: datetime | None = None
    algorithm: str = HMAC


@dataclass(frozen=True)
class PutResponse:
    """The answer to a put request; `sha384` is the proof in hex, not the hash of the content."""

    request_id: str
    sha384: str


def answer(stream: BinaryIO | bytes, request_response: RequestResponse, sha384: str) -> PutResponse:
    """Return what an honest holder of the content answers.

    `stream` is the content, seekable or as bytes; `sha384` is the content's hash in hex. Raises `EOFError` if the
    content ends inside a range.
    """
    source = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    ranges = request_response.ranges or ((request_response.range_start, request_response.range_length),)
    blocks = ((at, _blocks(source, at)) for at in ranges)
    proof = _prove(request_response, sha384, _length(source), blocks)
    return PutResponse(request_response.request_id, proof)


def expected(request_response: RequestResponse, sha384: str, contents: Iterable[Iterable[bytes]]) -> str:
    """Return the proof that `contents` give: for each range its bytes, in pieces of any length."""
    blocks = zip(request_response.ranges, contents, strict=True)
    return _prove(request_response, sha384, request_response.length, blocks)


def draw_ranges(length: int, seed: bytes, *, algorithm: str = HMAC) -> list[Range]:
    """Return which ranges of a content of `length` bytes to ask for; the same `seed` draws the same ones.

    Up to 64 MiB that is the whole content, above it a sample of 4 KiB in each of 460 equal strata and the last 4 KiB.
    The ``sha384`` algorithm has one range of at least half the content, and never all of it, whose hash is no secret.
    """
    if algorithm == SEED:
        return [_part(length, seed)]
    if length <= WHOLE_UP_TO:
        return [(0, length)]
    last = length - SAMPLE_LENGTH
    edges = [last * i // SAMPLES for i in range(SAMPLES + 1)]
    samples = [(low + _draw(seed, low, high - low), SAMPLE_LENGTH) for low, high in pairwise(edges)]
    return [*samples, (last, SAMPLE_LENGTH)]


def sticky_seed(secret: bytes, *facts: str | int) -> bytes:
    """Return the seed that these `facts` always give, so that asking again cannot draw other ranges."""
    return hmac.digest(secret, _joined(facts), "sha384")


def new_nonce() -> bytes:
    return secrets.token_bytes(32)


def new_request_id() -> str:
    """Return 128 random bits as text safe in URLs."""
    return secrets.token_urlsafe(16)


def is_request_id(text: str) -> bool:
    """Whether `text` looks like a request id; what does not may be more than a database can be asked for."""
    return bool(_REQUEST_ID.fullmatch(text))


def _part(length: int, seed: bytes) -> Range:
    if length < 2:
        return (0, length)
    part = length // 2 + _draw(seed, "length", length - length // 2)
    return (_draw(seed, "start", length - part + 1), part)


def _draw(seed: bytes, label: str | int, below: int) -> int:
    # 384 bits against lengths below 2**63: the bias of the remainder is beyond notice.
    return int.from_bytes(hmac.digest(seed, str(label).encode(), "sha384")) % below


def _joined(facts: Sequence[str | int]) -> bytes:
    # Each fact is preceded by its length, so that ("a", "bc") and ("ab", "c") differ.
    encoded = [str(fact).encode() for fact in facts]
    return b"".join(len(fact).to_bytes(8) + fact for fact in encoded)


def _prove(request: RequestResponse, sha384: str, length: int, blocks: Iterable[tuple[Range, Iterable[bytes]]]) -> str:
    if request.algorithm == SEED:
        plain = hashlib.sha384()
        for _, pieces in blocks:
            for piece in pieces:
                plain.update(piece)
        return plain.hexdigest()
    ranges = request.ranges
    keyed = hmac.new(request.nonce, b"blobstore-poa-v2\0", "sha384")
    keyed.update(request.request_id.encode() + b"\0" + bytes.fromhex(sha384))
    keyed.update(length.to_bytes(8) + len(ranges).to_bytes(4))
    for (start, size), pieces in blocks:
        keyed.update(start.to_bytes(8) + size.to_bytes(8))
        for piece in pieces:
            keyed.update(piece)
    return keyed.hexdigest()


def _blocks(source: BinaryIO, at: Range) -> Iterable[bytes]:
    start, left = at
    source.seek(start)
    while left:
        block = source.read(min(left, BLOCK_SIZE))
        if not block:
            raise EOFError(f"The content ends {left} bytes before the end of the range {at}.")
        left -= len(block)
        yield block


def _length(source: BinaryIO) -> int:
    return source.seek(0, io.SEEK_END)
