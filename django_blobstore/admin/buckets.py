"""Buckets in the admin: what they hold and cost; removing one removes its objects through the store."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin import columns
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.admin.removal import Part, RemovalPages
from django_blobstore.models import Bucket, ManagedResource

USAGE = ("object_count", "logical_bytes", "stored_bytes")


class BucketAdmin(StoreAdmin):
    """Lists buckets with their usage."""

    list_display = ["label", "uuid", "owner", *USAGE, "created_at"]
    actions = ["delete_selected"]
    list_select_related = ["owner"]
    search_fields = ["name", "uuid"]
    search_help_text = _("Part of a name or of a UUID.")
    ordering = ["name"]
    raw_id_fields = ["owner"]
    readonly_fields = ["uuid", *USAGE, "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bucket]:
        return Bucket.objects.with_usage()

    def get_fields(self, request: HttpRequest, obj: Bucket | None = None) -> list[Any]:
        known = ["uuid", *USAGE, "created_at"] if obj else []
        return ["name", "owner", *known]

    @admin.display(description=_("name"), ordering="name")
    def label(self, bucket: Bucket) -> str:
        return str(bucket)

    @admin.display(description=_("objects"), ordering="object_count")
    def object_count(self, bucket: Any) -> SafeString:
        url = columns.page_url(self.admin_site, ManagedResource, "changelist", bucket__uuid__exact=bucket.pk)
        return columns.link(url, number_format(bucket.object_count))

    @admin.display(description=_("logical size"), ordering="logical_bytes")
    def logical_bytes(self, bucket: Any) -> SafeString:
        return columns.human_length(bucket.logical_bytes)

    @admin.display(description=_("stored size"), ordering="stored_bytes")
    def stored_bytes(self, bucket: Any) -> SafeString:
        return columns.human_length(bucket.stored_bytes)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Say what removing the bucket with its objects frees, and let it be confirmed."""
        bucket = self.get_object(request, object_id)
        if bucket is None:
            return self.gone(request, object_id)
        return self._confirm(request, [bucket])

    @admin.action(description=_("Delete selected %(verbose_name_plural)s"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> HttpResponse:
        """Say what removing the chosen buckets with their objects frees, and let it be confirmed."""
        return self._confirm(request, list(queryset))

    def _confirm(self, request: HttpRequest, buckets: list[Bucket]) -> HttpResponse:
        parts = [Part(bucket=str(bucket.pk), whole_bucket=True) for bucket in buckets]
        label = ", ".join(map(str, buckets))
        back = columns.page_url(self.admin_site, Bucket, "changelist")
        return RemovalPages(self, request).confirm(parts, label, back)
