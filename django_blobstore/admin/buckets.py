"""Buckets in the admin: what they hold and cost; removing one removes its objects through the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import BooleanField, Case, CharField, Q, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_blobstore.access import Action, granted_buckets, may
from django_blobstore.admin import columns
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.admin.places import (
    has_own_buckets,
    listed_buckets,
    owns_buckets,
    seen_inside,
    sees_all_listed,
    sees_every_place,
    viewer,
)
from django_blobstore.admin.quota import BucketForm, use
from django_blobstore.admin.removal import Part, RemovalPages
from django_blobstore.models import Bucket, ManagedResource

if TYPE_CHECKING:
    from django.contrib.auth.models import User

USAGE = ("object_count", "logical_bytes", "stored_bytes", "quota_use")
# What tells of the objects in a bucket.
OF_OBJECTS = ("browse", *USAGE)
_INSIDE = "inside"


class BucketList(ChangeList):
    """A list that no address orders by what the person may not see."""

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None


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
        person = viewer(request)
        return listed_buckets(person).with_usage().annotate(is_seen_inside=_seen_inside(person), leads_to=_page(person))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Bucket | None:
        """Return a bucket, listed or not: who is granted something on a single one may come by its address."""
        try:
            found = Bucket.objects.with_usage().annotate(is_seen_inside=_seen_inside(viewer(request)))
            return found.filter(pk=unquote(object_id)).first()
        except ValidationError:
            return None

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        if self._may(request, "view", obj) or self._may(request, "change", obj):
            return True
        return obj is None and has_own_buckets(viewer(request))

    def has_change_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return self._may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Bucket | None = None) -> bool:
        return self._may(request, "delete", obj)

    def _may(self, request: HttpRequest, action: Action, bucket: Bucket | None) -> bool:
        person = viewer(request)
        if may(person, action, "bucket", bucket):
            return True
        return bucket is None and (owns_buckets(person) or bool(granted_buckets(person, action, "bucket")))

    def get_readonly_fields(self, request: HttpRequest, obj: Bucket | None = None) -> list[Any]:
        fixed = [] if self._may_set_quota(request, obj) else ["owner", "quota_bytes", "quota"]
        return [*self.readonly_fields, *fixed]

    def _may_set_quota(self, request: HttpRequest, bucket: Bucket | None) -> bool:
        # Who has one bucket may name it, but neither give it away nor lift its quota.
        return bucket is None or may(viewer(request), "change", "bucket")

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        person = viewer(request)
        sees_some = sees_every_place(person) or has_own_buckets(person)
        return [column for column in self.list_display if sees_some or column not in OF_OBJECTS]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BucketList

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return None  # see `label`

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        # The order tells how much is in a bucket.
        hidden = () if sees_all_listed(viewer(request)) else USAGE
        return [column for column in self.get_list_display(request) if column not in hidden]

    def get_fields(self, request: HttpRequest, obj: Bucket | None = None) -> list[Any]:
        named = ["name", "owner", "quota_bytes" if self._may_set_quota(request, obj) else "quota"]
        if obj is None:
            return named
        shown = OF_OBJECTS if may(viewer(request), "view", "managedresource", obj) else ()
        return [*named, "uuid", *shown, "created_at"]

    @admin.display(description=_("name"), ordering="name")
    def label(self, bucket: Any) -> SafeString:
        """Lead to the page of the bucket, or into it whoever may only look inside."""
        if bucket.leads_to == _INSIDE:
            return columns.link(self._inside(bucket), bucket)
        return columns.link(columns.page_url(self.admin_site, Bucket, "change", bucket.pk), bucket)

    @admin.display(description=_("objects"), ordering="object_count")
    def object_count(self, bucket: Any) -> SafeString | str:
        if not bucket.is_seen_inside:
            return ""
        url = columns.page_url(self.admin_site, ManagedResource, "changelist", bucket__uuid__exact=bucket.pk)
        return columns.link(url, number_format(bucket.object_count))

    @admin.display(description=_("look inside"))
    def browse(self, bucket: Any) -> SafeString | str:
        return columns.link(self._inside(bucket), _("Browse")) if bucket.is_seen_inside else ""

    def _inside(self, bucket: Bucket) -> str:
        return columns.page_url(self.admin_site, ManagedResource, "browse", bucket=bucket.pk)

    @admin.display(description=_("logical size"), ordering="logical_bytes")
    def logical_bytes(self, bucket: Any) -> SafeString | str:
        return columns.human_length(bucket.logical_bytes) if bucket.is_seen_inside else ""

    @admin.display(description=_("stored size"), ordering="stored_bytes")
    def stored_bytes(self, bucket: Any) -> SafeString | str:
        return columns.human_length(bucket.stored_bytes) if bucket.is_seen_inside else ""

    @admin.display(description=_("quota"))
    def quota(self, bucket: Bucket) -> SafeString | str:
        return "-" if bucket.quota_bytes is None else columns.human_length(bucket.quota_bytes)

    @admin.display(description=_("quota used"))
    def quota_use(self, bucket: Any) -> SafeString | str:
        return use(bucket, bucket.logical_bytes) if bucket.is_seen_inside else ""

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


def _seen_inside(person: User) -> Case | Value:
    """Return, as a column, whether `person` may see the objects in a bucket."""
    if sees_every_place(person):
        return Value(True)
    inside = Q(owner=person.pk) | Q(pk__in=seen_inside(person))
    return Case(When(inside, then=True), default=False, output_field=BooleanField())


def _page(person: User) -> Case | Value:
    """Return, as a column, what page of a bucket `person` is led to: its own, or what is `_INSIDE`."""
    if may(person, "view", "bucket") or may(person, "change", "bucket"):
        return Value("")
    shown = granted_buckets(person, "view", "bucket") | granted_buckets(person, "change", "bucket")
    has_page = Q(owner=person.pk) | Q(pk__in=shown)
    return Case(When(has_page, then=Value("")), default=Value(_INSIDE), output_field=CharField())
