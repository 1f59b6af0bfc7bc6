"""Resources in the admin: what is stored once, how often it is referred to, by whom, and whether it is sound."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin import columns
from django_blobstore.admin.base import StateFilter
from django_blobstore.admin.file_rows import FileRows
from django_blobstore.admin.keyset import KeysetAdmin
from django_blobstore.admin.places import Place, sees_every_place, viewer
from django_blobstore.admin.references import References
from django_blobstore.admin.upkeep import CHOSEN, OffersRun, start_verification
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.upkeep import Kind, verify

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


# Bytes that are read within a request.
READ_AT_ONCE = 64 * 1024 * 1024


class ResourceStateFilter(StateFilter):
    """Offers the states of a content's bytes."""

    states = {"sound": _("sound"), "damaged": _("damaged"), "missing": _("missing"), "pending": _("pending")}


class ResourceAdmin(OffersRun, KeysetAdmin):
    """Lists contents, the newest first."""

    offered_run = "verify-damaged"
    list_display = [
        "sha384_start",
        "human_length",
        "references_count",
        "saved",
        "state",
        "verified",
        "created",
        "storage",
        "scope",
    ]
    list_filter = [ResourceStateFilter]
    search_fields = ["sha384"]
    search_help_text = _("A SHA-384 in hex, or the start of one.")
    actions = ["verify_now"]

    def has_verify_permission(self, request: HttpRequest) -> bool:
        """Whether the user may have bytes read again, which can mark the content as damaged."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def get_fields(self, request: HttpRequest, obj: Resource | None = None) -> list[Any]:
        return ["sha256", "scope", "storage", "path", "created_at"]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        hidden = set() if sees_every_place(viewer(request)) else {"references_count", "saved"}
        return [column for column in self.list_display if column not in hidden]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.verify_view)
        return [path("<int:pk>/verify/", view, name="django_blobstore_resource_verify"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        resource: Resource | None = self.get_object(request, object_id)
        if resource is None or not self.has_view_permission(request, resource):
            return super().change_view(request, object_id, form_url, extra_context)
        page = {**self._about(request, resource), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, page)

    def _about(self, request: HttpRequest, resource: Resource) -> dict[str, Any]:
        """Return what the page of a content shows besides its columns."""
        after = request.GET.get("after", "")
        references = References.seen_by(viewer(request), resource, after)
        files = FileRows.of(self.admin_site, request, references.objects)
        rows = [
            (
                managed,
                columns.page_url(self.admin_site, ManagedResource, "change", managed.pk),
                place,
                url,
                files.by_object.get(managed.pk, []),
            )
            for managed in references.objects
            for place in [Place.of(request, managed)]
            for url in [place.url(self.admin_site.name, folder=_folder(managed.path))]
        ]
        return {
            "title": _("Content %(sha384)s…") % {"sha384": resource.sha384[:12]},
            "subtitle": None,
            "resource": resource,
            "references": references,
            "rows": rows,
            "files": files,
            "first_url": "?",
            "previous_url": after and f"?after={references.former_after}",
            "next_url": references.next_after and f"?after={references.next_after}",
            "integrity": "sha384-" + base64.b64encode(bytes.fromhex(resource.sha384)).decode(),
            "may_verify": self.has_verify_permission(request) and bool(resource.path),
            "verify_url": columns.page_url(self.admin_site, Resource, "verify", resource.pk),
        }

    def verify_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Read the bytes of a content again and tell what came out; of a long one, on a page that shows how it goes."""
        if request.method != "POST" or not self.has_verify_permission(request):
            raise PermissionDenied
        resource = get_object_or_404(Resource.objects.exclude(path=""), pk=pk)
        page = None if resource.length <= READ_AT_ONCE else start_verification(request, self.admin_site, [pk])
        return page or self._verified(request, resource)

    def _verified(self, request: HttpRequest, resource: Resource) -> HttpResponse:
        if finding := verify(resource):
            self.message_user(request, f"{_told(finding.kind)} ({finding.detail})", messages.ERROR)
        else:
            self.message_user(request, _("The stored bytes were read, and they are right."), messages.SUCCESS)
        return HttpResponseRedirect(columns.page_url(self.admin_site, Resource, "change", resource.pk))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Resource], search_term: str
    ) -> tuple[QuerySet[Resource], bool]:
        prefix = search_term.strip().lower()
        # As a range of the index: of a LIKE it depends on the collation whether one serves it.
        return queryset.filter(sha384__range=(prefix, prefix.ljust(96, "f"))) if prefix else queryset, False

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        return ["sha384"] if request.GET.get("q") else ["-pk"]

    def get_orders(self, request: HttpRequest) -> dict[str, list[str]]:
        return {"pk": ["pk"], "sha384": ["sha384", "scope"]}

    @admin.display(description="SHA-384", ordering="sha384")
    def sha384_start(self, resource: Resource) -> SafeString:
        return columns.short_hash(resource.sha384)

    @admin.display(description=_("length"))
    def human_length(self, resource: Resource) -> SafeString:
        return columns.human_length(resource.length)

    @admin.display(description=_("references"))
    def references_count(self, resource: Resource) -> int:
        return resource.reference_count

    @admin.display(description=_("saved"))
    def saved(self, resource: Resource) -> SafeString:
        return columns.human_length(resource.saved_bytes)

    @admin.display(description=_("state"))
    def state(self, resource: Resource) -> SafeString:
        if resource.damaged_at:
            return ResourceStateFilter.label("missing" if resource.missing else "damaged")
        return ResourceStateFilter.label("sound" if resource.path else "pending")

    @admin.action(description=_("Verify the bytes now"), permissions=["verify"])
    def verify_now(self, request: HttpRequest, queryset: QuerySet[Resource]) -> HttpResponse | None:
        """Compare the stored bytes of the chosen contents with their hashes, on a page that shows how it goes."""
        keys = list(queryset.order_by().values_list("pk", flat=True)[: CHOSEN + 1])
        return start_verification(request, self.admin_site, keys)

    @admin.display(description=_("verified"))
    def verified(self, resource: Resource) -> SafeString | StrOrPromise:
        return columns.day(resource.verified_at) if resource.verified_at else _("never")

    @admin.display(description=_("created"), ordering="pk")
    def created(self, resource: Resource) -> SafeString:
        return columns.day(resource.created_at)


def _told(kind: Kind) -> StrOrPromise:
    """Say what reading a content again has found."""
    if kind is Kind.FILE_MISSING:
        return _("The stored bytes are missing.")
    if kind is Kind.UNREAD:
        return _("The storage could not be read; try again later.")
    return _("The stored bytes are damaged.")


def _folder(path: str) -> str:
    folder, slash, _name = path.rpartition("/")
    return folder + slash
