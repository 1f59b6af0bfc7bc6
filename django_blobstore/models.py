"""The catalog's tables: what is stored, where it is spoken of, and what is on its way in or out.

Two rules hold at every moment. Each file in a storage is named by exactly one row here, a `Resource` (in use) or a
`PendingFile` (arriving, or to be deleted). And each `Resource` counts the references to it; `django_blobstore.catalog`
is the only module that changes a count.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn, cast

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Count, Exists, F, Func, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, Now
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_blobstore.errors import CountBypassed
from django_blobstore.namespaces import MAX_PATH_BYTES, MAX_SCOPE_LENGTH, MAX_USER_LENGTH, Namespace

# For so long the totals of each day are kept.
DAYS_KEPT = timedelta(days=400)


class ByteOrderedField(models.CharField):  # type: ignore[type-arg]  # Django's own class takes no arguments
    """Text compared byte by byte, so that all paths under a prefix are one range of the index."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters: Any = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        return parameters


class BucketQuerySet(QuerySet["Bucket"]):
    """Buckets, and what is in them."""

    def with_usage(self) -> BucketQuerySet:
        """Add `object_count`, `logical_bytes` (each object counts) and `stored_bytes` (each content counts once)."""
        rows = Usage.objects.filter(bucket=OuterRef("pk"))
        return self.annotate(**{column: _total("SUM", rows, column) for column in Totals._fields})


class Bucket(models.Model):
    """A named set of objects with an owner."""

    uuid = models.UUIDField(_("UUID"), primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=150, blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="blobstore_buckets",
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    quota_bytes = models.PositiveBigIntegerField(_("quota in bytes"), null=True, blank=True)

    objects = BucketQuerySet.as_manager()

    class Meta:
        verbose_name = _("bucket")
        verbose_name_plural = _("buckets")

    def __str__(self) -> str:
        return self.name or str(self.uuid)


class ResourceQuerySet(QuerySet["Resource"]):
    """Contents, by the state of their bytes."""

    def sound(self) -> ResourceQuerySet:
        return self.filter(~Q(path=""), damaged_at__isnull=True)

    def damaged(self) -> ResourceQuerySet:
        return self.filter(damaged_at__isnull=False)

    def with_object_count(self) -> ResourceQuerySet:
        """Add `object_count`, what the reference count should be."""
        return self.annotate(
            object_count=_total("COUNT", ManagedResource.objects.filter(resource=OuterRef("pk")), "pk")
        )

    def missing(self) -> ResourceQuerySet:
        """Damaged contents whose file was not there."""
        return self.damaged().filter(missing=True)

    def pending(self) -> ResourceQuerySet:
        """Contents whose bytes have not arrived."""
        return self.filter(path="", damaged_at__isnull=True)

    def update(self, **columns: Any) -> int:
        """Set `columns`; refuses to set a count, which is the catalog's."""
        if "reference_count" in columns:
            raise CountBypassed("Setting Resource.reference_count")
        return super().update(**columns)

    update.alters_data = True  # type: ignore[attr-defined]


class Resource(models.Model):
    """One stored content, shared by every reference to it.

    `path` is where its bytes lie in the storage named by the alias `storage`; it is empty until they have arrived.
    `verified_at` is when they were last compared with the hash, whatever came out, and `damaged_at` when it was noticed
    that they are wrong or, if `missing`, not there.
    """

    scope = models.CharField(_("scope"), max_length=MAX_SCOPE_LENGTH, blank=True, default="")
    sha384 = models.CharField("SHA-384", max_length=96)
    sha256 = models.CharField("SHA-256", max_length=64, blank=True, default="")
    length = models.PositiveBigIntegerField(_("length in bytes"))
    path = models.CharField(_("storage path"), max_length=255, blank=True, default="")
    storage = models.CharField(_("storage alias"), max_length=100, blank=True, default="")
    reference_count = models.PositiveBigIntegerField(_("reference count"), default=1)
    verified_at = models.DateTimeField(_("verified at"), null=True, blank=True)
    damaged_at = models.DateTimeField(_("damaged at"), null=True, blank=True)
    missing = models.BooleanField(_("missing"), default=False, db_default=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    objects = ResourceQuerySet.as_manager()

    class Meta:
        verbose_name = _("resource")
        verbose_name_plural = _("resources")
        indexes = [
            models.Index(fields=["verified_at", "id"], condition=~Q(path=""), name="blobstore_resource_verified"),
            models.Index(fields=["id"], condition=Q(damaged_at__isnull=False), name="blobstore_resource_damaged"),
            models.Index(fields=["id"], condition=Q(path=""), name="blobstore_resource_pending"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["sha384", "scope"], name="blobstore_resource_once_per_scope"),
            models.UniqueConstraint(fields=["path"], condition=~Q(path=""), name="blobstore_resource_owns_its_file"),
            models.CheckConstraint(condition=Q(reference_count__gte=1), name="blobstore_resource_is_referenced"),
            models.CheckConstraint(
                condition=Q(missing=False) | Q(damaged_at__isnull=False), name="blobstore_resource_missing_is_damaged"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sha384[:12]}… ({filesizeformat(self.length)})"

    @property
    def is_sound(self) -> bool:
        """Whether its bytes have arrived and nothing says that they are missing or damaged."""
        return bool(self.path) and self.damaged_at is None

    @property
    def saved_bytes(self) -> int:
        """How many bytes more there would be if each reference had bytes of its own."""
        return (self.reference_count - 1) * self.length


class InNamespace(models.Model):
    """Columns that say which namespace a row belongs to."""

    user = models.CharField(_("user"), max_length=MAX_USER_LENGTH, blank=True, default="")

    class Meta:
        abstract = True

    bucket_id: uuid.UUID | None

    @property
    def namespace(self) -> Namespace:
        return Namespace(bucket=str(self.bucket_id or ""), user=self.user)


class MeantForNamespace(InNamespace):
    """Columns that say for which namespace a row is meant, whose bucket may not be there yet, or any more."""

    bucket = models.ForeignKey(
        Bucket,
        verbose_name=_("bucket"),
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )

    class Meta:
        abstract = True


class Freed(NamedTuple):
    """What a removal leaves without any reference."""

    contents: int
    bytes: int


class ManagedResourceQuerySet(QuerySet["ManagedResource"]):
    """Objects, by where they live."""

    def within(self, namespace: Namespace) -> ManagedResourceQuerySet:
        return self.filter(Q(bucket_id=namespace.bucket_id), user=namespace.user)

    def at(self, namespace: Namespace, path: str) -> ManagedResourceQuerySet:
        return self.within(namespace).filter(path=path)

    def under(self, prefix: str) -> ManagedResourceQuerySet:
        """Objects whose path starts with `prefix`, as a range of the index."""
        end = after_prefix(prefix)
        within = self.filter(path__gte=prefix) if prefix else self
        return within.filter(path__lt=end) if end else within

    def freed_by_removal(self) -> Freed:
        """Count the contents, and their bytes, to which these objects are all the references there are."""
        contents = self.order_by().values("resource", "resource__length", "resource__reference_count")
        freed = contents.annotate(removed=Count("pk")).filter(removed__gte=F("resource__reference_count"))
        totals = freed.aggregate(contents=Count("resource"), bytes=Sum("resource__length"))
        return Freed(totals["contents"], totals["bytes"] or 0)

    def delete(self) -> NoReturn:
        """Refuse: nobody would count. The catalog calls Django's own `QuerySet.delete`."""
        raise CountBypassed("Deleting ManagedResource rows")

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def update(self, **columns: Any) -> int:
        """Set `columns`; refuses to make objects refer to another content."""
        if columns.keys() & {"resource", "resource_id"}:
            raise CountBypassed("Setting ManagedResource.resource")
        return super().update(**columns)

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: nobody would count."""
        raise CountBypassed("Creating ManagedResource rows in bulk")


class ManagedResource(InNamespace):
    """An object: a path in a namespace that refers to a `Resource`."""

    bucket = models.ForeignKey(
        Bucket,
        verbose_name=_("bucket"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="managed_resources",
        db_index=False,
    )
    path: models.CharField[str, str] = ByteOrderedField(_("path"), max_length=MAX_PATH_BYTES)
    resource = models.ForeignKey(
        Resource, verbose_name=_("resource"), on_delete=models.PROTECT, related_name="references", db_index=False
    )
    content_type = models.CharField(_("content type"), max_length=255, blank=True, default="")
    metadata = models.JSONField(_("metadata"), blank=True, default=dict)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    modified_at = models.DateTimeField(_("modified at"), default=timezone.now)

    # On what `put` returns: whether the path is new (True) or had other content before (False).
    was_created = True

    objects = ManagedResourceQuerySet.as_manager()

    class Meta:
        verbose_name = _("managed resource")
        verbose_name_plural = _("managed resources")
        indexes = [models.Index(fields=["resource", "bucket", "user", "id"], name="blobstore_references")]
        constraints = [
            models.UniqueConstraint(
                fields=["bucket", "user", "path"],
                condition=Q(bucket__isnull=False),
                name="blobstore_path_once_per_bucket",
            ),
            models.UniqueConstraint(
                fields=["user", "path"], condition=Q(bucket__isnull=True), name="blobstore_path_once_outside_buckets"
            ),
            models.CheckConstraint(condition=~Q(path=""), name="blobstore_path_is_not_empty"),
        ]

    def __str__(self) -> str:
        return self.path

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: nobody would count. `ManagedStorage.remove` does."""
        raise CountBypassed("ManagedResource.delete()")

    delete.alters_data = True  # type: ignore[attr-defined]


class Totals(NamedTuple):
    """What some objects come to; in `logical_bytes` each object counts, in `stored_bytes` each content once."""

    object_count: int
    logical_bytes: int
    stored_bytes: int


class UsageQuerySet(QuerySet["Usage"]):
    """Shares of totals, by what they are totals of."""

    def within(self, namespace: Namespace) -> UsageQuerySet:
        """Rows of the bucket, whoever the user in it is, or of the user outside buckets."""
        user = "" if namespace.bucket_id else namespace.user
        return self.filter(Q(bucket_id=namespace.bucket_id), user=user)

    def totals(self) -> Totals:
        sums = self.aggregate(**{column: Coalesce(Sum(column), 0) for column in Totals._fields})
        return Totals(**sums)


class Usage(InNamespace):
    """A share of the totals of a bucket, or of a user outside buckets; see `django_blobstore.usage`."""

    bucket = models.ForeignKey(
        Bucket,
        verbose_name=_("bucket"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="usage",
        db_index=False,
    )
    stripe = models.PositiveSmallIntegerField(_("stripe"))
    object_count = models.BigIntegerField(_("objects"), default=0)
    logical_bytes = models.BigIntegerField(_("logical bytes"), default=0)
    stored_bytes = models.BigIntegerField(_("stored bytes"), default=0)

    objects = UsageQuerySet.as_manager()

    class Meta:
        verbose_name = _("usage")
        verbose_name_plural = _("usage")
        constraints = [
            models.UniqueConstraint(
                fields=["bucket", "stripe"],
                condition=Q(bucket__isnull=False),
                name="blobstore_usage_once_per_bucket",
            ),
            models.UniqueConstraint(
                fields=["user", "stripe"], condition=Q(bucket__isnull=True), name="blobstore_usage_once_outside_buckets"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.namespace}, {self.stripe}"


class PutRequestQuerySet(QuerySet["PutRequest"]):
    """Put requests, by what can still be done with them."""

    def answerable(self) -> PutRequestQuerySet:
        return self.filter(state=PutRequest.State.OPEN, expires_at__gt=Now())

    def expired(self) -> PutRequestQuerySet:
        """Requests that nobody answered in time."""
        return self.filter(state=PutRequest.State.OPEN, expires_at__lte=Now())

    def failed_today(self, requester: str, scope: str, sha384: str) -> PutRequestQuerySet:
        return self.filter(
            requester=requester,
            scope=scope,
            sha384=sha384,
            state=PutRequest.State.FAILED,
            created_at__gte=start_of_day(),
        )

    def forgettable(self) -> PutRequestQuerySet:
        """Requests that neither can be answered nor count against today's failures."""
        return self.filter(created_at__lt=start_of_day(), expires_at__lte=Now())


class PutRequest(MeantForNamespace):
    """A challenge to somebody who says to hold content already stored."""

    class State(models.TextChoices):
        OPEN = "open", _("open")
        CLAIMED = "claimed", _("being checked")
        USED = "used", _("used")
        FAILED = "failed", _("failed")

    id = models.CharField(_("request id"), primary_key=True, max_length=22, editable=False)
    requester = models.CharField(_("requester"), max_length=MAX_USER_LENGTH, blank=True, default="")
    path = models.CharField(_("path"), max_length=MAX_PATH_BYTES)
    scope = models.CharField(_("scope"), max_length=MAX_SCOPE_LENGTH, blank=True, default="")
    sha384 = models.CharField("SHA-384", max_length=96)
    length = models.PositiveBigIntegerField(_("length in bytes"))
    content_type = models.CharField(_("content type"), max_length=255, blank=True, default="")
    metadata = models.JSONField(_("metadata"), blank=True, default=dict)
    algorithm = models.CharField(_("algorithm"), max_length=20)
    nonce = models.BinaryField(_("nonce"), max_length=32)
    ranges = models.JSONField(_("ranges"))
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.OPEN)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires at"))

    objects = PutRequestQuerySet.as_manager()

    class Meta:
        verbose_name = _("put request")
        verbose_name_plural = _("put requests")
        indexes = [
            models.Index(fields=["requester", "sha384", "created_at"], name="blobstore_request_failures"),
            models.Index(fields=["created_at"], name="blobstore_request_age"),
            models.Index(fields=["state", "created_at"], name="blobstore_request_state"),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def has_expired(self) -> bool:
        """Whether nobody answered in time."""
        return self.state == self.State.OPEN and self.expires_at <= timezone.now()


class PendingFileQuerySet(QuerySet["PendingFile"]):
    """Files on their way in or out; all times are the database's."""

    def arriving(self) -> PendingFileQuerySet:
        """Uploads under way whose lease is alive."""
        return self.filter(discard=False, lease_until__gt=Now())

    def aimed_at(self, namespace: Namespace, *paths: str) -> PendingFileQuerySet:
        """Files that are to become the objects at `paths`."""
        return self.filter(Q(bucket_id=namespace.bucket_id), user=namespace.user, managed_path__in=paths)

    def declared(self, scope: str, sha384: str) -> PendingFileQuerySet:
        """Files of which it was said that they will have this hash."""
        return self.filter(scope=scope, declared_sha384=sha384)

    def abandoned(self) -> PendingFileQuerySet:
        """Uploads whose lease has run out."""
        return self.filter(discard=False, lease_until__lte=Now())

    def due(self) -> PendingFileQuerySet:
        """Files to be deleted now."""
        # SQLite compares times as text, where Now() alone, "….123", comes before the "….123000" of a sum.
        return self.filter(discard=True, due_at__lte=Now() + timedelta(0))

    def waiting(self) -> PendingFileQuerySet:
        """Files to be deleted later."""
        return self.filter(discard=True, due_at__gt=Now())

    def overdue(self) -> PendingFileQuerySet:
        """Files that the next sweep deletes."""
        return self.abandoned() | self.due()

    def of_no_part(self) -> PendingFileQuerySet:
        """Files that are not parts of resumable uploads."""
        return self.exclude(Exists(UploadPart.objects.filter(file=OuterRef("pk"))))

    def of_parts(self, uploads: ResumableUploadQuerySet) -> PendingFileQuerySet:
        """Files of the parts of `uploads`."""
        return self.filter(path__in=UploadPart.objects.filter(upload__in=uploads.values("pk")).values("file"))

    def renew(self, lease: timedelta, **progress: Any) -> bool:
        """Extend the lease of uploads not given up yet; say whether there was one."""
        return bool(self.filter(discard=False).update(lease_until=Now() + lease, **progress))

    def give_up(self, grace: timedelta = timedelta(0)) -> int:
        """Mark uploads for deletion after `grace` and return how many there were."""
        return self.filter(discard=False).update(discard=True, lease_until=None, due_at=Now() + grace)


class PendingFile(MeantForNamespace):
    """A file no resource speaks of: it is arriving and has a lease, or is to be deleted and has a due time."""

    path = models.CharField(_("storage path"), primary_key=True, max_length=255)
    storage = models.CharField(_("storage alias"), max_length=100)
    managed_path = models.CharField(_("path"), max_length=MAX_PATH_BYTES, blank=True, default="")
    scope = models.CharField(_("scope"), max_length=MAX_SCOPE_LENGTH, blank=True, default="")
    declared_sha384 = models.CharField(_("declared SHA-384"), max_length=96, blank=True, default="")
    length = models.PositiveBigIntegerField(_("length in bytes"), null=True, blank=True)
    offset = models.PositiveBigIntegerField(_("bytes arrived"), default=0)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    discard = models.BooleanField(_("to be deleted"), default=False)
    due_at = models.DateTimeField(_("due at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    objects = PendingFileQuerySet.as_manager()

    class Meta:
        verbose_name = _("pending file")
        verbose_name_plural = _("pending files")
        indexes = [
            models.Index(fields=["bucket", "user", "managed_path"], name="blobstore_pending_target"),
            models.Index(
                fields=["declared_sha384"], condition=~Q(declared_sha384=""), name="blobstore_pending_declared"
            ),
            models.Index(fields=["due_at"], condition=Q(discard=True), name="blobstore_pending_due"),
            models.Index(fields=["lease_until"], condition=Q(discard=False), name="blobstore_pending_lease"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(discard=False, lease_until__isnull=False, due_at__isnull=True)
                | Q(discard=True, lease_until__isnull=True, due_at__isnull=False),
                name="blobstore_pending_arrives_or_leaves",
            ),
        ]

    def __str__(self) -> str:
        return self.path

    @property
    def deadline(self) -> datetime:
        """When a sweep may delete it: the end of its lease, or its due time."""
        return cast("datetime", self.due_at if self.discard else self.lease_until)

    @property
    def is_overdue(self) -> bool:
        """Whether the next sweep deletes it."""
        return self.deadline <= timezone.now()


class ResumableUploadQuerySet(QuerySet["ResumableUpload"]):
    """Uploads in parts; all times are the database's."""

    def live(self) -> ResumableUploadQuerySet:
        return self.filter(expires_at__gt=Now())

    def expired(self) -> ResumableUploadQuerySet:
        """Uploads that nobody can go on with."""
        # See PendingFileQuerySet.due.
        return self.filter(expires_at__lte=Now() + timedelta(0))

    def unfinished(self) -> ResumableUploadQuerySet:
        return self.exclude(state=ResumableUpload.State.FINISHED)

    def arriving(self) -> ResumableUploadQuerySet:
        """Uploads to which a request brought something lately."""
        return self.unfinished().filter(lease_until__gt=Now())

    def aimed_at(self, namespace: Namespace, *paths: str) -> ResumableUploadQuerySet:
        """Uploads that are to become the objects at `paths`."""
        return self.filter(Q(bucket_id=namespace.bucket_id), user=namespace.user, path__in=paths)

    def declared(self, scope: str, sha384: str) -> ResumableUploadQuerySet:
        """Uploads of which it was said that they will have this hash."""
        return self.filter(scope=scope, sha384=sha384)

    def end(self) -> int:
        """Delete the uploads, give up the files of their parts, and return how many uploads there were."""
        ids = list(self.select_for_update().values_list("pk", flat=True))
        parts = UploadPart.objects.using(self.db).filter(upload__in=ids)
        parts.files().give_up()
        parts.delete()
        return ResumableUpload.objects.using(self.db).filter(pk__in=ids).delete()[0]

    end.alters_data = True  # type: ignore[attr-defined]
    end.queryset_only = True  # type: ignore[attr-defined]


class ResumableUpload(MeantForNamespace):
    """A content that comes in parts, each by a request of its own; see `django_blobstore.resumable`.

    `offset` bytes have come for good, of `length`, if that is known yet. The request that has `token` may add to it;
    `lease_until` says when it counts as dead.
    """

    class State(models.TextChoices):
        ARRIVING = "arriving", _("arriving")
        FINISHING = "finishing", _("being put together")
        FINISHED = "finished", _("finished")

    id = models.CharField(_("upload id"), primary_key=True, max_length=22, editable=False)
    requester = models.CharField(_("requester"), max_length=MAX_USER_LENGTH, blank=True, default="")
    path = models.CharField(_("path"), max_length=MAX_PATH_BYTES, blank=True, default="")
    scope = models.CharField(_("scope"), max_length=MAX_SCOPE_LENGTH, blank=True, default="")
    sha384 = models.CharField(_("declared SHA-384"), max_length=96, blank=True, default="")
    content_type = models.CharField(_("content type"), max_length=255, blank=True, default="")
    metadata = models.JSONField(_("metadata"), blank=True, default=dict)
    length = models.PositiveBigIntegerField(_("length in bytes"), null=True, blank=True)
    offset = models.PositiveBigIntegerField(_("bytes arrived"), default=0)
    partial = models.BooleanField(_("part of another upload"), default=False)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.ARRIVING)
    token = models.CharField(_("token of the latest request"), max_length=22, blank=True, default="")
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    said = models.JSONField(_("what the client said of it"), blank=True, default=dict)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires at"))

    objects = ResumableUploadQuerySet.as_manager()

    class Meta:
        verbose_name = _("resumable upload")
        verbose_name_plural = _("resumable uploads")
        indexes = [
            models.Index(fields=["bucket", "user", "path"], name="blobstore_resumable_target"),
            models.Index(fields=["sha384"], condition=~Q(sha384=""), name="blobstore_resumable_declared"),
            models.Index(fields=["expires_at"], name="blobstore_resumable_expiry"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(length__isnull=True) | Q(offset__lte=F("length")), name="blobstore_resumable_within_length"
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_whole(self) -> bool:
        """Whether every byte has come for good, and is an object unless the upload is part of another."""
        return self.offset == self.length and (self.partial or self.state == self.State.FINISHED)

    @property
    def is_being_finished(self) -> bool:
        """Whether a request that still shows signs of life is making the object."""
        alive = self.lease_until is not None and self.lease_until > timezone.now()
        return self.state == self.State.FINISHING and alive


class UploadPartQuerySet(QuerySet["UploadPart"]):
    """Parts of uploads, and the rows that name their files."""

    def files(self) -> PendingFileQuerySet:
        return PendingFile.objects.using(self.db).filter(path__in=self.values("file"))


class UploadPart(models.Model):
    """Bytes of a resumable upload from `offset` on, in a file of their own."""

    upload = models.ForeignKey(
        ResumableUpload, verbose_name=_("upload"), on_delete=models.CASCADE, related_name="parts", db_index=False
    )
    offset = models.PositiveBigIntegerField(_("offset"))
    # Without a constraint, and nothing to cascade: deleting pending files, which each put does, costs no more for it.
    file = models.OneToOneField(
        PendingFile, verbose_name=_("file"), on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )

    objects = UploadPartQuerySet.as_manager()

    class Meta:
        verbose_name = _("part of an upload")
        verbose_name_plural = _("parts of uploads")
        constraints = [
            models.UniqueConstraint(fields=["upload", "offset"], name="blobstore_part_once_per_offset"),
        ]

    def __str__(self) -> str:
        return f"{self.upload_id} from {self.offset}"


class MeasurementQuerySet(QuerySet["Measurement"]):
    """Totals of days, by what they are totals of."""

    def of(self, bucket: Bucket | None) -> MeasurementQuerySet:
        """Rows of `bucket`, or of the whole store, the latest last."""
        return self.filter(bucket=bucket).order_by("day")

    def forgettable(self) -> MeasurementQuerySet:
        """Rows so old that those of the first day of a month are enough."""
        return self.filter(day__lt=(start_of_day() - DAYS_KEPT).date()).exclude(day__day=1)


class Measurement(models.Model):
    """The totals of a bucket, or of the whole store, as they last were on a day; no row for a day without a change.

    Of the whole store `stored_bytes` counts each content once, also where buckets share it; of a bucket as in `Usage`.
    """

    bucket = models.ForeignKey(
        Bucket,
        verbose_name=_("bucket"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="measurements",
        db_index=False,
    )
    day = models.DateField(_("day"))
    measured_at = models.DateTimeField(_("measured at"))
    object_count = models.BigIntegerField(_("objects"))
    logical_bytes = models.BigIntegerField(_("logical bytes"))
    stored_bytes = models.BigIntegerField(_("stored bytes"))

    objects = MeasurementQuerySet.as_manager()

    class Meta:
        verbose_name = _("measurement")
        verbose_name_plural = _("dashboard")
        constraints = [
            models.UniqueConstraint(
                fields=["bucket", "day"],
                condition=Q(bucket__isnull=False),
                name="blobstore_bucket_measured_once_a_day",
            ),
            models.UniqueConstraint(
                fields=["day"], condition=Q(bucket__isnull=True), name="blobstore_store_measured_once_a_day"
            ),
        ]

    def __str__(self) -> str:
        scope = self.bucket or _("whole store")
        return f"{scope}, {self.day}"

    @property
    def totals(self) -> Totals:
        return Totals(self.object_count, self.logical_bytes, self.stored_bytes)


class Ranking(models.Model):
    """What came first in a bucket, or in the whole store, when a sweep last looked.

    An index on the counts would always know, and every put of a content already stored would pay for it. `entries` are
    `{"id", "path", "length"}` of the largest objects, `{"id", "sha384", "length", "count"}` of the most shared
    contents, or `{"id", "name"}` and the totals of the largest buckets.
    """

    class By(models.TextChoices):
        LENGTH = "length", _("largest objects")
        COUNT = "count", _("most shared contents")
        STORED = "stored", _("largest buckets")

    bucket = models.ForeignKey(
        Bucket,
        verbose_name=_("bucket"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="rankings",
        db_index=False,
    )
    by = models.CharField(_("by"), max_length=10, choices=By.choices)
    measured_at = models.DateTimeField(_("measured at"))
    entries = models.JSONField(_("entries"), default=list)

    class Meta:
        verbose_name = _("ranking")
        verbose_name_plural = _("rankings")
        constraints = [
            models.UniqueConstraint(
                fields=["bucket", "by"], condition=Q(bucket__isnull=False), name="blobstore_bucket_ranked_once"
            ),
            models.UniqueConstraint(
                fields=["by"], condition=Q(bucket__isnull=True), name="blobstore_store_ranked_once"
            ),
        ]

    def __str__(self) -> str:
        scope = self.bucket or _("whole store")
        return f"{scope}, {self.get_by_display()}"


class UpkeepRunQuerySet(QuerySet["UpkeepRun"]):
    """Runs of upkeep, by how they went."""

    def latest_ended(self) -> UpkeepRunQuerySet:
        """The last run of each kind that came to its end."""
        last = self.filter(ended_at__isnull=False, error="").order_by().values("kind").annotate(last=Max("pk"))
        return self.filter(pk__in=last.values("last"))

    def under_way(self) -> UpkeepRunQuerySet:
        return self.filter(ended_at=None)


class UpkeepRun(models.Model):
    """One run of upkeep: who began it, how far it is, what it found and did; see `django_blobstore.upkeep.runs`.

    `done` of `total` are done in `stage`, where 0 is a total nobody knows. A run that is done in steps keeps in
    `position` where the next one begins, and in `lease_until` how long the step at work may show no sign of life.
    """

    class Kind(models.TextChoices):
        SWEEP = "sweep", _("sweep")
        AUDIT = "audit", _("audit")
        SCRUB = "scrub", _("scrub")
        VERIFY = "verify", _("verification")
        MEASURE = "measure", _("measurement")

    class Origin(models.TextChoices):
        COMMAND = "command", _("command")
        TASK = "task", _("task")
        ADMIN = "admin", _("admin")

    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    origin = models.CharField(_("begun by"), max_length=10, choices=Origin.choices)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    options = models.JSONField(_("options"), blank=True, default=dict)
    started_at = models.DateTimeField(_("started at"), default=timezone.now)
    progress_at = models.DateTimeField(_("last sign of life"), default=timezone.now)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    stage = models.CharField(_("stage"), max_length=150, blank=True, default="")
    done = models.BigIntegerField(_("done"), default=0)
    total = models.BigIntegerField(_("in all"), default=0)
    figures = models.JSONField(_("figures"), blank=True, default=dict)
    findings = models.JSONField(_("findings"), blank=True, default=list)
    error = models.TextField(_("error"), blank=True, default="")
    is_eventful = models.BooleanField(_("did or found something"), default=False)
    position = models.JSONField(_("position"), null=True, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)

    objects = UpkeepRunQuerySet.as_manager()

    class Meta:
        verbose_name = _("upkeep run")
        verbose_name_plural = _("upkeep runs")
        indexes = [models.Index(fields=["kind", "ended_at"], name="blobstore_upkeep_latest")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"


def _total(function: str, rows: QuerySet[Any], column: str) -> Coalesce:
    """Return an SQL aggregate over all of `rows`, 0 if there are none."""
    # A plain Func, since Django's aggregates would group the rows.
    total = Func(F(column), function=function, output_field=BigIntegerField())
    return Coalesce(Subquery(rows.order_by().values(total=total)), 0, output_field=BigIntegerField())


def start_of_day() -> datetime:
    """Return the last midnight in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def after_prefix(prefix: str) -> str:
    """Return the smallest text after everything that starts with `prefix`, byte by byte, or "" if there is none."""
    stem = prefix.rstrip(chr(0x10FFFF))
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)
