"""The documents that travel, as operations of `contract` refer to them: JSON in and out, and problems by status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_blobstore.namespaces import MAX_PATH_BYTES
from django_blobstore.rest.bulk import MAX_PATHS
from django_blobstore.rest.metadata import MAX_BYTES as METADATA_BYTES
from django_blobstore.rest.metadata import MAX_NAMES, NAME
from django_blobstore.rest.problems import KNOWN, MEDIA_TYPE, TYPE_PREFIX
from django_blobstore.rest.serializers import MAX_BYTES
from django_blobstore.serving import MEDIA_TYPE as MEDIA_TYPE_PATTERN

Schema = dict[str, Any]

_HASH = "0" * 96
_BUCKET = "1c9d3f0a-6b0e-4a53-9d0c-2f6f0b7d1e55"
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
_URL: Schema = {"type": "string", "format": "uri"}

# What no path may have in it, and segments that are neither empty nor "." nor "..".
_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_NO = rf"{_CONTROL}\ufffd"
_SEGMENT = rf"(?:[^/.{_NO}]|\.[^/.{_NO}]|\.\.[^/{_NO}])[^/{_NO}]*"

# Codes that are not an error of the store's own, by status; the others are in `KNOWN`.
_CODES: dict[int, tuple[str, ...]] = {
    400: ("invalid", "parse-error"),
    401: ("not-authenticated", "authentication-failed"),
    403: ("permission-denied",),
    404: ("not-found",),
    406: ("not-acceptable",),
    409: ("bucket-exists", "bucket-not-empty"),
    411: ("length-required",),
    415: ("unsupported-media-type", "content-encoding-refused"),
    416: ("range-not-satisfiable",),
    429: ("throttled",),
    431: ("header-too-large",),
    503: ("storage-unreachable", "catalog-unreachable"),
    507: ("storage-full", "catalog-full"),
}
_TO_WAIT = (423, 429, 503)


def ref(name: str) -> Schema:
    """Return a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Sequence[str], properties: Schema, *, closed: bool = True, **more: Any) -> Schema:
    closing = {"additionalProperties": False} if closed else {}
    return {"type": "object", "required": [*required], "properties": properties, **closing, **more}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_HEX = {"type": "string", "pattern": "^[0-9a-f]{96}$"}
_OBJECT = {
    "path": ref("Path"),
    "length": COUNT,
    "sha384": _HEX,
    "integrity": TEXT | {"description": "For an integrity attribute (SRI)."},
    "content_type": TEXT,
    "metadata": {"type": "object"},
    "reference_count": COUNT | {"description": "For holders of the permission to view resources."},
    "created_at": TIME,
    "modified_at": TIME,
    "url": _URL,
}
_BUCKET_OUT = {
    "uuid": {"type": "string", "format": "uuid"},
    "name": TEXT,
    "owner": {"type": ["integer", "string", "null"], "description": "The user, by primary key."},
    "object_count": COUNT,
    "logical_bytes": COUNT | {"description": "The lengths of all objects together."},
    "stored_bytes": COUNT | {"description": "The same with each content counted once."},
    "quota_bytes": _or_null(COUNT) | {"description": "For the owner, and for who may change any bucket."},
    "created_at": TIME,
    "url": _URL,
}
_NAME_IN = {
    "type": "string",
    "minLength": 1,
    "maxLength": 150,
    "pattern": rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$",
}
_QUOTA_IN = _or_null(COUNT) | {"maximum": MAX_BYTES}
_METADATA_IN = {
    "type": "object",
    "maxProperties": MAX_NAMES,
    "propertyNames": {"pattern": f"^{NAME.pattern}$"},
    "additionalProperties": {"type": "string", "maxLength": METADATA_BYTES, "pattern": f"^[^{_CONTROL}]*$"},
    "description": f"Names and values have {METADATA_BYTES} bytes at most, as headers.",
}
_CONTENT_TYPE_IN = TEXT | {"maxLength": 255, "pattern": f"^(?:{MEDIA_TYPE_PATTERN.pattern})?$"}
_TRANSFER_EXAMPLE = {"source": "2026/hello.txt", "target": "copy.txt"}
_PATHS_EXAMPLE = {"paths": ["2026/hello.txt", "not there"]}


def _page(of: str, **more: Schema) -> Schema:
    properties = {of: {"type": "array", "items": ref(of[:-1].title())}, **more, "next": _or_null(_URL)}
    return _object([*properties], properties)


SCHEMAS: dict[str, Schema] = {
    "Path": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_PATH_BYTES,
        "pattern": f"^{_SEGMENT}(?:/{_SEGMENT})*$",
        "description": f"At most {MAX_PATH_BYTES} bytes of UTF-8, without empty, '.' or '..' segments.",
        "examples": ["2026/hello.txt"],
    },
    "Sha384": {"type": "string", "pattern": "^[0-9a-fA-F]{96}$", "examples": [_HASH]},
    "Object": _object([name for name in _OBJECT if name != "reference_count"], _OBJECT),
    "ObjectPage": _page("objects", prefixes={"type": "array", "items": TEXT}),
    "Bucket": _object([name for name in _BUCKET_OUT if name != "quota_bytes"], _BUCKET_OUT),
    "BucketPage": _page("buckets"),
    "NewBucket": _object(
        ["name"],
        {"name": _NAME_IN, "uuid": {"type": "string", "format": "uuid"}, "quota_bytes": _QUOTA_IN},
        closed=False,
        examples=[{"name": "letters"}, {"name": "letters", "uuid": _BUCKET}],
    ),
    "BucketChange": _object(
        [], {"name": _NAME_IN, "quota_bytes": _QUOTA_IN}, closed=False, examples=[{"name": "mail"}]
    ),
    "Transfer": _object(
        ["source", "target"],
        {
            "source": ref("Path"),
            "target": ref("Path"),
            "target_bucket": {
                "type": ["string", "null"],
                "anyOf": [{"format": "uuid"}, {"enum": ["me", "global"]}, {"type": "null"}],
                "description": "Another bucket, 'me' or 'global'.",
            },
        },
        closed=False,
        examples=[_TRANSFER_EXAMPLE, _TRANSFER_EXAMPLE | {"target_bucket": "me"}],
    ),
    "Description": _object(
        ["path"],
        {
            "path": ref("Path"),
            "content_type": _CONTENT_TYPE_IN,
            "metadata": _METADATA_IN,
        },
        closed=False,
        examples=[{"path": "2026/hello.txt", "content_type": "text/plain", "metadata": {"author": "Ann"}}],
    ),
    "Signing": _object(
        ["path"],
        {"path": ref("Path"), "expires_in": {"type": "integer", "minimum": 1}, "sha384": ref("Sha384")},
        closed=False,
        examples=[{"path": "2026/hello.txt", "expires_in": 60}],
    ),
    "Signed": _object(["url", "expires_at"], {"url": _URL, "expires_at": TIME}),
    "Paths": _object(
        ["paths"],
        {"paths": {"type": "array", "minItems": 1, "maxItems": MAX_PATHS, "items": TEXT}},
        closed=False,
        examples=[_PATHS_EXAMPLE],
    ),
    "Results": _object(
        ["results"],
        {
            "results": {
                "type": "array",
                "items": _object(
                    ["path", "status"],
                    {
                        "path": TEXT,
                        "status": {"type": "integer", "description": "What it would have had alone."},
                        "object": ref("Object"),
                        "code": TEXT,
                        "detail": TEXT,
                    },
                ),
            }
        },
    ),
    "PutRequest": _object(
        ["path", "sha384"],
        {
            "path": ref("Path"),
            "sha384": ref("Sha384"),
            "content_type": _CONTENT_TYPE_IN,
            "metadata": _METADATA_IN,
        },
        closed=False,
        examples=[{"path": "proven.txt", "sha384": _HASH}],
    ),
    "Challenge": _object(
        ["request_id", "nonce", "ranges", "range_start", "range_length", "expires_at", "algorithm"],
        {
            "request_id": TEXT,
            "nonce": TEXT | {"contentEncoding": "base64"},
            "ranges": {
                "type": "array",
                "items": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2},
                "description": "The parts to prove, as [start, length].",
            },
            "range_start": COUNT,
            "range_length": COUNT,
            "expires_at": TIME,
            "algorithm": TEXT,
        },
    ),
    "Proof": _object(
        ["proof"],
        {"proof": {"type": "string", "pattern": "^[0-9a-f]{96}$", "description": "The HMAC in hex."}},
        closed=False,
        examples=[{"proof": _HASH}],
    ),
    "Problem": _object(
        ["type", "title", "status", "detail", "code"],
        {
            "type": {"type": "string", "pattern": f"^{TYPE_PREFIX}", "description": "The code, as a URI."},
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT | {"description": "For people."},
            "code": TEXT | {"description": "For programs; it does not change."},
            "retry_after": COUNT | {"description": "Seconds to wait."},
        },
        closed=False,
        description="RFC 9457; what the error knows stands beside.",
    ),
}


def problem_response(status: int) -> Schema:
    """Return the response component of all problems with `status`."""
    codes = [*_CODES.get(status, ()), *(code for known, code in KNOWN.values() if known == status)]
    code = codes[0] if codes else "invalid-header"
    title = code.replace("-", " ").capitalize()
    example = {"type": TYPE_PREFIX + code, "title": title, "status": status, "detail": f"{title}.", "code": code}
    headers = {"Retry-After": {"schema": {"type": "integer"}, "required": True}} if status in _TO_WAIT else {}
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        **({"headers": headers} if headers else {}),
        "content": {MEDIA_TYPE: {"schema": ref("Problem"), "example": example}},
    }
