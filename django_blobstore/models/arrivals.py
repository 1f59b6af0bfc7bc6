"""What is on its way in or out: requests to put, files that arrive or are to be deleted, uploads in parts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from django.db import models
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_blobstore.descriptions import MAX_TYPE_LENGTH
from django_blobstore.models.objects import Bucket, InNamespace
from django_blobstore.models.records import start_of_day
from django_blobstore.namespaces import MAX_PATH_BYTES, MAX_SCOPE_LENGTH, MAX_USER_LENGTH, Namespace


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
    bucket_name = models.CharField(_("name of the bucket"), max_length=MAX_USER_LENGTH, blank=True, default="")
    path = models.CharField(_("path"), max_length=MAX_PATH_BYTES)
    scope = models.CharField(_("scope"), max_length=MAX_SCOPE_LENGTH, blank=True, default="")
    sha384 = models.CharField("SHA-384", max_length=96)
    length = models.PositiveBigIntegerField(_("length in bytes"))
    content_type = models.CharField(_("content type"), max_length=MAX_TYPE_LENGTH, blank=True, default="")
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
    def target(self) -> Namespace:
        """The namespace, whose bucket is spoken of as it was in the request: a new one gets that name."""
        return Namespace(bucket=self.bucket_name or str(self.bucket_id or ""), user=self.user)

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
    content_type = models.CharField(_("content type"), max_length=MAX_TYPE_LENGTH, blank=True, default="")
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

    # On what the last `append` returns: see `ManagedResource.was_stored`.
    was_stored = False

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
