"""What can go wrong, as one tree.

::

    BlobstoreError
    ├── ResourceNotFound         nothing is stored at that path, id or hash
    │   ├── BucketNotFound       there is no such bucket, and the caller may not make one
    │   └── ResourceDeleted      it was there when the proof was asked for, and is gone now
    ├── UploadPending            the path or hash is valid and its bytes are on their way: try again
    ├── AlreadyUploaded          the storage path of this resource is already recorded
    ├── ContentError             the bytes are not what the caller said
    │   ├── LengthMismatch       fewer or other bytes than announced
    │   ├── HashMismatch         another hash than announced
    │   │   └── PartMismatch     the same of a part of an upload
    │   └── ContentTooLarge      more than BLOBSTORE["MAX_LENGTH"]
    ├── InvalidName              a value that can never be stored (also a ValueError)
    │   ├── InvalidPath          a path that is not a clean relative path
    │   ├── InvalidHash          a hash that is not lower-case hex of the right length
    │   ├── InvalidNamespace     an empty or over-long bucket or user
    │   ├── InvalidContentType   a content type that is too long, or has control characters
    │   └── InvalidMetadata      metadata that is no JSON, or has what not every database can keep
    ├── ProofError               a proof of access was refused
    │   ├── RequestExpired       the put request is too old, or was answered before
    │   │   └── RequestNotFound  there is no such put request for this requester
    │   ├── ResponseMismatch     the answer is not the one the stored bytes give
    │   └── TooManyFailures      too many wrong answers for this content today
    ├── ConditionFailed          the object is not (or not any more) the one that the caller meant
    ├── QuotaExceeded            the bucket would hold more bytes than its quota
    ├── ContentDamaged           stored bytes are missing or no longer have their hash
    ├── LeaseLost                an upload took longer than its lease and its bytes were swept
    ├── ResumableError           an upload in parts cannot go on like that
    │   ├── UploadNotFound       there is no such upload for this requester
    │   │   └── UploadExpired    nobody went on with it in time
    │   ├── UploadLocked         another request is at work on it
    │   ├── UploadUnfinished     a part of another upload that is not whole yet
    │   └── OffsetMismatch       other bytes are wanted next than those that come
    ├── CountBypassed            rows that are counted were to be changed without counting
    └── CatalogBusy              the database refused the transaction every time it was tried

Every error carries the values it speaks of as attributes of the same name.
"""

from __future__ import annotations

from typing import Any


class BlobstoreError(Exception):
    """The root of every error this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with the message, which is not what these take.
        return BlobstoreError.__new__, (type(self), *self.args), vars(self)


class ResourceNotFound(BlobstoreError):
    """Nothing is stored under `key`: a path, an id or a hash."""

    def __init__(self, key: object, reason: str = "") -> None:
        super().__init__(f"Nothing is stored for {key!r}{': ' + reason if reason else ''}.")
        self.key = key


class BucketNotFound(ResourceNotFound):
    """There is no bucket `bucket`."""

    def __init__(self, bucket: object) -> None:
        super().__init__(bucket, "there is no such bucket")
        self.bucket = bucket


class ResourceDeleted(ResourceNotFound):
    """The content a proof was asked for has been removed since."""

    def __init__(self, sha384: str) -> None:
        super().__init__(sha384, "its last reference was removed after the put request; upload the content instead")
        self.sha384 = sha384


class UploadPending(BlobstoreError):
    """The bytes of `key` are still arriving; try again after `retry_after` seconds."""

    def __init__(self, key: object, retry_after: int = 5) -> None:
        super().__init__(f"The upload of {key!r} is not complete yet; try again in {retry_after} s.")
        self.key = key
        self.retry_after = retry_after


class AlreadyUploaded(BlobstoreError):
    """The resource `id` already has the storage path `path`."""

    def __init__(self, id: int, path: str) -> None:
        super().__init__(f"Resource {id} was already uploaded to {path!r}.")
        self.id = id
        self.path = path


class ContentError(BlobstoreError):
    """The bytes that arrived are not those announced; nothing was stored."""


class LengthMismatch(ContentError):
    """`actual` bytes where `expected` were announced."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"Expected {expected} bytes, got {actual}; nothing was stored.")
        self.expected = expected
        self.actual = actual


class HashMismatch(ContentError):
    """The bytes have the hash `actual` (hex, by `algorithm`), not `expected`."""

    def __init__(self, expected: str, actual: str, algorithm: str = "sha384") -> None:
        super().__init__(f"Expected {algorithm} {expected}, got {actual}; nothing was stored.")
        self.expected = expected
        self.actual = actual
        self.algorithm = algorithm


class PartMismatch(HashMismatch):
    """The bytes of one request have the hash `actual` (hex, by `algorithm`), not `expected`."""


class ContentTooLarge(ContentError):
    """More than `limit` bytes were announced or arrived."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The content is longer than the {limit} bytes that BLOBSTORE['MAX_LENGTH'] allows.")
        self.limit = limit


class InvalidName(BlobstoreError, ValueError):
    """`value` can never name or describe anything here, for `reason`."""

    kind = "name"

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(f"Invalid {self.kind} {value!r}: {reason}.")
        self.value = value
        self.reason = reason


class InvalidPath(InvalidName):
    """A path that is empty, over-long, absolute, or has unsafe segments or characters."""

    kind = "path"


class InvalidHash(InvalidName):
    """A hash that is not hex of the length its algorithm has."""

    kind = "hash"


class InvalidNamespace(InvalidName):
    """A bucket or user that cannot name a namespace."""

    kind = "namespace"


class InvalidContentType(InvalidName):
    """A content type that is over-long or has unsafe characters."""

    kind = "content type"


class InvalidMetadata(InvalidName):
    """Metadata that is no JSON, or text in it that not every database can keep."""

    kind = "metadata"


class ProofError(BlobstoreError):
    """A put request was not answered as it must be."""


class RequestExpired(ProofError):
    """The put request `request_id` is past its lifetime or was answered before."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"Put request {request_id!r} has expired or was answered before; ask for a new one.")
        self.request_id = request_id


class RequestNotFound(RequestExpired):
    """There is no put request `request_id` for this requester."""

    def __init__(self, request_id: str) -> None:
        ProofError.__init__(self, f"There is no put request {request_id!r}; ask for a new one.")
        self.request_id = request_id


class ResponseMismatch(ProofError):
    """The answer to `request_id` does not match the stored bytes."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The answer to put request {request_id!r} does not match the stored content.")
        self.request_id = request_id


class TooManyFailures(ProofError):
    """Too many wrong answers for one content on one day; try again after `retry_after` seconds."""

    def __init__(self, sha384: str, retry_after: int) -> None:
        super().__init__(f"Too many wrong answers for {sha384} today; upload the content, or wait {retry_after} s.")
        self.sha384 = sha384
        self.retry_after = retry_after


class ConditionFailed(BlobstoreError):
    """The object at `path` is not as the caller's condition wants it; `sha384` is what it has, "" if nothing is there.

    Nothing was changed.
    """

    def __init__(self, path: str, sha384: str = "") -> None:
        found = f"has the SHA-384 {sha384}" if sha384 else "is not there"
        super().__init__(f"The object at {path!r} {found}, which the request excludes.")
        self.path = path
        self.sha384 = sha384


class QuotaExceeded(BlobstoreError):
    """With this put the objects of `bucket` would have `length` bytes, more than its `quota`. Nothing was changed."""

    def __init__(self, bucket: object, quota: int, length: int) -> None:
        super().__init__(f"The bucket {bucket} would hold {length} bytes, more than its quota of {quota}.")
        self.bucket = bucket
        self.quota = quota
        self.length = length


class ContentDamaged(BlobstoreError):
    """The bytes stored at `path` are missing or do not have the hash `sha384` any more."""

    def __init__(self, sha384: str, path: str, reason: str) -> None:
        super().__init__(f"Stored content {sha384} at {path!r} is damaged: {reason}. Putting it again heals it.")
        self.sha384 = sha384
        self.path = path
        self.reason = reason


class LeaseLost(BlobstoreError):
    """The upload to the storage path `path` outlived its lease and was swept."""

    def __init__(self, path: str) -> None:
        super().__init__(f"The upload to {path!r} outlived its lease and was swept; put it again.")
        self.path = path


class ResumableError(BlobstoreError):
    """An upload in parts cannot go on as it was asked to."""


class UploadNotFound(ResumableError):
    """There is no upload `upload_id` for this requester."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"There is no upload {upload_id!r}; begin a new one.")
        self.upload_id = upload_id


class UploadExpired(UploadNotFound):
    """Nobody went on with `upload_id` for BLOBSTORE["UPLOAD_LIFETIME"]."""

    def __init__(self, upload_id: str) -> None:
        ResumableError.__init__(self, f"The upload {upload_id!r} has expired; begin a new one.")
        self.upload_id = upload_id


class UploadLocked(ResumableError):
    """Another request is at work on `upload_id`; ask for its offset after `retry_after` seconds."""

    def __init__(self, upload_id: str, retry_after: int = 1) -> None:
        super().__init__(
            f"Another request is at work on the upload {upload_id!r}; ask for its offset in {retry_after} s."
        )
        self.upload_id = upload_id
        self.retry_after = retry_after


class UploadUnfinished(ResumableError):
    """Bytes of `upload_id`, which is to be part of another upload, are still to come."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"The upload {upload_id!r} is not a partial one that is whole; finish it first.")
        self.upload_id = upload_id


class OffsetMismatch(ResumableError):
    """The upload goes on at the offset `expected`, not at `actual`."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"The upload goes on at the offset {expected}, not at {actual}.")
        self.expected = expected
        self.actual = actual


class CountBypassed(BlobstoreError):
    """`action` would change the objects that refer to a content without counting them."""

    def __init__(self, action: str) -> None:
        super().__init__(
            f"{action} would leave reference counts wrong; put, copy and remove objects through "
            "django_blobstore.managed.ManagedStorage (remove_all takes a QuerySet)."
        )
        self.action = action


class CatalogBusy(BlobstoreError):
    """The catalog refused a transaction `attempts` times; it may go through later."""

    def __init__(self, attempts: int) -> None:
        super().__init__(f"The catalog refused the transaction {attempts} times in a row; try again.")
        self.attempts = attempts
