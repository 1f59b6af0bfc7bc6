"""Which transaction changes a reference count together with the rows that justify it, and in which order it locks.

Locks are taken in one order everywhere: the object, then resources by primary key, then the pending file, then a share
of the totals. Two transactions can then wait for each other only in rare races over a new content, and those are tried
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import router, transaction
from django.db.models import QuerySet
from django.db.models.deletion import Collector
from django.utils import timezone

from django_blobstore import rows, usage
from django_blobstore.catalog import contents
from django_blobstore.catalog.changes import Change, Condition, Content, Recount, Removed, Returned, StoredFile
from django_blobstore.conf import conf
from django_blobstore.digests import clean_hash
from django_blobstore.errors import BucketNotFound, ResourceNotFound, UploadPending
from django_blobstore.failpoints import reach
from django_blobstore.models import Bucket, ManagedResource, Resource
from django_blobstore.namespaces import Namespace
from django_blobstore.signals import object_removed, object_stored, tell
from django_blobstore.transactions import transact
from django_blobstore.usage import NOTHING, Held

T = TypeVar("T")

DAMAGED = "its stored bytes are damaged; put them again, which heals it"


class ResourceCatalog:
    """Knows each stored content once, by its SHA-384, and counts who refers to it.

    `get`, `find`, `put`, `upload_complete` and `remove` are for callers who keep references of their own; `refer` and
    `release` keep the references that are rows of `ManagedResource`.
    """

    @property
    def using(self) -> str:
        """Alias of the database that the catalog is written to."""
        return router.db_for_write(Resource)

    def get(self, id: int) -> Resource:
        """Return the resource `id`.

        Raises `ResourceNotFound`, or `UploadPending` while its bytes have not arrived.
        """
        return _uploaded(Resource.objects.filter(pk=id).first(), id)

    def find(self, sha384: str, *, scope: str = "") -> int:
        """Return the id of the resource with this hash (hex).

        Raises `ResourceNotFound`, or `UploadPending` while its bytes have not arrived.
        """
        sha384 = clean_hash(sha384)
        return _uploaded(Resource.objects.filter(scope=scope, sha384=sha384).first(), sha384).pk

    def put(self, sha384: str, length: int, *, scope: str = "") -> tuple[int, str]:
        """Take a reference to a content of `length` bytes and return its id and storage path.

        An unknown content begins with the count 1 and the path ""; a known one's count grows by one. Raises
        `LengthMismatch` if the known length differs.
        """
        content = Content(clean_hash(sha384), length)
        resource = self.transact(lambda: contents.count_up(self.using, content, scope, None))
        return resource.pk, resource.path

    def upload_complete(self, id: int, path: str, *, storage: str | None = None) -> None:
        """Record, once, that the bytes of resource `id` lie at the storage path `path`.

        Raises `AlreadyUploaded` for every caller but the first, and `ResourceNotFound`.
        """
        self.transact(lambda: contents.record_upload(self.using, id, StoredFile(storage or conf.STORAGE, path)))

    def remove(self, id: int) -> tuple[bool, str]:
        """Give back a reference; return whether it was the last one, and the storage path.

        After the last one the row is gone and the file is to be deleted: `sweep` does that after `DELETION_GRACE`, and
        the caller may do it earlier. Raises `ResourceNotFound`.
        """
        returned = self.transact(lambda: contents.count_down(self.using, id, []))
        return returned.last, returned.path

    def refer(
        self,
        namespace: Namespace,
        path: str,
        content: Content,
        *,
        scope: str = "",
        file: StoredFile | None = None,
        attributes: dict[str, Any] | None = None,
        create_bucket: bool = True,
        condition: Condition | None = None,
        alongside: Callable[[], object] | None = None,
        durable: bool = True,
    ) -> Change:
        """Make the object at `path` refer to `content`, whose bytes are stored already or lie in `file`.

        `file` is named by a `PendingFile`; it becomes the content's own file, or is discarded where the content has a
        sound one. Whatever the object referred to before loses a reference. `attributes` are further columns of the
        object. `condition` is asked about the object there was, which is locked, and `alongside` is called at the end;
        both in the transaction, and each time that it is tried. Unless `durable`, that may be part of one of the
        caller's. Raises `ResourceNotFound` if the content is not stored and there is no file, `LeaseLost` if the file
        was swept, `BucketNotFound` unless `create_bucket`, `QuotaExceeded`, `CatalogBusy`, and what `condition` raises.
        """

        def work() -> Change:
            managed = self._locked(namespace, path, condition)
            change = self._refer(managed, namespace, path, content, scope, file, attributes or {}, create_bucket)
            if alongside:
                alongside()
            return change

        return self.transact(work, durable=durable)

    def release(self, namespace: Namespace, path: str, *, condition: Condition | None = None) -> Change:
        """Remove the object at `path` and its reference. Raises `ResourceNotFound`, `CatalogBusy`, and see `refer`."""

        def work() -> Change:
            if condition:
                self._locked(namespace, path, condition)
            return self._release(namespace, path)

        return self.transact(work)

    def release_many(self, objects: QuerySet[ManagedResource]) -> Removed:
        """Remove `objects`, a few, with their references in one transaction. Raises `CatalogBusy`."""

        def work() -> Removed:
            # A transaction inside the transaction: one of many objects has a share of the totals of its own.
            with transaction.atomic(using=self.using, savepoint=False):
                return self._release_many(objects)

        return self.transact(work)

    def move(
        self, managed: ManagedResource, namespace: Namespace, path: str, *, condition: Condition | None = None
    ) -> Change:
        """Give `managed` another namespace and path, in place of what is there; both must share content.

        Raises `ResourceNotFound` if it was removed or replaced meanwhile, `BucketNotFound`, `QuotaExceeded`,
        `CatalogBusy`, and what `condition` raises, which is asked about what is there.
        """
        return self.transact(lambda: self._move(managed, namespace, path, condition))

    def recount(self, id: int, *, lower: bool = True) -> Recount:
        """Make the count of resource `id` the number of its objects; at none the row goes and its file is discarded.

        Without `lower` the count may only grow. Raises `ResourceNotFound` and `CatalogBusy`.
        """
        return self.transact(lambda: contents.recount(self.using, id, lower))

    def relocate(self, resource: Resource, file: StoredFile) -> list[StoredFile]:
        """Have the bytes of `resource` lie in `file`, a verified copy of them named by a `PendingFile`, from now on.

        The file it had is discarded, and returned if it can be deleted at once. Raises `ResourceNotFound` if the
        resource is gone or has another file than when it was fetched, `LeaseLost` and `CatalogBusy`.
        """
        return self.transact(lambda: contents.relocate(self.using, resource, file))

    def mark_damaged(self, resource: Resource, *, missing: bool = False) -> bool:
        """Record that the bytes of `resource` are wrong or `missing`; False if it has other bytes or is gone by now.

        What was not known before is told by the signal `resource_damaged` once it is committed.
        """
        return contents.mark_damaged(self.using, resource, missing=missing)

    def mark_verified(self, resource: Resource) -> bool:
        """Record that the bytes of `resource` were read and are right, whatever a mark said before.

        False if it has other bytes or is gone by now, or was marked as damaged since `resource` was fetched.
        """
        return contents.mark_verified(self.using, resource)

    def transact(self, work: Callable[[], T], *, durable: bool = False) -> T:
        """Run `work` in a transaction of the catalog's database; see `django_blobstore.transactions`."""
        return transact(self.using, work, durable=durable)

    def _locked(self, namespace: Namespace, path: str, condition: Condition | None) -> ManagedResource | None:
        managed = rows.lock_object(self.using, namespace, path)
        if condition:
            condition(managed)
        return managed

    def _refer(
        self,
        managed: ManagedResource | None,
        namespace: Namespace,
        path: str,
        content: Content,
        scope: str,
        file: StoredFile | None,
        attributes: dict[str, Any],
        create_bucket: bool,
    ) -> Change:
        is_new = managed is None
        if managed is None:
            managed = ManagedResource(bucket_id=namespace.bucket_id, user=namespace.user, path=path)
        discarded: list[StoredFile] = []
        resource, lost = self._exchange(managed, content, scope, file, discarded)
        reach("refer.counted")
        if file:
            contents.settle(self.using, resource, file, discarded)
        elif not resource.is_sound:
            raise ResourceNotFound(content.sha384, DAMAGED if resource.damaged_at else "")
        reach("refer.settled")
        if managed.resource_id != resource.pk:
            self._count_usage(namespace, managed, Held(resource.pk, resource.length), lost, create_bucket)
        managed.was_created = is_new
        managed.was_stored = file is None or resource.path != file.path
        managed.resource = resource
        managed.modified_at = timezone.now()
        if is_new:
            managed.created_at = managed.modified_at
        for name, value in attributes.items():
            setattr(managed, name, value)
        if is_new:
            rows.insert(self.using, managed)
        else:
            managed.save(using=self.using, force_update=True)
        reach("refer.saved")
        tell(object_stored, ManagedResource, self.using, managed=managed)
        return Change(managed, discarded)

    def _release(self, namespace: Namespace, path: str) -> Change:
        managed = self._delete(namespace, path)
        if managed is None:
            raise ResourceNotFound(path)
        change = Change(managed)
        self._give_back(managed, change.discarded)
        return change

    def _release_many(self, objects: QuerySet[ManagedResource]) -> Removed:
        removed = Removed()
        # All objects before the first resource, and those by primary key, as everywhere.
        locked = list(objects.using(self.using).select_for_update())
        for managed in sorted(locked, key=lambda managed: (managed.resource_id, managed.pk)):
            if self._delete(managed.namespace, managed.path):
                removed.add(self._give_back(managed, removed.discarded))
        return removed

    def _give_back(self, managed: ManagedResource, discarded: list[StoredFile]) -> Returned:
        """Count down what `managed` referred to, which is deleted, here and in the totals."""
        reach("release.deleted")
        returned = self._count_down(managed.resource_id, discarded)
        reach("release.counted")
        self._count_usage(managed.namespace, managed, NOTHING, Held(managed.resource_id, returned.length))
        tell(object_removed, ManagedResource, self.using, managed=managed)
        return returned

    def _move(self, known: ManagedResource, namespace: Namespace, path: str, condition: Condition | None) -> Change:
        managed = rows.lock_object(self.using, known.namespace, known.path)
        if managed is None or managed.resource_id != known.resource_id:
            raise ResourceNotFound(known.path, "it was removed or replaced meanwhile")
        there = self._locked(namespace, path, condition)
        wanted = [found.resource_id for found in (managed, there) if found]
        locked = Resource.objects.using(self.using).select_for_update().filter(pk__in=wanted).order_by("pk")
        managed.resource = {resource.pk: resource for resource in locked}[managed.resource_id]
        discarded = self._release(namespace, path).discarded if there else []
        self._transfer(managed, namespace, path)
        managed.was_created, managed.modified_at = there is None, timezone.now()
        managed.save(using=self.using, update_fields=["bucket", "user", "path", "modified_at"])
        reach("move.saved")
        tell(object_removed, ManagedResource, self.using, managed=known)
        tell(object_stored, ManagedResource, self.using, managed=managed)
        return Change(managed, discarded)

    def _transfer(self, managed: ManagedResource, namespace: Namespace, path: str) -> None:
        """Set the namespace and path of `managed`, and count it where it is from now on."""
        here, there = (rows.holder_condition(self.using, one) for one in (managed.namespace, namespace))
        held = Held(managed.resource.pk, managed.resource.length)
        # Inside a bucket nothing changes: one beyond its quota must not refuse another name.
        if here != there:
            self._count_usage(managed.namespace, managed, NOTHING, held)
        managed.bucket_id, managed.user, managed.path = namespace.bucket_id, namespace.user, path
        if here != there:
            self._count_usage(namespace, managed, held, NOTHING, create_bucket=False)

    def _delete(self, namespace: Namespace, path: str) -> ManagedResource | None:
        objects = ManagedResource.objects.using(self.using).all()
        if Collector(self.using).can_fast_delete(objects):
            return rows.delete_object(self.using, namespace, path)
        # Somebody listens or refers to objects. Django's own delete, past the guard against deletes nobody counts.
        managed = rows.lock_object(self.using, namespace, path)
        if managed:
            QuerySet.delete(objects.filter(pk=managed.pk))
        return managed

    def _count_usage(
        self, namespace: Namespace, managed: ManagedResource, gained: Held, lost: Held, create_bucket: bool = True
    ) -> None:
        """Bring the totals of `namespace` up to date; where there are none yet, the bucket may be missing as well."""
        if not usage.record(self.using, managed, gained=gained, lost=lost):
            self._require_bucket(namespace, create_bucket)
            usage.begin(self.using, namespace)
            usage.record(self.using, managed, gained=gained, lost=lost)
        reach("usage.recorded")

    def _require_bucket(self, namespace: Namespace, create: bool) -> None:
        if namespace.bucket_id is None:
            return
        buckets = Bucket.objects.using(self.using)
        if create:
            bucket = Bucket(uuid=namespace.bucket_id, name=namespace.bucket_name)
            buckets.bulk_create([bucket], ignore_conflicts=True)
        elif not buckets.filter(pk=namespace.bucket_id).exists():
            raise BucketNotFound(namespace.bucket)

    def _exchange(
        self,
        managed: ManagedResource,
        content: Content,
        scope: str,
        file: StoredFile | None,
        discarded: list[StoredFile],
    ) -> tuple[Resource, Held]:
        """Count up the content and down what `managed` refers to, if it does, the lower primary key first.

        Returns the content's resource and what was counted down.
        """
        if managed.pk is None:
            return contents.count_up(self.using, content, scope, file), NOTHING
        old_id = managed.resource_id
        resources = Resource.objects.using(self.using)
        new_id = resources.filter(scope=scope, sha384=content.sha384).values_list("pk", flat=True).first()
        if new_id == old_id:
            return resources.select_for_update().get(pk=old_id), NOTHING
        if new_id is not None and new_id < old_id:
            resource = contents.count_up(self.using, content, scope, file)
            reach("refer.counted_up")
            return resource, Held(old_id, self._count_down(old_id, discarded).length)
        lost = Held(old_id, self._count_down(old_id, discarded).length)
        reach("refer.counted_down")
        return contents.count_up(self.using, content, scope, file), lost

    def _count_down(self, id: int, discarded: list[StoredFile]) -> Returned:
        try:
            return contents.count_down(self.using, id, discarded)
        except ResourceNotFound:
            # Foreign keys prevent it. Where they did not, the object must go all the same, or get another content.
            return Returned(False, "", 0)


def _uploaded(resource: Resource | None, key: object) -> Resource:
    if resource is None:
        raise ResourceNotFound(key)
    if not resource.path:
        raise UploadPending(key)
    return resource
