"""Uploads in parts: any process can take the next one, and the one that brings the last byte makes the object.

Each part is a file of its own, whole and named by a pending file before it counts; a byte that is said to have come
stays. A request takes the upload from an older one by writing a token into its row, and the older one then asks for
its own in vain. The offset reaches the length in the transaction that makes the object, not before: whoever is told
that every byte has come need not come back, and otherwise sends the last part again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any

from django.db.models.functions import Now

from django_blobstore.arrival import Arrival
from django_blobstore.catalog import Condition, ResourceCatalog
from django_blobstore.conf import conf
from django_blobstore.digests import HashingReader, Readable
from django_blobstore.errors import (
    ContentTooLarge,
    HashMismatch,
    LeaseLost,
    LengthMismatch,
    OffsetMismatch,
    PartMismatch,
    ResumableError,
    UploadLocked,
    UploadUnfinished,
)
from django_blobstore.failpoints import reach
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import PendingFile, ResumableUpload, ResumableUploadQuerySet, UploadPart
from django_blobstore.namespaces import Namespace
from django_blobstore.parts import ArrivingBody, JoinedParts, Part
from django_blobstore.resource_storage import BLOCK_SIZE, ResourceStorage
from django_blobstore.upkeep import expunge_quietly
from django_blobstore.upload_sessions import (
    begin,
    check_length,
    end,
    extend,
    extend_half_way,
    find,
    known_parts,
    known_uploads,
    lease_of_parts,
    look_up,
    stored_parts,
)

__all__ = ["append", "begin", "concatenate", "end", "find"]

# What a killed process had of a part is sent again, so no part is long, in bytes or seconds.
PART_LENGTH = 32 * 1024 * 1024
PART_SECONDS = 10
# How often a request looks whether a newer one has taken the upload.
LOOK_SECONDS = 3
# A request that puts the parts together counts as dead after this long without a sign.
FINISHING_LEASE = timedelta(seconds=15)


def append(
    upload: ResumableUpload,
    offset: int,
    stream: Readable,
    *,
    length: int | None = None,
    digest: tuple[str, str] | None = None,
    condition: Condition | None = None,
) -> ResumableUpload:
    """Add what `stream` gives to `upload`, from `offset` on; with its last byte it becomes an object.

    `length` tells that of an upload begun without. `digest` is an algorithm of hashlib and a hash in hex which the
    bytes of `stream` must have: then they count as a whole or not at all. Otherwise all bytes count that came before
    `stream` or the storage failed. `condition` is that of `ManagedStorage.put`, asked when the object is made.

    Raises `OffsetMismatch`, `PartMismatch`, `LengthMismatch`, `ContentTooLarge`, `UploadLocked` when a newer request
    takes the upload, `UploadNotFound`, `UploadExpired`, and what `ManagedStorage.put` raises: after a `HashMismatch`
    the upload is gone.
    """
    turn = _Turn(upload, condition)
    if upload.is_whole and offset == upload.offset:
        return upload
    turn.take(offset, length)
    turn.append(ArrivingBody(stream), digest)
    return upload


def concatenate(
    requester: str,
    ids: Sequence[str],
    *,
    namespace: Namespace,
    path: str,
    condition: Condition | None = None,
    **about: Any,
) -> ResumableUpload:
    """Make the object at `path` of the partial uploads `ids`, one after the other, and return its upload.

    They stay for a while, so that the request can be repeated. `condition` is that of `ManagedStorage.put`, and
    `about` are further arguments of `begin`. Raises `UploadUnfinished` for an upload that is not partial and whole,
    `UploadNotFound`, `UploadExpired`, and what `ManagedStorage.put` raises.
    """
    partials = [find(id, requester) for id in ids]
    for partial in partials:
        if not (partial.partial and partial.is_whole):
            raise UploadUnfinished(partial.pk)
    length = sum(partial.offset for partial in partials)
    upload = begin(requester, namespace=namespace, path=path, length=length, **about)
    try:
        _Turn(upload, condition).concatenate(partials)
    except Exception:
        end(upload)
        raise
    return upload


class _Turn:
    """The turn of one request at `upload`, which lasts until a newer one takes it."""

    def __init__(self, upload: ResumableUpload, condition: Condition | None) -> None:
        self.upload = upload
        self.condition = condition
        self.length = upload.length
        self.catalog = ResourceCatalog()
        self.storage = ResourceStorage()
        self.token = token_urlsafe(16)
        self.lease = timedelta(seconds=conf.LEASE)
        self.arrival: Arrival | None = None
        self.looked_at = time.monotonic()

    def take(self, offset: int, length: int | None = None) -> None:
        """Take the upload from whoever has it, if it goes on at `offset`, and note its `length`."""
        self.catalog.transact(lambda: self._take(offset))
        reach("resumable.taken")
        self._note_length(length)

    def append(self, body: ArrivingBody, digest: tuple[str, str] | None) -> None:
        """Add part after part until the body ends or the upload is finished."""
        while not self._is_complete(0) and self._receive(body, digest) and not (body.ended or digest):
            pass
        if body.error:
            raise body.error
        if self._is_complete(0):
            self._refuse_more(body)
            self._finish([])

    def concatenate(self, partials: Sequence[ResumableUpload]) -> None:
        """Finish with the parts of `partials`, which stay as long as the request may be repeated."""
        self.take(0)
        rows = known_uploads().filter(pk__in=[partial.pk for partial in partials])
        self.catalog.transact(lambda: extend(rows))
        lease = timedelta(seconds=conf.LEASE)
        self._put(stored_parts(partials), lambda: rows.update(expires_at=Now() + lease))

    def _take(self, offset: int) -> None:
        rows = known_uploads().filter(pk=self.upload.pk)
        state, lease_until = ResumableUpload.State.ARRIVING, Now() + self.lease
        to_be_had = rows.live().unfinished().filter(offset=offset)
        if not to_be_had.update(token=self.token, state=state, lease_until=lease_until):
            current = look_up(self.upload.pk, self.upload.requester)
            raise OffsetMismatch(current.offset, offset) if current.offset != offset else self._lost()
        # While the row is locked: it may be deleted at any moment after.
        self.upload.refresh_from_db()
        extend_half_way(self.upload)

    def _note_length(self, length: int | None) -> None:
        known = self.upload.length
        if length is not None and known is not None and length != known:
            raise LengthMismatch(known, length)
        if known is None and length is not None:
            check_length(length)
            if length < self.upload.offset:
                raise LengthMismatch(length, self.upload.offset)
            # The offset reaches the length only with the object.
            if length > self.upload.offset or self.upload.partial:
                self._change(length=length)
        self.length = known if length is None else length

    def _receive(self, body: ArrivingBody, digest: tuple[str, str] | None) -> bool:
        """Store one part and record it, or finish with it; False if nothing came."""
        algorithms = [digest[0]] if digest else []
        body.begin_part(math.inf if digest else PART_SECONDS)
        reader = HashingReader(body, self._room(digest is not None), algorithms=algorithms, on_read=self._look)
        if not reader.peek(BLOCK_SIZE):
            _check(reader, body, digest)
            self._refuse_more(body)
            return False
        with Arrival(self.catalog.using, self.storage.alias) as self.arrival:
            self.arrival.write(self.storage, reader)
            reach("resumable.written")
            _check(reader, body, digest)
            part = Part(self.arrival.file, reader.length)
            if self._is_complete(part.length):
                self._refuse_more(body)
                self._finish([part])
            else:
                self._record(part)
        self.arrival = None
        return True

    def _room(self, whole: bool) -> int:
        """Return how many bytes the next part may have; negative for all there are."""
        limit = conf.MAX_LENGTH if self.length is None else self.length
        if limit is None:
            return -1 if whole else PART_LENGTH
        room = limit - self.upload.offset
        return room if whole else min(room, PART_LENGTH)

    def _is_complete(self, more: int) -> bool:
        """Say whether `more` bytes make the upload an object."""
        unfinished = not (self.upload.partial or self.upload.is_whole)
        return unfinished and self.upload.offset + more == self.length

    def _refuse_more(self, body: ArrivingBody) -> None:
        limit = conf.MAX_LENGTH if self.length is None else self.length
        if limit is not None and body.has_more():
            raise ContentTooLarge(limit) if self.length is None else LengthMismatch(limit, limit + 1)

    def _record(self, part: Part) -> None:
        """Make `part` count."""
        self.catalog.transact(lambda: self._record_in_transaction(part))
        self.upload.offset += part.length
        reach("resumable.recorded")

    def _record_in_transaction(self, part: Part) -> None:
        offset = self.upload.offset
        self._change(offset=offset + part.length, lease_until=Now() + self.lease)
        UploadPart.objects.using(self.catalog.using).create(
            upload_id=self.upload.pk, offset=offset, file_id=part.file.path
        )
        file = PendingFile.objects.using(self.catalog.using).filter(path=part.file.path)
        if not file.renew(lease_of_parts(), length=part.length, offset=part.length):
            raise LeaseLost(part.file.path)
        extend_half_way(self.upload)
        reach("resumable.part_added")

    def _finish(self, last: list[Part]) -> None:
        """Make the object of the parts recorded and the `last` one, which are needed no more then."""
        parts = [*stored_parts([self.upload]), *last]
        try:
            self._put(parts, lambda: self._give_up(last))
        except HashMismatch:
            end(self.upload)
            raise
        expunge_quietly([part.file for part in parts])

    def _give_up(self, last: list[Part]) -> None:
        recorded = known_parts().filter(upload=self.upload.pk)
        recorded.files().give_up()
        recorded.delete()
        PendingFile.objects.using(self.catalog.using).filter(path__in=[part.file.path for part in last]).give_up()

    def _put(self, parts: Sequence[Part], release: Callable[[], object]) -> None:
        """Put the content of `parts`; what `release` does to them is committed with the object, or not at all."""
        self.lease = FINISHING_LEASE
        self._change(state=ResumableUpload.State.FINISHING, lease_until=Now() + self.lease)
        reach("resumable.finishing")
        length = sum(part.length for part in parts)

        def settle() -> None:
            self._change(state=ResumableUpload.State.FINISHED, length=length, offset=length, token="")
            self.upload.refresh_from_db()
            release()
            reach("resumable.settled")

        with JoinedParts(parts, self._look) as content:
            managed = ManagedStorage(self.catalog, self.storage).put(
                self.upload.namespace,
                self.upload.path,
                content,
                length,
                check_hash=self.upload.sha384,
                content_type=self.upload.content_type,
                metadata=self.upload.metadata,
                create_bucket=False,
                condition=self.condition,
                alongside=settle,
            )
        self.upload.was_stored = managed.was_stored

    def _look(self) -> None:
        """See from time to time that the upload and the file under way are still ours, and say that we are at it."""
        if self.arrival:
            self.arrival.renew()
        if time.monotonic() - self.looked_at < LOOK_SECONDS:
            return
        self._change(lease_until=Now() + self.lease)
        self.catalog.transact(lambda: extend_half_way(self.upload))
        reach("resumable.looked")
        self.looked_at = time.monotonic()

    def _change(self, **columns: Any) -> None:
        if not self._rows().update(**columns):
            raise self._lost()

    def _rows(self) -> ResumableUploadQuerySet:
        return known_uploads().filter(pk=self.upload.pk, token=self.token)

    def _lost(self) -> ResumableError:
        """Return, or raise, why the upload is not ours any more."""
        look_up(self.upload.pk, self.upload.requester)
        return UploadLocked(self.upload.pk)


def _check(reader: HashingReader, body: ArrivingBody, digest: tuple[str, str] | None) -> None:
    """Raise unless the bytes read have the `digest`; of a body that broke off they cannot have it."""
    if digest is None:
        return
    if body.error:
        raise body.error
    algorithm, expected = digest
    if reader.hexdigest(algorithm) != expected:
        raise PartMismatch(expected, reader.hexdigest(algorithm), algorithm)
