"""What is stored, where it is spoken of, and what that comes to: buckets, objects, contents and their totals."""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple, NoReturn

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Count, F, Func, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_blobstore.descriptions import MAX_TYPE_LENGTH
from django_blobstore.errors import CountBypassed
from django_blobstore.namespaces import MAX_PATH_BYTES, MAX_SCOPE_LENGTH, MAX_USER_LENGTH, Namespace


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
        indexes = [models.Index(fields=["name", "uuid"], name="blobstore_bucket_name")]

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
        verbose_name = _("content")
        verbose_name_plural = _("contents")
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
        Resource, verbose_name=_("content"), on_delete=models.PROTECT, related_name="references", db_index=False
    )
    content_type = models.CharField(_("content type"), max_length=MAX_TYPE_LENGTH, blank=True, default="")
    metadata = models.JSONField(_("metadata"), blank=True, default=dict)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    modified_at = models.DateTimeField(_("modified at"), default=timezone.now)

    # On what `put` returns: whether the path is new (True) or had other content before (False).
    was_created = True
    # On what `put` returns: whether another file than the one that was brought, if any, has the content.
    was_stored = False

    objects = ManagedResourceQuerySet.as_manager()

    class Meta:
        verbose_name = _("object")
        verbose_name_plural = _("objects")
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


def _total(function: str, rows: QuerySet[Any], column: str) -> Coalesce:
    """Return an SQL aggregate over all of `rows`, 0 if there are none."""
    # A plain Func, since Django's aggregates would group the rows.
    total = Func(F(column), function=function, output_field=BigIntegerField())
    return Coalesce(Subquery(rows.order_by().values(total=total)), 0, output_field=BigIntegerField())


def after_prefix(prefix: str) -> str:
    """Return the smallest text after everything that starts with `prefix`, byte by byte, or "" if there is none."""
    stem = prefix.rstrip(chr(0x10FFFF))
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)
