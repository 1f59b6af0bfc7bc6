"""One put on its way: the order of its steps, and what is undone when one fails."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeGuard

from django.db import Error
from django.db.models.functions import Now

from django_blobstore.catalog import Change, Content, ResourceCatalog, StoredFile
from django_blobstore.conf import conf
from django_blobstore.digests import STORED_ALGORITHMS, HashingReader, Readable, Seekable
from django_blobstore.errors import BucketNotFound, LeaseLost, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import PendingFile, PendingFileQuerySet, Resource
from django_blobstore.namespaces import Namespace
from django_blobstore.resource_storage import ResourceStorage, fresh_path
from django_blobstore.storages.hooks import Unanswered
from django_blobstore.transactions import commit_alone
from django_blobstore.upkeep import expunge

logger = logging.getLogger(__name__)

SMALL = 1024 * 1024


class Upload:
    """Brings one stream into the store and makes the object at `path` refer to it."""

    def __init__(
        self,
        catalog: ResourceCatalog,
        storage: ResourceStorage,
        namespace: Namespace,
        path: str,
        *,
        scope: str,
        attributes: dict[str, Any],
        create_bucket: bool,
    ) -> None:
        self.catalog = catalog
        self.storage = storage
        self.namespace = namespace
        self.path = path
        self.scope = scope
        self.attributes = attributes
        self.create_bucket = create_bucket
        self.file: StoredFile | None = None
        self.renewed_at = time.monotonic()

    def run(self, stream: Readable, length: int, expected: Mapping[str, str]) -> Change:
        """Read the content, check it, keep it if it is new, and refer to it."""
        if _is_seekable(stream) and self._is_stored(expected.get("sha384", "")):
            start = stream.tell()
            reader = self._reader(stream, length, expected)
            reader.drain()
            reader.check(expected)
            if change := self._refer_to_stored(reader):
                return change
            stream.seek(start)
        reader = self._reader(stream, length, expected)
        head = reader.peek(SMALL + 1)
        if len(head) > SMALL:
            return self._keep(reader, reader, expected)
        reader.check(expected)
        change = self._refer_to_stored(reader) if self._is_stored(reader.sha384) else None
        return change or self._keep(reader, io.BytesIO(head), expected)

    def _reader(self, stream: Readable, length: int, expected: Mapping[str, str]) -> HashingReader:
        algorithms = dict.fromkeys((*STORED_ALGORITHMS, *expected))
        return HashingReader(stream, length, limit=conf.MAX_LENGTH, algorithms=algorithms, on_read=self._renew)

    def _is_stored(self, sha384: str) -> bool:
        stored = Resource.objects.filter(scope=self.scope, sha384=sha384, damaged_at=None).exclude(path="")
        return bool(sha384) and stored.exists()

    def _refer_to_stored(self, reader: HashingReader) -> Change | None:
        """Refer to the content without a file of our own; None if it is not stored any more."""
        try:
            return self._refer(reader)
        except BucketNotFound:
            raise
        except ResourceNotFound:
            return None

    def _keep(self, reader: HashingReader, source: HashingReader | io.BytesIO, expected: Mapping[str, str]) -> Change:
        """Write the content to a fresh path, which a row names from before the first byte, and refer to it."""
        self.file = StoredFile(self.storage.alias, fresh_path())
        try:
            self._announce(self.file, expected.get("sha384", ""))
            reach("upload.announced")
            self.storage.write(self.file.path, source)
            reach("upload.written")
            reader.check(expected)
            return self._refer(reader)
        except BaseException as error:
            self._abandon(self.file, error)
            raise

    def _refer(self, reader: HashingReader) -> Change:
        return self.catalog.refer(
            self.namespace,
            self.path,
            Content(reader.sha384, reader.length, reader.hexdigest("sha256")),
            scope=self.scope,
            file=self.file,
            attributes=self.attributes,
            create_bucket=self.create_bucket,
        )

    def _announce(self, file: StoredFile, declared_sha384: str) -> None:
        pending = PendingFile.objects.using(self.catalog.using)
        commit_alone(
            self.catalog.using,
            lambda: pending.create(
                path=file.path,
                storage=file.storage,
                bucket_id=self.namespace.bucket_id,
                user=self.namespace.user,
                managed_path=self.path,
                scope=self.scope,
                declared_sha384=declared_sha384,
                lease_until=Now() + timedelta(seconds=conf.LEASE),
            ),
        )
        self.renewed_at = time.monotonic()

    def _renew(self) -> None:
        if self.file is None or time.monotonic() - self.renewed_at < conf.LEASE / 3:
            return
        if not self._pending(self.file).renew(timedelta(seconds=conf.LEASE)):
            raise LeaseLost(self.file.path)
        reach("upload.renewed")
        self.renewed_at = time.monotonic()

    def _abandon(self, file: StoredFile, error: BaseException) -> None:
        """Delete what a failed upload wrote, unless the catalog took it: then its pending row is gone.

        It is gone as well when a sweep found the lease expired, but bytes may have been written after that. What a
        storage did not answer to it may still do: such a file is left to a sweep, for as long as a lease.
        """
        in_doubt = isinstance(error, Unanswered)
        try:
            given_up = self._pending(file).give_up(timedelta(seconds=conf.LEASE if in_doubt else 0))
            if not in_doubt and (given_up or isinstance(error, LeaseLost)):
                reach("upload.given_up")
                expunge([file])
        except Error:
            logger.warning("The upload to %r failed and its row could not be changed; a sweep cleans up.", file.path)

    def _pending(self, file: StoredFile) -> PendingFileQuerySet:
        return PendingFile.objects.using(self.catalog.using).filter(path=file.path)


def _is_seekable(stream: Readable) -> TypeGuard[Seekable]:
    seekable = getattr(stream, "seekable", None)
    return bool(seekable and seekable())
