"""What is written down about the store over time: its totals, what ranks first, and the runs of upkeep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Max, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_blobstore.models.objects import Bucket, Totals

# For so long the totals of each day are kept.
DAYS_KEPT = timedelta(days=400)


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
        MOVE = "move", _("move")

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


def start_of_day() -> datetime:
    """Return the last midnight in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
