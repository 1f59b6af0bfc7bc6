"""What may be said of an object, so that every database keeps it as it is: its content type and its metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django_blobstore.errors import InvalidContentType, InvalidMetadata

MAX_TYPE_LENGTH = 255

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# What Python and JSON can say and PostgreSQL cannot keep.
UNKEPT = re.compile("[\x00\ud800-\udfff]")


def check_content_type(content_type: str) -> str:
    """Return `content_type` if it has at most 255 characters, no control character and no lone surrogate.

    Raises `InvalidContentType`. It need not be a media type: what is none is sent as ``application/octet-stream``.
    """
    if len(content_type) > MAX_TYPE_LENGTH:
        raise InvalidContentType(content_type, f"it has {len(content_type)} characters, more than {MAX_TYPE_LENGTH}")
    if CONTROL.search(content_type):
        raise InvalidContentType(content_type, "it has a control character or lone surrogate")
    return content_type


def clean_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return `metadata`, of which nothing is none; it must be JSON without NUL characters and lone surrogates.

    Raises `InvalidMetadata`.
    """
    if not metadata:
        return {}
    cleaned = dict(metadata)
    try:
        json.dumps(cleaned, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMetadata(cleaned, f"it cannot be written as JSON ({error})") from error
    for text in _texts(cleaned):
        if UNKEPT.search(text):
            raise InvalidMetadata(text, "it has a NUL character or lone surrogate")
    return cleaned


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in `value`, which is known to be JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
