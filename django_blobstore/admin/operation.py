"""What is under way, for the operator: challenges to uploaders, and files on their way in or out."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin import columns
from django_blobstore.admin.base import StateFilter
from django_blobstore.admin.keyset import KeysetAdmin
from django_blobstore.admin.upkeep import OffersRun
from django_blobstore.models import PendingFile, PutRequest, PutRequestQuerySet


class RequestStateFilter(SimpleListFilter):
    """Offers the states of a put request; one that is open for too long has expired."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [*PutRequest.State.choices, ("expired", _("expired"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        requests = cast("PutRequestQuerySet", queryset)
        if self.value() == "expired":
            return requests.expired()
        if self.value() == PutRequest.State.OPEN:
            return requests.answerable()
        return requests.filter(state=self.value()) if self.value() else requests


class NamespacedAdmin(OffersRun, KeysetAdmin):
    """Rows of a namespace whose bucket may be gone."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Joined to the row, a bucket that is gone is None; asked for later, it is an error.
        return super().get_queryset(request).select_related("bucket")

    @admin.display(description=_("namespace"))
    def namespace(self, row: PutRequest | PendingFile) -> str:
        return columns.namespace_name(row)


class PutRequestAdmin(NamespacedAdmin):
    """Lists put requests, the newest first; their nonces stay hidden."""

    list_display = [
        "id",
        "current_state",
        "expires_at",
        "requester",
        "namespace",
        "path",
        "human_length",
        "sha384_start",
    ]
    list_filter = [RequestStateFilter]
    ordering = ["-created_at"]
    fields = [
        "id",
        "current_state",
        "requester",
        "namespace",
        "path",
        "sha384",
        "human_length",
        "scope",
        "content_type",
        "algorithm",
        "created_at",
        "expires_at",
    ]

    def get_orders(self, request: HttpRequest) -> dict[str, list[str]]:
        return {"created_at": ["created_at", "id"]}

    @admin.display(description=_("state"))
    def current_state(self, request: PutRequest) -> str:
        return str(_("expired") if request.has_expired else PutRequest.State(request.state).label)

    @admin.display(description="SHA-384")
    def sha384_start(self, request: PutRequest) -> SafeString:
        return columns.short_hash(request.sha384)

    @admin.display(description=_("length"))
    def human_length(self, request: PutRequest) -> SafeString:
        return columns.human_length(request.length)


class PendingStateFilter(StateFilter):
    """Offers what is to become of a file; one that is given up or due waits for the next sweep."""

    states = {
        "arriving": _("arriving"),
        "abandoned": _("given up"),
        "waiting": _("to be deleted"),
        "due": _("due for deletion"),
    }


class PendingFileAdmin(NamespacedAdmin):
    """Lists files that no resource speaks of, by their paths, or in one state by the time it ends or ended."""

    list_display = ["path", "state", "human_length", "deadline", "namespace", "managed_path", "storage"]
    list_filter = [PendingStateFilter]
    fields = [
        "path",
        "storage",
        "state",
        "human_length",
        "offset",
        "namespace",
        "managed_path",
        "declared_sha384",
        "deadline",
        "created_at",
    ]

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        return list(self.get_orders(request))

    def get_orders(self, request: HttpRequest) -> dict[str, list[str]]:
        ends = {"arriving": "lease_until", "abandoned": "lease_until", "waiting": "due_at", "due": "due_at"}
        first = ends.get(request.GET.get(PendingStateFilter.parameter_name, ""))
        return {first: [first, "path"]} if first else {"path": ["path"]}

    @admin.display(description=_("state"))
    def state(self, file: PendingFile) -> SafeString:
        if file.discard:
            return PendingStateFilter.label("due" if file.is_overdue else "waiting")
        return PendingStateFilter.label("abandoned" if file.is_overdue else "arriving")

    @admin.display(description=_("length"))
    def human_length(self, file: PendingFile) -> SafeString | None:
        return None if file.length is None else columns.human_length(file.length)

    @admin.display(description=_("deleted after"))
    def deadline(self, file: PendingFile) -> Any:
        return file.deadline
