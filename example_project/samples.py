"""What the demo stores: pictures, pages and backups made in code, some of them more than once."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MEGABYTE = 1_000_000

Pixel = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """One object: `bucket` is a bucket's name, or "" for the namespace that everybody shares."""

    bucket: str
    path: str
    content_type: str
    content: bytes


def samples() -> Iterator[Sample]:
    """Yield every sample; equal contents are told apart by bucket and path only."""
    sunrise = png(480, 320, lambda x, y: (255, 90 + y // 2, (x + y) // 5 % 200))
    forest = png(480, 320, lambda x, y: (x * y // 900 % 90, 80 + y // 3, 60))
    logo = png(128, 128, lambda x, y: (12, 75, 51) if (x // 16 + y // 16) % 2 else (68, 183, 139))
    page = b"<!doctype html><title>Hello</title><img src=logo.png alt=Logo><p>Served from a blob store.\n"
    prices = json.dumps({"currency": "EUR", "prices": {f"item {n}": n * 3 for n in range(200)}}, indent=1).encode()
    database, recording = noise(3 * MEGABYTE, seed=1), noise(2 * MEGABYTE, seed=2)

    yield Sample("website", "index.html", "text/html", page)
    yield Sample("website", "logo.png", "image/png", logo)
    yield Sample("website", "data/prices.json", "application/json", prices)
    yield Sample("website", "gallery/sunrise.png", "image/png", sunrise)
    yield Sample("website", "gallery/forest.png", "image/png", forest)
    yield Sample("photos", "2026/sunrise.png", "image/png", sunrise)
    yield Sample("photos", "2026/forest.png", "image/png", forest)
    yield Sample("photos", "2026/waves.raw", "application/octet-stream", recording)
    yield Sample("photos", "best/sunrise.png", "image/png", sunrise)
    yield Sample("photos", "best/waves.raw", "application/octet-stream", recording)
    yield Sample("photos", "notes/été à la mer.txt", "text/plain", b"Une note, avec des accents.\n")
    for month in ("2026-01", "2026-02", "2026-03"):
        yield Sample("backups", f"{month}/database.dump", "application/octet-stream", database)
        yield Sample("backups", f"{month}/website/index.html", "text/html", page)
        yield Sample("backups", f"{month}/website/logo.png", "image/png", logo)
        yield Sample("backups", f"{month}/report.txt", "text/plain", f"Backup of {month}: complete.\n".encode())
    yield Sample("", "shared/logo.png", "image/png", logo)


def png(width: int, height: int, pixel: Callable[[int, int], Pixel]) -> bytes:
    """Return a PNG picture (RFC 2083) whose colour at each point is `pixel(x, y)`."""
    rows = (b"\0" + bytes(value for x in range(width) for value in pixel(x, y)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def noise(length: int, seed: int) -> bytes:
    """Return `length` bytes that no compression makes smaller, the same ones for the same `seed`."""
    return random.Random(seed).randbytes(length)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
