"""Upkeep from the admin: what ran, what it came to, what is due, and runs that a page takes a step at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from django.utils.text import capfirst, format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from django_blobstore.admin import columns
from django_blobstore.admin.base import ReadOnlyAdmin
from django_blobstore.admin.places import viewer
from django_blobstore.conf import conf
from django_blobstore.models import PutRequest, UpkeepRun
from django_blobstore.upkeep import Kind as FindingKind
from django_blobstore.upkeep import Tally, advance, begin
from django_blobstore.upkeep.runs import STANDING

Kind = UpkeepRun.Kind
SECONDS_TO_WAIT = 1.0
# Without a sign of life for so long, what a command or a task began was killed.
SILENCE = timedelta(minutes=15)
# So many contents are verified because somebody chose them one by one; for more there is a scrub.
CHOSEN = 10_000

# What may be begun here: how it is called in a form, of which kind it is, and with which options.
OFFERED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sweep": (Kind.SWEEP, {}),
    "audit": (Kind.AUDIT, {}),
    "fix": (Kind.AUDIT, {"fix": True}),
    "scrub": (Kind.SCRUB, {}),
    "verify-damaged": (Kind.VERIFY, {"damaged": True}),
    "measure": (Kind.MEASURE, {}),
}

FIGURES: Mapping[str, Any] = {
    "deleted_files": gettext_lazy("files deleted"),
    "deleted_bytes": gettext_lazy("freed"),
    "rolled_back_files": gettext_lazy("of these, left by rolled-back transactions"),
    "failed_files": gettext_lazy("files refused by their storage"),
    "abandoned_uploads": gettext_lazy("uploads given up"),
    "expired_uploads": gettext_lazy("resumable uploads expired"),
    "forgotten_requests": gettext_lazy("old put requests forgotten"),
    "objects": gettext_lazy("objects looked at"),
    "contents": gettext_lazy("contents looked at"),
    "files": gettext_lazy("files looked at"),
    "compared": gettext_lazy("contents compared"),
    "compared_bytes": gettext_lazy("read"),
    "unmarked": gettext_lazy("wrong marks taken away"),
    "moved": gettext_lazy("contents moved"),
    "moved_bytes": gettext_lazy("size of what was moved"),
    "overtaken": gettext_lazy("contents removed or replaced meanwhile"),
    "in_source": gettext_lazy("contents left in the source"),
    "damaged": gettext_lazy("damaged"),
    "missing": gettext_lazy("missing"),
    "unread": gettext_lazy("not read"),
    "found": gettext_lazy("findings"),
    "left": gettext_lazy("wrong still"),
}
ALWAYS_TOLD = {
    Kind.SWEEP: ("deleted_files", "deleted_bytes"),
    Kind.AUDIT: ("objects", "contents", "files", "found"),
    Kind.SCRUB: ("compared", "compared_bytes", "damaged"),
    Kind.VERIFY: ("compared", "compared_bytes", "damaged"),
    Kind.MOVE: ("moved", "moved_bytes", "in_source"),
}
BAD = {"failed_files", "damaged", "missing", "unread", "left"}
# What may be found, in words.
FINDINGS: Mapping[str, Any] = {
    FindingKind.OBJECT_WITHOUT_CONTENT: gettext_lazy("object whose content is gone"),
    FindingKind.COUNT_TOO_LOW: gettext_lazy("fewer references counted than there are"),
    FindingKind.COUNT_TOO_HIGH: gettext_lazy("more references counted than there are"),
    FindingKind.TOTALS_WRONG: gettext_lazy("wrong totals of a bucket or a user"),
    FindingKind.CONTENT_WITHOUT_OBJECT: gettext_lazy("content to which no object refers"),
    FindingKind.FILE_MISSING: gettext_lazy("file missing"),
    FindingKind.FILE_OF_OTHER_LENGTH: gettext_lazy("file of another length"),
    FindingKind.FILE_OF_OTHER_HASH: gettext_lazy("file with other bytes"),
    FindingKind.FILE_NAMED_TWICE: gettext_lazy("file in use that is also to be deleted"),
    FindingKind.FILE_WITHOUT_ROW: gettext_lazy("file that nothing needs"),
    FindingKind.FILE_NOT_OURS: gettext_lazy("file of somebody else, which is no error"),
    FindingKind.CHUNKS_WITHOUT_FILE: gettext_lazy("chunks without a file"),
    FindingKind.DAMAGED: gettext_lazy("content marked as damaged before"),
    FindingKind.UNREAD: gettext_lazy("file that could not be read"),
    FindingKind.NOT_COPIED: gettext_lazy("content that could not be copied"),
}
STATES: Mapping[str, Any] = {
    "running": gettext_lazy("under way"),
    "paused": gettext_lazy("paused"),
    "silent": gettext_lazy("broken off"),
    "failed": gettext_lazy("failed"),
    "done": pgettext_lazy("upkeep", "done"),
}
STAGES: Mapping[str, Any] = {
    "files": gettext_lazy("files"),
    "objects": gettext_lazy("objects"),
    "contents": gettext_lazy("contents"),
    "totals": gettext_lazy("totals of buckets and users"),
    "measure": gettext_lazy("totals and rankings"),
}


@dataclass(frozen=True)
class Figure:
    """A line of what a run came to."""

    label: Any
    text: SafeString | str
    is_bad: bool = False


@dataclass(frozen=True)
class Standing:
    """What was under way and damaged after the last sweep."""

    at: datetime | None
    counts: Mapping[str, int]

    def number(self, model: type[Model], state: str) -> int | None:
        return self.counts.get(f"requests_{state}" if model is PutRequest else state)


@dataclass(frozen=True)
class Line:
    """The last run of a kind that came to its end, and when the next one is due."""

    kind: str
    label: Any
    run: UpkeepRun | None
    url: str
    figures: Sequence[Figure]
    due_at: datetime | None

    @property
    def is_due(self) -> bool:
        return self.due_at is not None and self.due_at <= timezone.now()


@dataclass(frozen=True)
class Upkeep:
    """What a dashboard tells of upkeep."""

    lines: Sequence[Line]
    under_way: Sequence[tuple[UpkeepRun, str, Any]]
    standing: Standing


def upkeep_of(site: AdminSite, *, runs: int = 5) -> Upkeep:
    """Return what the last runs came to, what is due next, and the last `runs` that are under way."""
    last = {run.kind: run for run in UpkeepRun.objects.latest_ended()}
    under_way = UpkeepRun.objects.under_way().order_by("-pk")[:runs]
    swept = last.get(Kind.SWEEP)
    kinds = [Kind.SWEEP, Kind.SCRUB, Kind.AUDIT, *([Kind.MOVE] if Kind.MOVE in last else [])]
    standing = Standing(swept.ended_at, swept.figures.get(STANDING, {})) if swept else Standing(None, {})
    return Upkeep(
        [_line(site, kind, last.get(kind)) for kind in kinds],
        [(run, _url(site, run), STATES[state_of(run)]) for run in under_way],
        standing,
    )


def state_of(run: UpkeepRun) -> str:
    """Return which of `STATES` a run is in."""
    now = timezone.now()
    if run.ended_at:
        return "failed" if run.error else "done"
    if run.origin == UpkeepRun.Origin.ADMIN:
        return "running" if run.lease_until and run.lease_until > now else "paused"
    return "running" if run.progress_at > now - SILENCE else "silent"


def figures_of(run: UpkeepRun) -> list[Figure]:
    """Return what a run came to, without what came to nothing."""
    told = ALWAYS_TOLD.get(Kind(run.kind), ())
    return [
        Figure(label, _text(name, run.figures[name]), name in BAD and bool(run.figures[name]))
        for name, label in FIGURES.items()
        if isinstance(run.figures.get(name), int) and (run.figures[name] or name in told)
    ]


def start_verification(request: HttpRequest, site: AdminSite, keys: Sequence[int]) -> HttpResponse | None:
    """Begin to verify contents and return the way to its page; None, and a message, if they are too many."""
    if len(keys) > CHOSEN:
        told = _("Choose at most %(number)s contents, or begin a scrub.") % {"number": number_format(CHOSEN)}
        messages.error(request, told)
        return None
    run = begin(Kind.VERIFY, user=request.user, resources=list(keys))
    return HttpResponseRedirect(_url(site, run))


def may_run(request: HttpRequest) -> bool:
    """Whether the user may begin upkeep, which deletes what nothing needs and marks what is damaged."""
    return request.user.has_perm("django_blobstore.add_upkeeprun")


class OffersRun(ReadOnlyAdmin):
    """A list with a button that begins one of what is `OFFERED`."""

    offered_run = "sweep"
    change_list_template = "admin/django_blobstore/upkeep/offered.html"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        offered = {"may_run": may_run(request), "offered_run": self.offered_run}
        return super().changelist_view(request, {**(extra_context or {}), **offered})


class UpkeepRunAdmin(ReadOnlyAdmin):
    """Lists runs, the newest first, begins others, and shows how far one is."""

    list_display = ["kind", "state", "begun_by", "started_at", "took", "outcome"]
    list_filter = ["kind", "origin"]
    list_select_related = ["user"]
    ordering = ["-pk"]
    change_list_template = "admin/django_blobstore/upkeep/list.html"

    def get_urls(self) -> list[URLPattern]:
        wrap, name = self.admin_site.admin_view, "django_blobstore_upkeeprun"
        return [
            path("begin/", wrap(self.begin_view), name=f"{name}_begin"),
            path("<int:pk>/change/", wrap(self.run_view), name=f"{name}_change"),
            path("<int:pk>/advance/", wrap(self.advance_view), name=f"{name}_advance"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        offered = {"may_run": may_run(request)}
        return super().changelist_view(request, {**(extra_context or {}), **offered})

    def begin_view(self, request: HttpRequest) -> HttpResponse:
        """Begin what the form asks for and show how it goes."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not may_run(request):
            raise PermissionDenied
        kind, options = OFFERED.get(request.POST.get("what", ""), ("", {}))
        if not kind:
            raise Http404
        run = begin(kind, user=request.user, **options)
        return HttpResponseRedirect(_url(self.admin_site, run))

    def run_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show a run; while it is not at its end, the page asks for step after step."""
        run = self._run(request, pk)
        context = {
            **self.admin_site.each_context(request),
            **_shown(run),
            "opts": self.opts,
            "title": capfirst(str(run)),
            "may_advance": run.origin == UpkeepRun.Origin.ADMIN and self._may_advance(request, run),
        }
        return TemplateResponse(request, "admin/django_blobstore/upkeep/run.html", context)

    def advance_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Do a step of a run and show it again."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        run = self._run(request, pk)
        if run.origin != UpkeepRun.Origin.ADMIN or not self._may_advance(request, run):
            raise PermissionDenied
        if not advance(run) and run.ended_at is None:
            # Another step is at work, which may have been begun in another window.
            time.sleep(SECONDS_TO_WAIT)
        return HttpResponseRedirect(_url(self.admin_site, run))

    def _run(self, request: HttpRequest, pk: int) -> UpkeepRun:
        run = get_object_or_404(UpkeepRun.objects.select_related("user"), pk=pk)
        if not (self.has_view_permission(request, run) or run.user_id == viewer(request).pk):
            raise PermissionDenied
        return run

    def _may_advance(self, request: HttpRequest, run: UpkeepRun) -> bool:
        return run.user_id == viewer(request).pk or may_run(request)

    @admin.display(description=gettext_lazy("state"))
    def state(self, run: UpkeepRun) -> Any:
        return STATES[state_of(run)]

    @admin.display(description=gettext_lazy("begun by"))
    def begun_by(self, run: UpkeepRun) -> str:
        return f"{run.get_origin_display()}, {run.user}" if run.user else run.get_origin_display()

    @admin.display(description=gettext_lazy("took"))
    def took(self, run: UpkeepRun) -> str:
        return duration((run.ended_at or run.progress_at) - run.started_at)

    @admin.display(description=gettext_lazy("outcome"))
    def outcome(self, run: UpkeepRun) -> str:
        return run.error or "; ".join(f"{figure.label}: {strip_tags(figure.text)}" for figure in figures_of(run))


def duration(took: timedelta) -> str:
    """Write how long something took in the unit people think in."""
    seconds = took.total_seconds()
    if seconds < 60:
        return _("%(seconds)s s") % {"seconds": number_format(seconds, 1)}
    if seconds < 3600:
        return _("%(minutes)s min") % {"minutes": number_format(seconds / 60, 1)}
    return _("%(hours)s h") % {"hours": number_format(seconds / 3600, 1)}


def stage_name(stage: str) -> Any:
    """Return what a stage is called; some are those of one storage, as "files of default"."""
    name, _of, alias = stage.partition(" of ")
    label = STAGES.get(name, gettext_lazy("chunks") if name == "chunks" else name)
    return format_lazy("{} ({})", label, alias) if alias else label


def _shown(run: UpkeepRun) -> dict[str, Any]:
    return {
        "run": run,
        "state": state_of(run),
        "state_name": STATES[state_of(run)],
        "stage": stage_name(run.stage),
        "figures": figures_of(run),
        "kinds": [(FINDINGS.get(kind, kind), Tally(**tally)) for kind, tally in run.figures.get("kinds", {}).items()],
        "findings": [{**finding, "kind": FINDINGS.get(finding["kind"], finding["kind"])} for finding in run.findings],
        "away": run.figures["unread"] if isinstance(run.figures.get("unread"), dict) else {},
        "took": duration((run.ended_at or run.progress_at) - run.started_at),
        "is_fixing": bool(run.options.get("fix")),
    }


def _line(site: AdminSite, kind: str, run: UpkeepRun | None) -> Line:
    every = conf.UPKEEP_EVERY.get(kind)
    due_at: datetime | None = None
    if every is not None:
        due_at = run.ended_at + timedelta(seconds=every) if run and run.ended_at else timezone.now()
    return Line(kind, Kind(kind).label, run, _url(site, run) if run else "", figures_of(run) if run else [], due_at)


def _url(site: AdminSite, run: UpkeepRun) -> str:
    return columns.page_url(site, UpkeepRun, "change", run.pk)


def _text(name: str, number: int) -> SafeString | str:
    return columns.human_length(number) if name.endswith("_bytes") else number_format(number, force_grouping=True)
