"""Buckets in the admin: what they hold and cost; removing one removes its objects through the store."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin import columns, removal
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource

USAGE = ("object_count", "logical_bytes", "stored_bytes")


class BucketAdmin(StoreAdmin):
    """Lists buckets with their usage."""

    list_display = ["label", "uuid", "owner", *USAGE, "created_at"]
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

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, Any], set[str], list[str]]:
        """Say that the buckets' objects go with them; nothing protects a bucket from whoever may delete both."""
        buckets = list(objs)
        objects = ManagedResource.objects.filter(bucket__in=[bucket.pk for bucket in buckets])
        counts = {str(self.opts.verbose_name_plural): len(buckets), **removal.summary(objects)}
        listed = [str(bucket) for bucket in buckets]
        return [*listed, removal.listing(self.admin_site, objects)], counts, _lacking(request, objects), []

    def delete_model(self, request: HttpRequest, obj: Bucket) -> None:
        ManagedStorage().remove_bucket(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        for bucket in queryset:
            ManagedStorage().remove_bucket(bucket)


def _lacking(request: HttpRequest, objects: QuerySet[ManagedResource]) -> set[str]:
    """Return what the user may not delete of what would go."""
    if request.user.has_perm("django_blobstore.delete_managedresource") or not objects.exists():
        return set()
    return {str(ManagedResource._meta.verbose_name)}
