"""One put on its way: the order of its steps, and what is undone when one fails."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import TypeGuard

from django.db import router

from django_blobstore.arrival import Arrival
from django_blobstore.catalog import Change, Content
from django_blobstore.conf import conf
from django_blobstore.digests import STORED_ALGORITHMS, HashingReader, Readable, Seekable
from django_blobstore.errors import BucketNotFound, ResourceNotFound
from django_blobstore.failpoints import reach
from django_blobstore.models import Resource
from django_blobstore.namespaces import Namespace
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.rows import is_stored

SMALL = 1024 * 1024


class Upload:
    """Brings one stream into the store and makes the object at `path` refer to it, by the catalog's `refer`."""

    def __init__(
        self,
        storage: ResourceStorage,
        namespace: Namespace,
        path: str,
        *,
        scope: str,
        using: str,
        refer: Callable[..., Change],
        durable: bool = True,
    ) -> None:
        self.storage = storage
        self.namespace = namespace
        self.path = path
        self.scope = scope
        self.using = using
        self.refer = refer
        self.durable = durable
        self.arrival: Arrival | None = None

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
        reader = self._reader(stream, length, dict.fromkeys((*STORED_ALGORITHMS, *expected)))
        head = reader.peek(SMALL + 1)
        if len(head) > SMALL:
            return self._keep(reader, reader, expected)
        reader.check(expected)
        change = self._refer_to_stored(reader) if self._is_stored(reader.sha384) else None
        return change or self._keep(reader, io.BytesIO(head), expected)

    def _reader(self, stream: Readable, length: int, algorithms: Iterable[str]) -> HashingReader:
        return HashingReader(stream, length, limit=conf.MAX_LENGTH, algorithms=algorithms, on_read=self._renew)

    def _is_stored(self, sha384: str) -> bool:
        return bool(sha384) and is_stored(router.db_for_read(Resource), self.scope, sha384)

    def _refer_to_stored(self, reader: HashingReader) -> Change | None:
        """Refer to the content without a file of our own; None if it is not stored any more."""
        try:
            return self.refer(Content(reader.sha384, reader.length))
        except BucketNotFound:
            raise
        except ResourceNotFound:
            return None

    def _keep(self, reader: HashingReader, source: HashingReader | io.BytesIO, expected: Mapping[str, str]) -> Change:
        """Write the content to a fresh path, which a row names from before the first byte, and refer to it."""
        with self._arrival(expected.get("sha384", "")) as self.arrival:
            self.arrival.write(self.storage, source)
            reach("upload.written")
            reader.check(expected)
            content = Content(reader.sha384, reader.length, reader.hexdigest("sha256"))
            return self.refer(content, file=self.arrival.file)

    def _arrival(self, declared_sha384: str) -> Arrival:
        return Arrival(
            self.using,
            self.storage.alias,
            durable=self.durable,
            bucket_id=self.namespace.bucket_id,
            user=self.namespace.user,
            managed_path=self.path,
            scope=self.scope,
            declared_sha384=declared_sha384,
        )

    def _renew(self) -> None:
        if self.arrival:
            self.arrival.renew()


def _is_seekable(stream: Readable) -> TypeGuard[Seekable]:
    seekable = getattr(stream, "seekable", None)
    return bool(seekable and seekable())
