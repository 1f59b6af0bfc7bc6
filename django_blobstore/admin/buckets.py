"""Buckets in the admin: what they hold and cost; removing one removes its objects through the store."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.access import Action, may
from django_blobstore.admin import columns
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.admin.places import listed_buckets, owns_buckets, sees_every_place, viewer
from django_blobstore.admin.quota import BucketForm, use
from django_blobstore.admin.removal import Part, RemovalPages
from django_blobstore.models import Bucket, ManagedResource

USAGE = ("object_count", "logical_bytes", "stored_bytes", "quota_use")
# What tells of the objects in a bucket.
OF_OBJECTS = ("browse", *USAGE)


class BucketAdmin(StoreAdmin):
    """Lists buckets with their usage."""

    list_display = ["label", "browse", "owner", *USAGE, "created_at"]
    form = BucketForm
    actions = ["delete_selected"]
    list_select_related = ["owner"]
    search_fields = ["name", "uuid"]
    search_help_text = _("Part of a name or of a UUID.")
    ordering = ["name"]
    raw_id_fields = ["owner"]
    readonly_fields = ["uuid", *OF_OBJECTS, "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bucket]:
        return listed_buckets(viewer(request)).with_usage()

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Bucket | None:
        """Return a bucket, listed or not: who is granted something on a single one comes by its address."""
        try:
            return Bucket.objects.with_usage().filter(pk=unquote(object_id)).first()
        except ValidationError:
            return None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or owns_buckets(viewer(request))

    def has_view_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return self._may(request, "view", obj) or self._may(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return self._may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return self._may(request, "delete", obj)

    def _may(self, request: HttpRequest, action: Action, bucket: Bucket | None) -> bool:
        person = viewer(request)
        return may(person, action, "bucket", bucket) or (bucket is None and owns_buckets(person))

    def get_readonly_fields(self, request: HttpRequest, obj: Bucket | None = None) -> list[Any]:
        fixed = [] if self._may_set_quota(request, obj) else ["owner", "quota_bytes", "quota"]
        return [*self.readonly_fields, *fixed]

    def _may_set_quota(self, request: HttpRequest, bucket: Bucket | None) -> bool:
        # Who has one bucket may name it, but neither give it away nor lift its quota.
        return bucket is None or may(viewer(request), "change", "bucket")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        # Lists are of all buckets or of one's own. What is in others is not for who may not see it.
        person = viewer(request)
        hidden = may(person, "view", "bucket") and not sees_every_place(person)
        return [column for column in self.list_display if not (hidden and column in OF_OBJECTS)]

    def get_fields(self, request: HttpRequest, obj: Bucket | None = None) -> list[Any]:
        named = ["name", "owner", "quota_bytes" if self._may_set_quota(request, obj) else "quota"]
        if obj is None:
            return named
        shown = OF_OBJECTS if may(viewer(request), "view", "managedresource", obj) else ()
        return [*named, "uuid", *shown, "created_at"]

    @admin.display(description=_("name"), ordering="name")
    def label(self, bucket: Bucket) -> str:
        return str(bucket)

    @admin.display(description=_("objects"), ordering="object_count")
    def object_count(self, bucket: Any) -> SafeString:
        url = columns.page_url(self.admin_site, ManagedResource, "changelist", bucket__uuid__exact=bucket.pk)
        return columns.link(url, number_format(bucket.object_count))

    @admin.display(description=_("look inside"))
    def browse(self, bucket: Bucket) -> SafeString:
        url = columns.page_url(self.admin_site, ManagedResource, "browse", bucket=bucket.pk)
        return columns.link(url, _("Browse"))

    @admin.display(description=_("logical size"), ordering="logical_bytes")
    def logical_bytes(self, bucket: Any) -> SafeString:
        return columns.human_length(bucket.logical_bytes)

    @admin.display(description=_("stored size"), ordering="stored_bytes")
    def stored_bytes(self, bucket: Any) -> SafeString:
        return columns.human_length(bucket.stored_bytes)

    @admin.display(description=_("quota"))
    def quota(self, bucket: Bucket) -> SafeString | str:
        return "-" if bucket.quota_bytes is None else columns.human_length(bucket.quota_bytes)

    @admin.display(description=_("quota used"))
    def quota_use(self, bucket: Any) -> SafeString | str:
        return use(bucket, bucket.logical_bytes)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        held = getattr(obj, "logical_bytes", 0)
        if "quota_bytes" in form.changed_data and obj.quota_bytes is not None and held > obj.quota_bytes:
            told = _("There is more in the bucket than this quota allows: nothing is deleted, and no more comes in.")
            messages.warning(request, told)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Say what removing the bucket with its objects frees, and let it be confirmed."""
        bucket = self.get_object(request, object_id)
        if bucket is None:
            return self.gone(request, object_id)
        if not self.has_delete_permission(request, bucket):
            raise PermissionDenied
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
