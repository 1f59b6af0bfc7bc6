"""What the pages of all tables have in common, and of those that only the store itself may write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _


class StoreAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no arguments
    """Lists and pages in the style of the store, whose tables may be large."""

    show_full_result_count = False

    def gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Say that there is no such row (any more), on the index, as Django's own pages do."""
        answer: HttpResponse = self._get_obj_does_not_exist_redirect(  # type: ignore[attr-defined]
            request, self.opts, object_id
        )
        return answer

    class Media:
        css = {"all": ["django_blobstore/admin.css"]}


class ReadOnlyAdmin(StoreAdmin):
    """Lists and pages without any form."""

    actions: Sequence[str] | None = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class StateFilter(SimpleListFilter):
    """Offers states, each named as the method of the QuerySet that selects the rows in it."""

    title = _("state")
    parameter_name = "state"
    states: dict[str, Any]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(self.states.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        state = self.value()
        chosen: QuerySet[Any] = getattr(queryset, state)() if state in self.states else queryset
        return chosen

    @classmethod
    def label(cls, state: str) -> SafeString:
        """Show `state` in its colour."""
        return format_html('<span class="blobstore-{}">{}</span>', state, cls.states[state])
