"""One file on its way into a storage: named before its first byte, leased while it is written, undone if that fails."""

from __future__ import annotations

import io
import logging
import time
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from django.db import Error
from django.db.models.functions import Now

from django_blobstore import uncommitted
from django_blobstore.catalog import StoredFile
from django_blobstore.conf import conf
from django_blobstore.digests import HashingReader
from django_blobstore.errors import LeaseLost
from django_blobstore.failpoints import reach
from django_blobstore.models import PendingFile, PendingFileQuerySet
from django_blobstore.resource_storage import ResourceStorage, fresh_path
from django_blobstore.rows import insert
from django_blobstore.storages.hooks import Unanswered
from django_blobstore.transactions import commit_alone
from django_blobstore.upkeep import expunge

logger = logging.getLogger(__name__)


class Arrival:
    """A context in which the bytes of a fresh `file` of the storage `alias` may be written.

    A pending file with the further columns `about` names it from before the first byte. When the context is left by an
    exception the file is deleted, unless something was committed meanwhile that keeps it. Unless `durable`, it may be
    used inside a transaction; see `django_blobstore.uncommitted`.
    """

    def __init__(self, using: str, alias: str, *, durable: bool = True, **about: Any) -> None:
        self.file = StoredFile(alias, fresh_path())
        self._using = using
        self._durable = durable
        self._about = about
        self._renewed_at = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._announce()
            self._renewed_at = time.monotonic()
            reach("upload.announced")
        except BaseException as error:
            self._abandon(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon(error)

    def write(self, storage: ResourceStorage, content: HashingReader | io.BytesIO) -> None:
        """Store all of `content` in the file, which is one of `storage`. Raises `LeaseLost` if the file was swept."""
        try:
            storage.write(self.file.path, content)
        except FileNotFoundError as error:
            # A storage may notice that the file it is writing is gone before anybody looks at the lease.
            if self._pending().filter(discard=False).exists():
                raise
            raise LeaseLost(self.file.path) from error

    def renew(self) -> None:
        """Extend the lease if a third of it is over. Raises `LeaseLost` if the file was swept."""
        if time.monotonic() - self._renewed_at < conf.LEASE / 3:
            return
        if not self._pending().renew(timedelta(seconds=conf.LEASE)):
            raise LeaseLost(self.file.path)
        reach("upload.renewed")
        self._renewed_at = time.monotonic()

    def _announce(self) -> None:
        if self._durable:
            commit_alone(self._using, self._insert)
        else:
            uncommitted.announce(self._using, self.file.storage, self.file.path, self._insert)

    def _insert(self) -> None:
        lease_until = Now() + timedelta(seconds=conf.LEASE)
        pending = PendingFile(path=self.file.path, storage=self.file.storage, lease_until=lease_until, **self._about)
        insert(self._using, pending)

    def _abandon(self, error: BaseException) -> None:
        """Delete what was written, unless a resource took the file, whose pending row is gone then, or an upload did.

        The row is gone as well when a sweep found the lease expired, but bytes may have been written after that. What
        a storage did not answer to it may still do: such a file is left to a sweep, for as long as a lease.
        """
        in_doubt = isinstance(error, Unanswered)
        try:
            given_up = self._pending().of_no_part().give_up(timedelta(seconds=conf.LEASE if in_doubt else 0))
            if not in_doubt and (given_up or isinstance(error, LeaseLost)):
                reach("upload.given_up")
                expunge([self.file])
        except Error:
            path = self.file.path
            logger.warning("The upload to %r failed and its row could not be changed; a sweep cleans up.", path)

    def _pending(self) -> PendingFileQuerySet:
        return PendingFile.objects.using(self._using).filter(path=self.file.path)
