"""Which of MongoDB's errors mean that it cannot be reached, is too slow or has no room: those leave as OSErrors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    CursorNotFound,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from django_blobstore.storages.stored_file import StorageTimeout, StorageUnreachable

# Codes of mongo/base/error_codes.yml.
OUT_OF_DISK_SPACE = 14031
# MaxTimeMSExpired, WriteConcernFailed (for a wtimeout), NetworkTimeout, NetworkInterfaceExceededTimeLimit,
# ExceededTimeLimit
_TOO_SLOW = {50, 64, 89, 202, 262}
# HostUnreachable, HostNotFound, ShutdownInProgress, UnsatisfiableWriteConcern, FailedToSatisfyReadPreference,
# ReadConcernMajorityNotAvailableYet, PrimarySteppedDown, SocketException, LegacyNotPrimary, NotWritablePrimary,
# InterruptedAtShutdown, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, NotPrimaryOrSecondary
_UNREACHABLE = {6, 7, 91, 100, 133, 134, 189, 9001, 10058, 10107, 11600, 11602, 13435, 13436}


@contextmanager
def told_as_os_errors() -> Iterator[None]:
    """Raise StorageUnreachable, StorageTimeout or an OSError with ENOSPC for what MongoDB's errors mean."""
    try:
        yield
    except PyMongoError as error:
        told = _told(error)
        if told is None:
            raise
        raise told from error


def is_interruption(error: PyMongoError) -> bool:
    """Tell whether the same may work at once, because the connection broke or the primary changed."""
    return not isinstance(error, ServerSelectionTimeoutError) and isinstance(_told(error), StorageUnreachable)


def can_resume(error: PyMongoError) -> bool:
    """Tell whether a read that ended in `error` may go on with another query."""
    return isinstance(error, CursorNotFound) or isinstance(_told(error), (StorageUnreachable, StorageTimeout))


def _told(error: PyMongoError) -> OSError | None:
    codes = set(_codes(error))
    if OUT_OF_DISK_SPACE in codes or "No space left on device" in str(error):
        return OSError(errno.ENOSPC, "MongoDB has no room left; free some or add some")
    if isinstance(error, (NetworkTimeout, WaitQueueTimeoutError)) or codes & _TOO_SLOW:
        return StorageTimeout(f"MongoDB did not answer in time: {_message(error)}")
    if isinstance(error, ConnectionFailure) or codes & _UNREACHABLE:
        return StorageUnreachable(f"MongoDB cannot be reached or has no primary: {_message(error)}")
    return None


def _codes(error: PyMongoError) -> Iterator[Any]:
    if not isinstance(error, OperationFailure):
        return
    yield error.code
    details = error.details or {}
    for refused in (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())):
        yield refused.get("code")


def _message(error: PyMongoError) -> str:
    # That of a bulk write quotes the chunks.
    return f"codes {sorted(filter(None, _codes(error)))}" if isinstance(error, BulkWriteError) else str(error)
