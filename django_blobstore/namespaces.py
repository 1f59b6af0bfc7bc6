"""Where an object lives: the namespaces and the rules of paths inside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID, uuid5

from django.utils.functional import cached_property

from django_blobstore.errors import InvalidNamespace, InvalidPath

MAX_PATH_BYTES = 1024
MAX_USER_LENGTH = 150
MAX_SCOPE_LENGTH = 200

# Derives the UUID of a bucket that is spoken of by name. Never change it: it decides where content is found.
BUCKET_NAMES = UUID("f3a1bb1e-6f3c-5d0e-9a43-7a0d9a0c5b10")

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


@dataclass(frozen=True)
class Namespace:
    """One set of paths: of a bucket, of a user, of a user inside a bucket, or (neither) the global one.

    `bucket` is a UUID, or any other name; a name always stands for the same UUID, derived from it. `user` is an
    opaque key of at most 150 characters; the REST interface uses the primary key of the user, as text.
    """

    bucket: str | UUID = ""
    user: str = ""

    def __post_init__(self) -> None:
        check_key(str(self.bucket), "bucket")
        check_key(self.user, "user")

    @classmethod
    def of_bucket(cls, bucket: str | UUID) -> Namespace:
        """Return the namespace of `bucket`, which must be named: an empty one would mean the global namespace."""
        if not bucket:
            raise InvalidNamespace(bucket, "a bucket is a UUID or a name, not empty")
        return cls(bucket=bucket)

    @cached_property
    def bucket_id(self) -> UUID | None:
        """Primary key of the bucket, or None outside buckets."""
        if not self.bucket:
            return None
        try:
            return UUID(str(self.bucket))
        except ValueError:
            return uuid5(BUCKET_NAMES, str(self.bucket))

    @property
    def bucket_name(self) -> str:
        """What a bucket is called that is spoken of by name; "" for one spoken of by UUID, and outside buckets."""
        name = str(self.bucket)
        return name if self.bucket_id == uuid5(BUCKET_NAMES, name) else ""

    def __str__(self) -> str:
        named = [f"{kind} {key}" for kind, key in (("bucket", self.bucket), ("user", self.user)) if key]
        return ", ".join(named) or "global"


def clean_path(path: str) -> str:
    """Return `path` without its one optional leading slash, or raise `InvalidPath`.

    A path is opaque UTF-8 of 1 to 1024 bytes, made of segments between slashes. No segment is empty, ``.`` or ``..``;
    no character is a control character or U+FFFD.
    """
    return check_path(path.removeprefix("/"))


def check_path(path: str) -> str:
    """Return `path` if it is clean as it stands, or raise `InvalidPath` saying what is wrong."""
    reason = _fault(path)
    if reason:
        raise InvalidPath(path, reason)
    return path


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is free of what no part of a path may have, or raise `InvalidPath`; it may be empty."""
    reason = _fault_of_text(prefix)
    if reason:
        raise InvalidPath(prefix, reason)
    return prefix


def check_key(key: str, kind: str) -> str:
    """Return `key`, the bucket, user or requester that `kind` says it is, or raise `InvalidNamespace`."""
    if len(key) > MAX_USER_LENGTH:
        raise InvalidNamespace(key, f"a {kind} has at most {MAX_USER_LENGTH} characters")
    if _FORBIDDEN.search(key):
        raise InvalidNamespace(key, f"a {kind} has no control character, lone surrogate or U+FFFD")
    return key


def _fault(path: str) -> str:
    if not path:
        return "it is empty"
    if reason := _fault_of_text(path):
        return reason
    if path.startswith("/"):
        return "it starts with a slash"
    if {"", ".", ".."} & set(path.split("/")):
        return "it has an empty, '.' or '..' segment"
    return ""


def _fault_of_text(text: str) -> str:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if length > MAX_PATH_BYTES:
        return f"it has {length} bytes, more than {MAX_PATH_BYTES}"
    return "it has a control character or U+FFFD" if _FORBIDDEN.search(text) else ""
