"""Which HTTP status and code each error has, and how it is told: problem+json (RFC 9457)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import Error, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore import errors
from django_blobstore.models import Bucket
from django_blobstore.resource_storage import StorageNotConfigured

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:django-blobstore:problem:"

# The most telling class of an error decides.
KNOWN: dict[type[errors.BlobstoreError], tuple[int, str]] = {
    errors.ResourceNotFound: (404, "resource-not-found"),
    errors.BucketNotFound: (404, "bucket-not-found"),
    errors.ResourceDeleted: (410, "resource-deleted"),
    errors.UploadPending: (503, "upload-pending"),
    errors.LengthMismatch: (400, "length-mismatch"),
    errors.HashMismatch: (422, "hash-mismatch"),
    errors.PartMismatch: (460, "checksum-mismatch"),  # as tus has it
    errors.ContentTooLarge: (413, "content-too-large"),
    errors.InvalidPath: (400, "invalid-path"),
    errors.InvalidHash: (400, "invalid-hash"),
    errors.InvalidNamespace: (400, "invalid-namespace"),
    errors.InvalidContentType: (400, "invalid-content-type"),
    errors.InvalidMetadata: (400, "invalid-metadata"),
    errors.RequestNotFound: (404, "request-not-found"),
    errors.RequestExpired: (410, "request-expired"),
    errors.ResponseMismatch: (409, "response-mismatch"),
    errors.TooManyFailures: (429, "too-many-failures"),
    errors.ConditionFailed: (412, "precondition-failed"),
    errors.QuotaExceeded: (507, "quota-exceeded"),
    errors.ContentDamaged: (500, "content-damaged"),
    errors.LeaseLost: (503, "lease-lost"),
    errors.UploadNotFound: (404, "upload-not-found"),
    errors.UploadExpired: (410, "upload-expired"),
    errors.UploadLocked: (423, "upload-locked"),
    errors.UploadUnfinished: (409, "upload-unfinished"),
    errors.OffsetMismatch: (409, "offset-mismatch"),
    errors.CatalogBusy: (503, "catalog-busy"),
}

_STORAGE_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What PostgreSQL (SQLSTATE) and SQLite say when their disk is full.
_CATALOG_FULL = ("53100", "SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
# Operational errors that waiting does not mend: the tables are not there, the password is wrong.
_CATALOG_WRONG = ("28", "3D", "42", "SQLITE_ERROR", "SQLITE_AUTH", "SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_READONLY")


class Problem(Exception):
    """An answer that is an error: its `status`, a stable `code`, what happened, `headers`, and further facts."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **facts: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.facts = facts

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the problem document."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.facts,
        }


def respond(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return the answer to `error`, or None if it was not foreseen: Django then makes it a 500 and reports it."""
    problem = problem_of(error)
    if problem is None:
        return None
    content_type = MEDIA_TYPE if _is_told_in_json(context["request"]) else None
    return Response(problem.as_dict(), status=problem.status, headers=problem.headers, content_type=content_type)


def problem_of(error: Exception) -> Problem | None:
    """Return `error` as a `Problem`, or None if nobody foresaw it."""
    match error:
        case Problem():
            return error
        case errors.BlobstoreError():
            return _of_store(error)
        case exceptions.APIException():
            return _of_framework(error)
        case Http404():
            return _of_framework(exceptions.NotFound())
        case PermissionDenied():
            return _of_framework(exceptions.PermissionDenied())
        case OSError():
            return _of_storage(error)
        case OperationalError() | InterfaceError():
            return _of_catalog(error)
    return None


def is_full(error: OSError) -> bool:
    """Tell whether `error` means that there is no room left."""
    return error.errno in _STORAGE_FULL


def _is_told_in_json(request: Request) -> bool:
    """Say whether `request` is not a browser's; one whose Accept was refused is answered in JSON too."""
    renderer = getattr(request, "accepted_renderer", None)
    return renderer is None or renderer.format == "json"


def _of_store(error: errors.BlobstoreError) -> Problem | None:
    known = next((KNOWN[cls] for cls in type(error).__mro__ if cls in KNOWN), None)
    if known is None:
        return None
    status, code = known
    facts = {name: _plain(value) for name, value in vars(error).items()}
    headers = {"Retry-After": str(facts.setdefault("retry_after", 1))} if status in (423, 429, 503) else {}
    return Problem(status, code, str(error), headers=headers, **facts)


def _of_framework(error: exceptions.APIException) -> Problem:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = str(error.auth_header)  # type: ignore[attr-defined]
    if getattr(error, "wait", None):
        headers["Retry-After"] = str(int(error.wait))  # type: ignore[attr-defined]
    if isinstance(error.detail, (list, dict)):
        detail = "The request is not valid; 'errors' says where."
        return Problem(error.status_code, "invalid", detail, headers=headers, errors=error.detail)
    code = str(error.detail.code).replace("_", "-")
    return Problem(error.status_code, code, str(error.detail), headers=headers)


def _of_storage(error: OSError) -> Problem | None:
    if is_full(error):
        logger.error("The storage is full.", exc_info=error)
        return Problem(507, "storage-full", "The storage has no room for this content; nothing was stored.")
    if isinstance(error, (ConnectionError, TimeoutError)):
        logger.error("The storage cannot be reached.", exc_info=error)
        told = isinstance(error, StorageNotConfigured)
        detail = str(error) if told else "The storage cannot be reached; try again."
        return Problem(503, "storage-unreachable", detail, headers={"Retry-After": "5"}, retry_after=5)
    return None


def _of_catalog(error: Error) -> Problem | None:
    """Return the answer to an error of the database that is about its state and not about our statement."""
    cause = error.__cause__
    told = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    if told.startswith(_CATALOG_FULL):
        logger.error("The catalog's database is full.", exc_info=error)
        return Problem(507, "catalog-full", "The catalog has no room for another row; nothing was stored.")
    if told.startswith(_CATALOG_WRONG):
        return None
    logger.error("The catalog's database cannot be reached.", exc_info=error)
    detail = "The catalog cannot be reached; try again."
    return Problem(503, "catalog-unreachable", detail, headers={"Retry-After": "5"}, retry_after=5)


def _plain(value: Any) -> Any:
    """Return `value` as JSON can carry it; text may have lone surrogates, which UTF-8 has not."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Bucket):
        return str(value.pk)
    return str(value) if isinstance(value, UUID) else value
