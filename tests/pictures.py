"""Small images, each colour another content."""

from __future__ import annotations

import io

from django.core.files.uploadedfile import SimpleUploadedFile
from PIL import Image


def png(colour: int = 0, size: tuple[int, int] = (4, 3)) -> bytes:
    """Return a PNG of `size` all in one of 16 million colours."""
    stream = io.BytesIO()
    Image.new("RGB", size, (colour >> 16 & 255, colour >> 8 & 255, colour & 255)).save(stream, "PNG")
    return stream.getvalue()


def picture(colour: int = 0, name: str = "a.png", size: tuple[int, int] = (4, 3)) -> SimpleUploadedFile:
    """Return the same as an upload."""
    return SimpleUploadedFile(name, png(colour, size), "image/png")
