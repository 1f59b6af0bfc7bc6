"""Where bytes, rows and proofs meet: objects in buckets, of users, and global.

Bytes are written before the catalog speaks of them and deleted after it stopped to. In between a `PendingFile` names
them, so that a crash anywhere leaves a row with a deadline and never a file nobody knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from django.db import router, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from django_blobstore import put_requests
from django_blobstore.blob_file import BlobFile
from django_blobstore.catalog import Change, Condition, Content, Removed, ResourceCatalog
from django_blobstore.conf import conf
from django_blobstore.descriptions import check_content_type, clean_metadata
from django_blobstore.digests import Stream, as_readable, clean_hash
from django_blobstore.errors import BlobstoreError, ContentDamaged, InvalidNamespace, ResourceNotFound, UploadPending
from django_blobstore.managed_async import AsyncTwins
from django_blobstore.models import Bucket, ManagedResource, PendingFile, ResumableUpload
from django_blobstore.namespaces import MAX_SCOPE_LENGTH, Namespace, check_key, clean_path
from django_blobstore.proof import PutResponse, RequestResponse
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.rows import find_object, lock_object
from django_blobstore.tracing import traced
from django_blobstore.upkeep import expunge_quietly
from django_blobstore.upload import Upload

__all__ = ["BlobFile", "ManagedStorage", "Namespace", "PutResponse", "RequestResponse"]

logger = logging.getLogger(__name__)

# How often an object may be replaced, and its bytes deleted, between a look at its row and one at its bytes.
REREADS = 10
BATCH = 500


class ManagedStorage(AsyncTwins):
    """Puts, gets and removes objects, keeping each content once. The methods with an "a" before are for coroutines.

    `catalog` and `resource_storage` default to what the settings say. An instance holds no state and may be shared.
    Paths are clean relative paths of at most 1024 bytes; one leading slash is ignored.
    """

    def __init__(self, catalog: ResourceCatalog | None = None, resource_storage: ResourceStorage | None = None) -> None:
        self.catalog = catalog or ResourceCatalog()
        self.resource_storage = resource_storage or ResourceStorage()

    def get_for_bucket(self, bucket_uuid: str | UUID, path: str) -> BlobFile:
        """`get` in a bucket."""
        return self.get(Namespace.of_bucket(bucket_uuid), path)

    def put_for_bucket(self, bucket_uuid: str | UUID, path: str, stream: Stream, length: int = -1) -> ManagedResource:
        """`put` in a bucket."""
        return self.put(Namespace.of_bucket(bucket_uuid), path, stream, length)

    def put_for_bucket_and_check_hash(
        self, bucket_uuid: str | UUID, path: str, stream: Stream, length: int, check_hash: str
    ) -> ManagedResource:
        """`put` in a bucket, storing nothing unless the SHA-384 is `check_hash` (hex); "" checks nothing."""
        return self.put(Namespace.of_bucket(bucket_uuid), path, stream, length, check_hash=check_hash)

    def remove_for_bucket(self, bucket_uuid: str | UUID, path: str) -> None:
        """`remove` in a bucket."""
        self.remove(Namespace.of_bucket(bucket_uuid), path)

    def put_for_bucket_request(self, bucket_uuid: str | UUID, path: str, sha384: str) -> RequestResponse:
        """`put_request` in a bucket."""
        return self.put_request(Namespace.of_bucket(bucket_uuid), path, sha384)

    def stat(self, namespace: Namespace, path: str) -> ManagedResource:
        """Return the object at `path` with its resource.

        Raises `ResourceNotFound`, or `UploadPending` while the first upload to the path is under way: try again.
        """
        path = clean_path(path)
        managed = find_object(router.db_for_read(ManagedResource), namespace, path)
        if managed is None:
            raise UploadPending(path) if arriving_at(namespace, path) else ResourceNotFound(path)
        if not managed.resource.path:
            raise UploadPending(path)
        return managed

    def get(self, namespace: Namespace, path: str) -> BlobFile:
        """Open the object at `path`.

        Raises `ResourceNotFound`, `UploadPending` while the first upload to the path is under way, and
        `ContentDamaged` if the stored bytes are missing; reading raises it if they are wrong.
        """
        return self.open(self.stat(namespace, path))

    @traced
    def open(self, managed: ManagedResource, *, start: int = 0) -> BlobFile:
        """Open the bytes of `managed`, an object just looked up. Raises like `get`.

        To say at which byte reading will `start` may spare a round trip; until moved there the file is at its first.
        """
        for _ in range(REREADS):
            try:
                resource = managed.resource
                file = ResourceStorage(resource.storage).get(resource.path, resource.length, start=start)
                return BlobFile(managed, file, on_damage=partial(self._damaged, managed))
            except FileNotFoundError:
                # The object may have been replaced since it was read, and its old bytes swept.
                known, managed = managed, self.stat(managed.namespace, managed.path)
                if managed.resource.path == known.resource.path:
                    raise self._damaged(managed, "its file is missing", missing=True) from None
        raise UploadPending(managed.path)

    @traced
    def put(
        self,
        namespace: Namespace,
        path: str,
        stream: Stream,
        length: int = -1,
        *,
        check_hash: str = "",
        digests: Mapping[str, str] | None = None,
        content_type: str = "",
        metadata: Mapping[str, Any] | None = None,
        create_bucket: bool = True,
        condition: Condition | None = None,
        alongside: Callable[[], object] | None = None,
        durable: bool = True,
    ) -> ManagedResource:
        """Store `stream` as the object at `path`, in place of what was there.

        `length` bytes are read, or all there are if it is negative. `check_hash` is the SHA-384 it must have and
        `digests` further hashes by hashlib's names, all in hex. Content up to 1 MiB is hashed in memory and not
        written if it is stored already. In the transaction that makes the object, and each time that this is tried,
        `condition` is asked about the object there was, or None, and `alongside` is called at the end.

        Raises `LengthMismatch`, `HashMismatch`, `ContentTooLarge`, `InvalidPath`, `InvalidContentType`,
        `InvalidMetadata`, `LeaseLost`, `CatalogBusy`, `QuotaExceeded`, `BucketNotFound` unless `create_bucket`, and
        what `condition` raises, such as `ConditionFailed`; nothing is stored then. Raises `RuntimeError` inside an
        `atomic` block, unless told that it need not be `durable`: then the object comes with the block, and after a
        rollback a sweep deletes its bytes.
        """
        path = clean_path(path)
        said = {"content_type": check_content_type(content_type), "metadata": clean_metadata(metadata)}
        expected = {name: clean_hash(value, name) for name, value in (digests or {}).items()}
        if check_hash:
            expected["sha384"] = clean_hash(check_hash)
        scope = self.scope_of(namespace)
        refer = partial(
            self.catalog.refer,
            namespace,
            path,
            scope=scope,
            attributes=said,
            create_bucket=create_bucket,
            condition=condition,
            alongside=alongside,
            durable=durable,
        )
        upload = Upload(
            self.resource_storage,
            namespace,
            path,
            scope=scope,
            using=self.catalog.using,
            refer=refer,
            durable=durable,
        )
        return self._finish(upload.run(as_readable(stream), length, expected))

    @traced
    def remove(self, namespace: Namespace, path: str, *, condition: Condition | None = None) -> None:
        """Remove the object at `path`; the last reference to a content frees its bytes after `DELETION_GRACE`.

        `condition` is asked in the transaction about the object there is. Inside an `atomic` block it takes effect
        with the block. Raises `ResourceNotFound`, `CatalogBusy`, and what `condition` raises.
        """
        self._finish(self.catalog.release(namespace, clean_path(path), condition=condition))

    def remove_all(self, objects: QuerySet[ManagedResource]) -> int:
        """Remove each of `objects` in a transaction of its own, or all in the caller's; return how many there were.

        One that is replaced or moved before its turn stays, unless it is still one of `objects` then.
        """
        # In one order, so that two callers with a transaction each cannot wait for each other.
        ordered = objects.using(self.catalog.using).order_by("resource_id", "pk")
        removed = 0
        while batch := list(ordered[:BATCH]):
            for managed in batch:
                with suppress(ResourceNotFound):
                    self.remove(managed.namespace, managed.path, condition=partial(_require_same, managed))
                    removed += 1
        return removed

    def remove_some(self, objects: QuerySet[ManagedResource], *, limit: int = 100) -> Removed:
        """Remove the first `limit` of `objects`, or what there is, in one transaction; return what that came to.

        It is for removing many in several steps. Raises `CatalogBusy`.
        """
        removed = self.catalog.release_many(objects[:limit])
        if removed.discarded:
            transaction.on_commit(partial(expunge_quietly, removed.discarded), using=self.catalog.using)
        return removed

    @traced
    def remove_bucket(self, bucket: Bucket) -> int:
        """Remove `bucket` with every object in it, all or nothing; return how many objects there were.

        Nothing happens to a bucket that is gone already.
        """
        return self.catalog.transact(lambda: self._remove_bucket(bucket))

    @traced
    def copy(
        self,
        managed: ManagedResource,
        namespace: Namespace,
        path: str,
        *,
        create_bucket: bool = True,
        condition: Condition | None = None,
    ) -> ManagedResource:
        """Make the object at `path` refer to the same content as `managed`, and return it.

        No bytes move unless the two namespaces do not share content. `create_bucket` and `condition` are those of
        `put`. Raises `ResourceNotFound` if the content of `managed` is gone or damaged.
        """
        resource, path = managed.resource, clean_path(path)
        attributes = {"content_type": managed.content_type, "metadata": managed.metadata}
        if self.scope_of(namespace) != resource.scope:
            with self.open(managed) as content:
                wanted: dict[str, Any] = {"create_bucket": create_bucket, "condition": condition, **attributes}
                return self.put(namespace, path, content, resource.length, check_hash=resource.sha384, **wanted)
        content_of = Content(resource.sha384, resource.length, resource.sha256)
        refer = partial(self.catalog.refer, namespace, path, content_of, scope=resource.scope)
        return self._finish(refer(attributes=attributes, create_bucket=create_bucket, condition=condition))

    @traced
    def move(
        self, managed: ManagedResource, namespace: Namespace, path: str, *, condition: Condition | None = None
    ) -> ManagedResource:
        """Give `managed` another namespace and path, in place of what is there, and return it.

        No bytes move unless the two namespaces do not share content; then it is a copy and a removal. `condition` is
        asked about what is there. Raises `ResourceNotFound` if `managed` was removed or replaced meanwhile.
        """
        path = clean_path(path)
        if (namespace.bucket_id, namespace.user, path) == (managed.bucket_id, managed.user, managed.path):
            return managed
        if self.scope_of(namespace) == managed.resource.scope:
            return self._finish(self.catalog.move(managed, namespace, path, condition=condition))
        moved = self.copy(managed, namespace, path, create_bucket=False, condition=condition)
        self.remove(managed.namespace, managed.path, condition=partial(_require_same, managed))
        return moved

    def describe(
        self,
        namespace: Namespace,
        path: str,
        *,
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        condition: Condition | None = None,
    ) -> ManagedResource:
        """Set what is said of the object at `path`, as far as it is given, touch no byte of it, and return it.

        `condition` is asked in the transaction about the object there is. Raises `ResourceNotFound`, `CatalogBusy`,
        `InvalidContentType`, `InvalidMetadata`, and what `condition` raises.
        """
        path = clean_path(path)
        said: dict[str, Any] = {}
        if content_type is not None:
            said["content_type"] = check_content_type(content_type)
        if metadata is not None:
            said["metadata"] = clean_metadata(metadata)
        return self.catalog.transact(lambda: self._describe(namespace, path, said, condition))

    @traced
    def put_request(
        self,
        namespace: Namespace,
        path: str,
        sha384: str,
        *,
        requester: str = "",
        readable: QuerySet[ManagedResource] | None = None,
        content_type: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> RequestResponse:
        """Ask to refer to the stored content `sha384` (hex) at `path`, by proving to hold it; reads no bytes.

        Only `requester` can answer. With ``PROOF_SCOPE = "readable"`` the content must be that of one of the objects
        `readable`, if given. `content_type` and `metadata` are what the object will have. Raises `ResourceNotFound`
        if the content is not there for the asking, `UploadPending` while it is arriving, and `TooManyFailures`.
        """
        return put_requests.issue(
            namespace,
            clean_path(path),
            clean_hash(sha384),
            scope=self.scope_of(namespace),
            requester=check_key(requester, "requester"),
            readable=readable,
            content_type=check_content_type(content_type),
            metadata=clean_metadata(metadata),
        )

    @traced
    def proof_of_access_response(
        self,
        put_response: PutResponse,
        *,
        requester: str = "",
        create_bucket: bool = True,
        condition: Condition | None = None,
    ) -> ManagedResource:
        """Check the answer to a put request and, if it is right, store the reference it asked for.

        A request can be answered once; if `condition`, which is that of `put`, raises, it was not. Raises
        `RequestNotFound` if `requester` has no such request, `RequestExpired`, `ResponseMismatch`, `TooManyFailures`,
        `ResourceDeleted` if the content is gone meanwhile, `BucketNotFound` unless `create_bucket`, and what
        `condition` raises.
        """
        return self._finish(
            put_requests.answer(self.catalog, put_response, requester, create_bucket=create_bucket, condition=condition)
        )

    def scope_of(self, namespace: Namespace) -> str:
        """Return whose content `namespace` shares; see the setting ``DEDUP_SCOPE``."""
        rule = conf.DEDUP_SCOPE
        if rule == "global":
            return ""
        if rule not in ("owner", "bucket"):
            scope = str(import_string(rule)(namespace))
            if len(scope) > MAX_SCOPE_LENGTH:
                raise InvalidNamespace(scope, f"a scope has at most {MAX_SCOPE_LENGTH} characters")
            return scope
        owner = None
        if rule == "owner" and namespace.bucket_id:
            owner = Bucket.objects.filter(pk=namespace.bucket_id).values_list("owner_id", flat=True).first()
        if owner is not None:
            return f"user:{owner}"
        if namespace.bucket_id:
            return f"bucket:{namespace.bucket_id}"
        return f"user:{namespace.user}" if namespace.user else ""

    def _remove_bucket(self, bucket: Bucket) -> int:
        # From here on a put into it waits, and then finds no bucket. One that is gone may be made anew at any time.
        if Bucket.objects.using(self.catalog.using).select_for_update().filter(pk=bucket.pk).first() is None:
            return 0
        removed = self.remove_all(ManagedResource.objects.filter(bucket_id=bucket.pk))
        Bucket.objects.using(self.catalog.using).filter(pk=bucket.pk).delete()
        return removed

    def _describe(
        self, namespace: Namespace, path: str, said: dict[str, Any], condition: Condition | None
    ) -> ManagedResource:
        managed = lock_object(self.catalog.using, namespace, path)
        if managed is None:
            raise ResourceNotFound(path)
        if condition:
            condition(managed)
        if said:
            for name, value in said.items():
                setattr(managed, name, value)
            # Caches that ask by date are to learn of it: the entity tag tells of the bytes alone.
            managed.modified_at = timezone.now()
            managed.save(using=self.catalog.using, update_fields=[*said, "modified_at"])
        return managed

    def _finish(self, change: Change) -> ManagedResource:
        """Delete, after the commit, the files that `change` left without use; a sweep does what fails."""
        if change.discarded:
            transaction.on_commit(partial(expunge_quietly, change.discarded), using=self.catalog.using)
        return change.managed

    def _damaged(self, managed: ManagedResource, reason: str, *, missing: bool = False) -> BlobstoreError:
        if missing:
            ResourceStorage(managed.resource.storage).check_present()
        if not self.catalog.mark_damaged(managed.resource, missing=missing):
            return ResourceNotFound(managed.path, "it was replaced or removed while it was read")
        logger.error("Resource %s is damaged: %s.", managed.resource_id, reason)
        return ContentDamaged(managed.resource.sha384, managed.path, reason)


def arriving_at(namespace: Namespace, *paths: str) -> set[str]:
    """Return those of `paths` to which an upload is under way."""
    files = PendingFile.objects.aimed_at(namespace, *paths).arriving().values_list("managed_path", flat=True)
    uploads = ResumableUpload.objects.aimed_at(namespace, *paths).arriving().values_list("path", flat=True)
    return {*files, *uploads}


def _require_same(known: ManagedResource, found: ManagedResource | None) -> None:
    if found is None or (found.pk, found.resource_id) != (known.pk, known.resource_id):
        raise ResourceNotFound(known.path, "it was removed or replaced meanwhile")
