"""What is stored, how it grew and how healthy it is, on one page: of the whole store, and of a bucket.

Nothing is counted for the page. Totals are those that each put keeps, or those a sweep wrote down; the page says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_blobstore.access import may
from django_blobstore.admin import columns
from django_blobstore.admin.base import ReadOnlyAdmin
from django_blobstore.admin.charts import Chart, growth, share
from django_blobstore.admin.places import has_own_buckets, own_buckets, sees_counts, sees_every_place, viewer
from django_blobstore.admin.upkeep import Standing, upkeep_of
from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    PutRequest,
    Ranking,
    Resource,
    ResumableUpload,
    Totals,
    start_of_day,
)

PERIODS = (30, 90, 365)
NAME = "django_blobstore_measurement"
# So many buckets are listed to who has only some; the others are in the list of buckets.
LISTED = 50
# So many files, or uploads, that are under way in a bucket are counted, by an index, for each look at its dashboard.
COUNTED = 1000
# States of files: what each is called, whether it is to be deleted, and whether it should have been.
_STATES = (
    (gettext_lazy("Files arriving"), False, False),
    (gettext_lazy("Uploads given up"), False, True),
    (gettext_lazy("Files to be deleted later"), True, False),
    (gettext_lazy("Files overdue for deletion"), True, True),
)


@dataclass(frozen=True)
class Figures:
    """Totals at a time, and how they look side by side."""

    totals: Totals
    at: datetime

    @property
    def saved(self) -> int:
        return max(self.totals.logical_bytes - self.totals.stored_bytes, 0)

    @property
    def saved_percent(self) -> int:
        return round(100 * self.saved / self.totals.logical_bytes) if self.totals.logical_bytes else 0

    @property
    def stored_share(self) -> str:
        widest = max(self.totals.logical_bytes, self.totals.stored_bytes)
        return share(self.totals.stored_bytes, widest)

    @property
    def logical_share(self) -> str:
        widest = max(self.totals.logical_bytes, self.totals.stored_bytes)
        return share(self.totals.logical_bytes, widest)


@dataclass(frozen=True)
class Entry:
    """A line of a ranking: its name, where it is shown if that may be seen, and its figures."""

    name: str
    url: str
    length: int
    count: int
    share: str


@dataclass(frozen=True)
class UnderWay:
    """How many files and uploads are on their way into a bucket; of more than `COUNTED`, `is_all` is False.

    `due_at` is when the first of them may be deleted, unless it is done by then.
    """

    lines: Sequence[tuple[Any, int, str, bool]]
    due_at: datetime | None
    is_all: bool


class DashboardAdmin(ReadOnlyAdmin):
    """Shows the totals where other tables have their list."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name=f"{NAME}_changelist"),
            path("bucket/<uuid:key>/", wrap(self.bucket_view), name=f"{NAME}_bucket"),
        ]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return sees_store(viewer(request)) or has_own_buckets(viewer(request))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self._respond(request, None)

    def bucket_view(self, request: HttpRequest, key: Any) -> HttpResponse:
        """Show the dashboard of one bucket, to whoever may see the objects that its figures are of."""
        bucket = get_object_or_404(Bucket.objects.with_usage(), pk=key)
        if not may(viewer(request), "view", "managedresource", bucket):
            raise Http404(_("There is no such bucket, or you may not see it."))
        return self._respond(request, bucket)

    def _respond(self, request: HttpRequest, bucket: Bucket | None) -> HttpResponse:
        title = _("Dashboard of %(bucket)s") % {"bucket": bucket} if bucket else _("Dashboard")
        context = {
            **self.admin_site.each_context(request),
            **(_Dashboard(self, request, bucket).context()),
            "opts": self.opts,
            "title": title,
            "bucket": bucket,
        }
        return TemplateResponse(request, "admin/django_blobstore/dashboard.html", context)


class _Dashboard:
    """What one page shows to one person."""

    def __init__(self, admin: DashboardAdmin, request: HttpRequest, bucket: Bucket | None) -> None:
        self.site = admin.admin_site
        self.user = viewer(request)
        self.bucket = bucket
        self.days = _period(request.GET.get("days", ""))

    def context(self) -> dict[str, Any]:
        if not (self.bucket or sees_store(self.user)):
            return {"only_own": True, **self._own_buckets()}
        measured = self._measurements()
        shown = {
            "figures": self._figures(measured),
            "chart": self._chart(measured),
            "measured": measured[::-1],
            "periods": PERIODS,
            "days": self.days,
            **self._rankings(),
            **self._operation(),
        }
        return {**shown, "under_way": self._under_way(self.bucket)} if self.bucket else {**shown, **self._own_buckets()}

    def _own_buckets(self) -> dict[str, Any]:
        """Return the buckets of who sees some and not all."""
        if sees_every_place(self.user) and sees_store(self.user):
            return {}
        found = own_buckets(self.user).with_usage().order_by("name", "pk")[: LISTED + 1]
        own = [(bucket, columns.page_url(self.site, Measurement, "bucket", bucket.pk)) for bucket in found]
        return {"own_buckets": own[:LISTED], "has_more_buckets": len(own) > LISTED, "now": timezone.now()}

    def _under_way(self, bucket: Bucket) -> UnderWay:
        """Count files and resumable uploads meant for `bucket`, as far as the index has them in `COUNTED` rows."""
        now = timezone.now()
        files = list(PendingFile.objects.filter(bucket=bucket).order_by("user", "managed_path")[: COUNTED + 1])
        uploads = list(ResumableUpload.objects.filter(bucket=bucket).order_by("user", "path")[: COUNTED + 1])
        pieces = [one for one in uploads if one.state != ResumableUpload.State.FINISHED and one.expires_at > now]
        url = columns.page_url(self.site, PendingFile, "changelist") if self._sees("pendingfile") else ""
        lines: list[tuple[Any, int, str, bool]] = [
            (label, sum(file.discard == discard and file.is_overdue == overdue for file in files), url, overdue)
            for label, discard, overdue in _STATES
        ]
        lines.append((_("Uploads in pieces"), len(pieces), "", False))
        ends = [file.deadline for file in files] + [upload.expires_at for upload in pieces]
        return UnderWay(lines, min(ends, default=None), max(len(files), len(uploads)) <= COUNTED)

    def _measurements(self) -> list[Measurement]:
        """Return the rows of the period, and the one before it, which says where the lines begin."""
        rows = Measurement.objects.of(self.bucket)
        before = rows.filter(day__lte=self._start()).order_by("-day").values("pk")[:1]
        return list(rows.filter(Q(day__gt=self._start()) | Q(pk__in=before)))

    def _start(self) -> Any:
        return (start_of_day() - timedelta(days=self.days)).date()

    def _figures(self, measured: Sequence[Measurement]) -> Figures | None:
        if self.bucket:
            kept: Any = self.bucket
            return Figures(Totals(*(getattr(kept, column) for column in Totals._fields)), timezone.now())
        return Figures(measured[-1].totals, measured[-1].measured_at) if measured else None

    def _chart(self, measured: Sequence[Measurement]) -> Chart | None:
        if not measured:
            return None
        start = self._start()
        logical = [(max(row.day, start), row.logical_bytes) for row in measured]
        stored = [(max(row.day, start), row.stored_bytes) for row in measured]
        series = [("logical", _("logical"), logical), ("stored", _("stored"), stored)]
        return growth(start, start_of_day().date(), series)

    def _rankings(self) -> dict[str, Any]:
        found = {row.by: row for row in Ranking.objects.filter(bucket=self.bucket)}
        shown: dict[str, Any] = {"ranked_at": max((row.measured_at for row in found.values()), default=None)}
        sees_objects = may(self.user, "view", "managedresource", self.bucket)
        if sees_objects:
            shown["largest"] = self._largest(found.get(Ranking.By.LENGTH))
        if sees_objects if self.bucket else sees_counts(self.user):
            shown["most_shared"] = self._most_shared(found.get(Ranking.By.COUNT))
        if not self.bucket and sees_objects and may(self.user, "view", "bucket"):
            shown["largest_buckets"] = self._largest_buckets(found.get(Ranking.By.STORED))
        return shown

    def _largest(self, ranking: Ranking | None) -> list[Entry]:
        entries = ranking.entries if ranking else []
        urls = self._urls(ManagedResource, entries)
        longest = max((entry["length"] for entry in entries), default=0)
        return [
            Entry(entry["path"], urls.get(entry["id"], ""), entry["length"], 0, share(entry["length"], longest))
            for entry in entries
        ]

    def _most_shared(self, ranking: Ranking | None) -> list[Entry]:
        entries = ranking.entries if ranking else []
        urls = self._urls(Resource, entries) if self.user.has_perm("django_blobstore.view_resource") else {}
        most = max((entry["count"] for entry in entries), default=0)
        return [
            Entry(
                entry["sha384"], urls.get(entry["id"], ""), entry["length"], entry["count"], share(entry["count"], most)
            )
            for entry in entries
        ]

    def _largest_buckets(self, ranking: Ranking | None) -> list[Entry]:
        entries = ranking.entries if ranking else []
        largest = max((entry["stored_bytes"] for entry in entries), default=0)
        there = set(map(str, Bucket.objects.filter(pk__in=[one["id"] for one in entries]).values_list("pk", flat=True)))
        return [
            Entry(
                entry["name"],
                columns.page_url(self.site, Measurement, "bucket", entry["id"]) if entry["id"] in there else "",
                entry["stored_bytes"],
                entry["object_count"],
                share(entry["stored_bytes"], largest),
            )
            for entry in entries
        ]

    def _urls(self, model: type[Model], entries: Sequence[dict[str, Any]]) -> dict[Any, str]:
        """Return the addresses of the rows that are there still."""
        wanted = [entry["id"] for entry in entries]
        there = model._default_manager.filter(pk__in=wanted).values_list("pk", flat=True)
        return {pk: columns.page_url(self.site, model, "change", pk) for pk in there}

    def _operation(self) -> dict[str, Any]:
        """Return what is under way and what upkeep did, as far as the person may see each."""
        if not self.user.has_perm("django_blobstore.view_upkeeprun"):
            return {}
        if self.bucket:
            return {"upkeep": upkeep_of(self.site, runs=0)}
        upkeep = upkeep_of(self.site)
        return {
            "upkeep": upkeep,
            "may_run": self.user.has_perm("django_blobstore.add_upkeeprun"),
            "standing": [line for line in _standing(self.site, upkeep.standing) if self._sees(line["model"])],
            "oldest": Resource.objects.exclude(path="")
            .filter(verified_at__isnull=False)
            .order_by("verified_at")
            .first(),
        }

    def _sees(self, model: str) -> bool:
        return self.user.has_perm(f"django_blobstore.view_{model}")


def sees_store(user: Any) -> bool:
    """Whether `user` may see the totals of the whole store."""
    return bool(user.has_perm("django_blobstore.view_measurement"))


def _period(days: str) -> int:
    return int(days) if days.isdecimal() and int(days) in PERIODS else PERIODS[1]


def _standing(site: Any, standing: Standing) -> list[dict[str, Any]]:
    """Return what there was after the last sweep: what it is, how many, and where they are listed."""
    lines: list[tuple[str, type[Model], str, bool]] = [
        (_("Files arriving"), PendingFile, "arriving", False),
        (_("Files to be deleted later"), PendingFile, "waiting", False),
        (_("Files overdue for deletion"), PendingFile, "due", True),
        (_("Uploads given up"), PendingFile, "abandoned", True),
        (_("Put requests open"), PutRequest, "open", False),
        (_("Put requests used"), PutRequest, "used", False),
        (_("Put requests failed"), PutRequest, "failed", True),
        (_("Contents damaged"), Resource, "damaged", True),
        (_("Contents missing"), Resource, "missing", True),
    ]
    return [
        {
            "label": label,
            "model": model._meta.model_name,
            "number": standing.number(model, state),
            "is_bad": is_bad,
            "url": columns.page_url(site, model, "changelist", state=state),
        }
        for label, model, state, is_bad in lines
    ]
