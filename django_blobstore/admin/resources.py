"""Resources in the admin: what is stored once, how often it is referred to, by whom, and whether it is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin import columns
from django_blobstore.admin.base import ReadOnlyAdmin, StateFilter
from django_blobstore.admin.keyset import KeysetAdmin
from django_blobstore.admin.upkeep import CHOSEN, start_verification
from django_blobstore.models import ManagedResource, Resource

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

LISTED_REFERENCES = 100


class ResourceStateFilter(StateFilter):
    """Offers the states of a content's bytes."""

    states = {"sound": _("sound"), "damaged": _("damaged"), "missing": _("missing"), "pending": _("pending")}


class ResourceAdmin(ReadOnlyAdmin, KeysetAdmin):
    """Lists contents, the newest first."""

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
        shown = ["sha384", "sha256", "human_length", "reference_count", "saved", "scope", "storage", "path", "state"]
        shown += ["verified_at", "damaged_at", "created_at"]
        return [*shown, "references"] if _may_see_objects(request) else shown

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

    @admin.display(description=_("referred to by"))
    def references(self, resource: Resource) -> SafeString:
        objects = resource.references.select_related("bucket").order_by("bucket_id", "user")[:LISTED_REFERENCES]
        links = columns.object_links(self.admin_site, objects, resource.reference_count)
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", ((one,) for one in links)))


def _may_see_objects(request: HttpRequest) -> bool:
    meta = ManagedResource._meta
    return any(request.user.has_perm(f"{meta.app_label}.{verb}_{meta.model_name}") for verb in ("view", "change"))
