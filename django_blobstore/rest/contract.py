"""What each operation takes and answers, in the words of OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_blobstore.rest.components import COUNT, TEXT, TIME, Schema, ref
from django_blobstore.rest.limits import HEADER_LIMIT
from django_blobstore.rest.serializers import MAX_BYTES

_BYTES: Schema = {"type": "string", "format": "binary"}
_ALWAYS = (401, 403, 429, 431, 503)
_JSON_IN = (400, 404, 406, 413, 415)


def _parameter(name: str, where: str, schema: Schema, description: str = "", **more: Any) -> Schema:
    told = {"description": description} if description else {}
    return {"name": name, "in": where, "required": where == "path", "schema": schema, **told, **more}


def _in_header(name: str, description: str, schema: Schema = TEXT, **more: Any) -> Schema:
    return _parameter(name, "header", schema, f"{description} At most {HEADER_LIMIT} bytes.", **more)


_ANY_TAGS = r'(?:W/)?"[!#-~]*"'
_TAGS = {"type": "string", "pattern": rf"^(?:\*|{_ANY_TAGS}(?:, {_ANY_TAGS})*)$"}
_PATH = _parameter("path", "path", ref("Path"), "Slashes stand as they are, or as %2F.", example="2026/hello.txt")
_SHA384 = _parameter("sha384", "path", ref("Sha384"))
_UUID = {"type": "string", "format": "uuid"}
BUCKET = _parameter("bucket", "path", _UUID, "The UUID of the bucket.")
_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}
_LIMIT = _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})
_CHANGES_IF = [
    _in_header("If-Match", "Only if the object has one of these ETags, or (*) is there.", _TAGS),
    _in_header("If-None-Match", "Only if it has none of these, or (*) is not there.", _TAGS),
    _in_header("If-Unmodified-Since", "Only if it was not modified since."),
]
_READS_IF = [
    _in_header("If-Match", "Else 412."),
    _in_header("If-None-Match", "Else 304."),
    _in_header("If-Modified-Since", "Else 304."),
    _in_header("If-Unmodified-Since", "Else 412."),
    _in_header("Range", "At most 16 ranges of bytes.", example="bytes=0-99"),
    _in_header("If-Range", "The ETag or date that the range is of; if it is not any more, all is sent."),
    _in_header("Want-Repr-Digest", "Algorithms by weight; sha-256=0 for none.", example="sha-256=1"),
]
_PUT_HEADERS = [
    *_CHANGES_IF,
    _in_header("X-Content-SHA384", "What the content must have, in hex; else 422.", ref("Sha384")),
    _in_header(
        "Repr-Digest",
        "The same by sha-256 or sha-512 (RFC 9530).",
        example="sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    ),
    _in_header("Content-Digest", "The same."),
]
_LISTING = [
    _parameter("prefix", "query", TEXT, "How the paths begin."),
    _parameter("delimiter", "query", {"type": "string", "enum": ["", "/"]}, "With '/', folders are told as prefixes."),
    _parameter("after", "query", TEXT, "The path after which the page begins."),
    _LIMIT,
    _parameter("sha384", "query", ref("Sha384")),
    _parameter("min_length", "query", COUNT | {"maximum": MAX_BYTES}),
    _parameter("max_length", "query", COUNT | {"maximum": MAX_BYTES}),
    _parameter("modified_since", "query", TIME),
]
_TUS = _parameter("Tus-Resumable", "header", {"type": "string", "const": "1.0.0"}) | {"required": True}
_NUMBER = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_TUS_BYTES = {"required": False, "content": {"application/offset+octet-stream": {"schema": _BYTES}}}
_TUS_OUT = {
    name: {"schema": TEXT}
    for name in ("Tus-Resumable", "Upload-Offset", "Upload-Expires", "Upload-Length", "Content-Location")
}
_CHECKSUM = _in_header("Upload-Checksum", "Of the bytes in this request: sha1, sha256 or sha384, and base64.")


def _sent(*names: str) -> Schema:
    return {name: {"schema": TEXT, "required": True} for name in names}


_SAFETY = ("Content-Disposition", "X-Content-Type-Options", "Content-Security-Policy")
_BLOB_HEADERS = _sent("ETag", "Last-Modified", "Accept-Ranges", "Cache-Control", "X-Content-SHA384", *_SAFETY) | {
    "Repr-Digest": {"schema": TEXT}
}
_BLOB = {
    200: {"description": "The bytes.", "headers": _BLOB_HEADERS, "content": {"*/*": {"schema": _BYTES}}},
    206: {
        "description": "The ranges; several as multipart/byteranges. Content-Range is told of one.",
        "headers": _BLOB_HEADERS | {"Content-Range": {"schema": TEXT}},
        "content": {"*/*": {"schema": _BYTES}},
    },
    302: {"description": "The bytes are elsewhere, at a URL that expires.", "headers": _sent("Location")},
    304: {"description": "The client has them.", "headers": _sent("ETag", "Cache-Control")},
}
_BLOB_PROBLEMS = (400, 404, 412, 416, 500)


def _json(schema: str, description: str, *headers: str) -> Schema:
    content = {"application/json": {"schema": ref(schema)}}
    return {"description": description, **({"headers": _sent(*headers)} if headers else {}), "content": content}


def _json_body(schema: str) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": ref(schema)}}}


_DONE = {204: {"description": "Done."}}
_STORED = {
    201: _json("Object", "The object is new.", "ETag", "Location"),
    200: _json("Object", "The object was replaced.", "ETag", "Location"),
}


@dataclass(frozen=True)
class Operation:
    """An operation: its `name` with a place for the route, successful `answers`, and the statuses of `problems`."""

    name: str
    tag: str
    summary: str
    answers: Mapping[int, Schema]
    problems: tuple[int, ...] = ()
    parameters: Sequence[Schema] = ()
    body: Schema | None = None
    links: Schema = field(default_factory=dict)

    @property
    def statuses(self) -> list[int]:
        """All problems that it may be answered with."""
        return sorted({*_ALWAYS, *self.problems})

    def as_dict(self, route: str, parameters: Sequence[Schema], security: Sequence[Schema]) -> Schema:
        """Return it under `route`, which is "", "my_" or "global_", with further `parameters`."""
        answers = {str(status): answer for status, answer in self.answers.items()}
        if "201" in answers and self.links and not route:
            answers["201"] = answers["201"] | {"links": self.links}
        problems = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in self.statuses}
        return {
            "operationId": self.name.format(route),
            "summary": self.summary,
            "tags": [self.tag],
            **({"parameters": [*parameters, *self.parameters]} if parameters or self.parameters else {}),
            **({"requestBody": self.body} if self.body else {}),
            "security": [*security],
            "responses": answers | problems,
        }


def _link(operation: str, **parameters: str) -> Schema:
    return {operation: {"operationId": operation, "parameters": parameters}}


_TO_BUCKET = {"bucket": "$response.body#/uuid"}
_TO_OBJECT = {"bucket": "$request.path.bucket", "path": "$request.path.path"}

# By the view's class and action.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("BucketViewSet", "list"): Operation(
        "list_buckets",
        "Buckets",
        "List the buckets you may see",
        {200: _json("BucketPage", "A page of buckets; `next` leads to the next one.")},
        (400, 406),
        [
            _parameter("name", "query", TEXT | {"maxLength": 150}, "Only those with exactly this name."),
            _parameter("after", "query", _UUID),
            _LIMIT,
        ],
    ),
    ("BucketViewSet", "create"): Operation(
        "create_bucket",
        "Buckets",
        "Make a bucket",
        {201: _json("Bucket", "The bucket is made.", "Location")},
        (*_JSON_IN, 409, 507),
        body=_json_body("NewBucket"),
        links=_link("show_bucket", **_TO_BUCKET)
        | _link("list_objects", **_TO_BUCKET)
        | _link("change_bucket", **_TO_BUCKET)
        | _link("delete_bucket", **_TO_BUCKET),
    ),
    ("BucketViewSet", "retrieve"): Operation(
        "show_bucket", "Buckets", "Show a bucket and what is in it", {200: _json("Bucket", "The bucket.")}, (404, 406)
    ),
    ("BucketViewSet", "partial_update"): Operation(
        "change_bucket",
        "Buckets",
        "Rename a bucket or set its quota",
        {200: _json("Bucket", "The bucket as it is now.")},
        (*_JSON_IN, 507),
        body=_json_body("BucketChange"),
    ),
    ("BucketViewSet", "destroy"): Operation(
        "delete_bucket", "Buckets", "Delete an empty bucket", _DONE, (404, 406, 409)
    ),
    ("ObjectListViewSet", "list"): Operation(
        "list_{}objects",
        "Objects",
        "List objects in the order of their paths",
        {200: _json("ObjectPage", "A page of objects; `next` leads to the next one, even from an empty page.")},
        (400, 404, 406),
        _LISTING,
    ),
    ("ObjectViewSet", "retrieve"): Operation(
        "get_{}object", "Objects", "Get the bytes of an object", _BLOB, _BLOB_PROBLEMS, [_PATH, *_READS_IF]
    ),
    ("ObjectViewSet", "update"): Operation(
        "put_{}object",
        "Objects",
        "Put bytes as an object; headers X-Blobstore-Meta-… are its metadata",
        _STORED,
        (400, 404, 411, 412, 413, 415, 422, 507),
        [_PATH, *_PUT_HEADERS],
        {"required": True, "content": {"application/octet-stream": {"schema": _BYTES}, "*/*": {"schema": _BYTES}}},
        _link("get_object", **_TO_OBJECT) | _link("delete_object", **_TO_OBJECT),
    ),
    ("ObjectViewSet", "destroy"): Operation(
        "delete_{}object", "Objects", "Delete an object", _DONE, (400, 404, 412), [_PATH, *_CHANGES_IF]
    ),
    ("ContentViewSet", "retrieve"): Operation(
        "get_content",
        "Objects",
        "Get bytes by their hash, if the bucket refers to them",
        _BLOB,
        _BLOB_PROBLEMS,
        [_SHA384, *_READS_IF],
    ),
    ("CopyViewSet", "create"): Operation(
        "copy_{}object",
        "Objects",
        "Copy an object without its bytes",
        _STORED,
        (*_JSON_IN, 412, 507),
        _CHANGES_IF,
        _json_body("Transfer"),
    ),
    ("MoveViewSet", "create"): Operation(
        "move_{}object",
        "Objects",
        "Move an object without its bytes",
        _STORED,
        (*_JSON_IN, 412, 507),
        _CHANGES_IF,
        _json_body("Transfer"),
    ),
    ("DescriptionViewSet", "create"): Operation(
        "describe_{}object",
        "Objects",
        "Set the content type and metadata of an object",
        {200: _json("Object", "The object as it is now.", "ETag")},
        (*_JSON_IN, 412, 507),
        _CHANGES_IF,
        _json_body("Description"),
    ),
    ("SigningViewSet", "create"): Operation(
        "sign_{}url",
        "Objects",
        "Sign a URL that lets anybody read an object for a while",
        {200: _json("Signed", "The URL.")},
        (*_JSON_IN, 412),
        body=_json_body("Signing"),
    ),
    ("BulkStatViewSet", "create"): Operation(
        "stat_{}objects",
        "Objects",
        "Ask about many objects",
        {200: _json("Results", "A result for each path.")},
        _JSON_IN,
        body=_json_body("Paths"),
    ),
    ("BulkDeleteViewSet", "create"): Operation(
        "delete_{}objects",
        "Objects",
        "Delete many objects",
        {200: _json("Results", "A result for each path.")},
        _JSON_IN,
        body=_json_body("Paths"),
    ),
    ("SignedObjectViewSet", "retrieve"): Operation(
        "get_signed_object",
        "Objects",
        "Get the bytes of an object by a signed URL",
        _BLOB,
        (*_BLOB_PROBLEMS, 410),
        [_parameter("payload", "path", TEXT), _parameter("signature", "path", TEXT), _PATH, *_READS_IF],
    ),
    ("PutRequestViewSet", "create"): Operation(
        "ask_to_put_{}object",
        "Proofs",
        "Ask to refer to a content by its hash",
        {201: _json("Challenge", "Prove that you have these ranges.", "Location")},
        (*_JSON_IN, 412),
        _CHANGES_IF,
        body=_json_body("PutRequest"),
        links=_link("prove", request_id="$response.body#/request_id"),
    ),
    ("ProofViewSet", "create"): Operation(
        "prove",
        "Proofs",
        "Answer a put request",
        _STORED,
        (*_JSON_IN, 409, 410, 412, 500, 507),
        [_parameter("request_id", "path", _ID), *_CHANGES_IF],
        _json_body("Proof"),
    ),
    ("UploadViewSet", "create"): Operation(
        "begin_upload",
        "Uploads",
        "Begin a resumable upload (tus 1.0.0), or join others",
        {201: {"description": "It has begun.", "headers": _sent("Location", "Tus-Resumable") | _TUS_OUT}},
        (400, 404, 409, 410, 411, 412, 413, 415, 422, 423, 460, 507),
        [
            _TUS,
            _in_header("Upload-Length", "How many bytes will come.", _NUMBER),
            _in_header("Upload-Defer-Length", "1 if that is not known yet.", {"type": "string", "const": "1"}),
            _in_header("Upload-Metadata", "bucket (or namespace), path, sha384, content_type, meta-…, in base64."),
            _in_header("Upload-Concat", "'partial', or 'final;' and the URLs of partial uploads."),
            _CHECKSUM,
            *_CHANGES_IF,
        ],
        _TUS_BYTES,
    ),
    ("UploadViewSet", "append"): Operation(
        "append_to_upload",
        "Uploads",
        "Send the next bytes",
        {204: {"description": "They are kept.", "headers": _TUS_OUT}},
        (400, 404, 409, 410, 411, 412, 413, 415, 422, 423, 460, 507),
        [
            _parameter("upload", "path", _ID),
            _TUS,
            _in_header("Upload-Offset", "At which byte it goes on.", _NUMBER) | {"required": True},
            _in_header("Upload-Length", "If it was deferred.", _NUMBER),
            _CHECKSUM,
            *_CHANGES_IF,
        ],
        _TUS_BYTES | {"required": True},
    ),
    ("UploadViewSet", "destroy"): Operation(
        "end_upload",
        "Uploads",
        "End an upload; what has come is deleted",
        _DONE,
        (404, 410, 412, 423),
        [_parameter("upload", "path", _ID), _TUS],
    ),
}

DISCOVER = Operation(
    "discover_{}", "Uploads", "Ask what of tus is spoken here", {204: {"description": "See the headers."}}
)
ANY_UPLOAD = _parameter("upload", "path", TEXT, "Whether there is such an upload does not matter.")
SHOW_UPLOAD = Operation(
    "show_upload",
    "Uploads",
    "Ask how far an upload is",
    {200: {"description": "See Upload-Offset.", "headers": _TUS_OUT}},
    (404, 410, 412, 423),
    [_parameter("upload", "path", _ID), _TUS],
)
