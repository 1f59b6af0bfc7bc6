"""Objects in the admin: found by namespace and path, downloaded, described, and removed through the store."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import connections, transaction
from django.db.models import JSONField, Q, QuerySet
from django.db.models.functions import Left
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from django_blobstore import descriptions, serving
from django_blobstore.access import Action, may
from django_blobstore.admin import columns, uploads
from django_blobstore.admin.browser import Browser, steps
from django_blobstore.admin.keyset import KeysetAdmin
from django_blobstore.admin.places import Place, sees_counts, sees_every_place, viewer
from django_blobstore.admin.preview import Preview, shown
from django_blobstore.admin.removal import Part, RemovalPages
from django_blobstore.admin.transfers import KINDS, TransferPage, offered
from django_blobstore.errors import BlobstoreError, InvalidMetadata, ResourceNotFound
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource, ManagedResourceQuerySet, Resource, Usage

FEW_BUCKETS = 20
# No index has the paths of all namespaces, so a search in more than one looks at some rows only.
SEARCHED_EVERYWHERE = 10_000


class NamespaceFilter(SimpleListFilter):
    """Offers the kinds of namespace, each a range of an index."""

    title = _("namespace")
    parameter_name = "namespace"
    conditions = {
        "bucket": Q(bucket__isnull=False),
        "user": Q(bucket__isnull=True, user__gt=""),
        "global": Q(bucket__isnull=True, user=""),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("bucket", _("in a bucket")), ("user", _("of a user")), ("global", _("global"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ManagedResource]) -> QuerySet[ManagedResource]:
        return queryset.filter(self.conditions.get(self.value() or "", Q()))


class BucketFilter(SimpleListFilter):
    """Offers all buckets while they are few, else the one that a link from the bucket's row chose."""

    title = _("bucket")
    parameter_name = "bucket__uuid__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        offered = list(Bucket.objects.order_by("name", "uuid")[: FEW_BUCKETS + 1])
        if len(offered) > FEW_BUCKETS:
            offered = list(Bucket.objects.filter(pk__in=[self.chosen]))
        return [(str(bucket.pk), str(bucket)) for bucket in offered]

    @property
    def chosen(self) -> UUID | None:
        try:
            return UUID(self.value()) if self.value() else None
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error

    def has_output(self) -> bool:
        return bool(self.lookup_choices or self.value())

    def queryset(self, request: HttpRequest, queryset: QuerySet[ManagedResource]) -> QuerySet[ManagedResource]:
        return queryset.filter(bucket_id=self.chosen) if self.chosen else queryset


class UserFilter(SimpleListFilter):
    """Offers the user that a link chose, in the bucket that is chosen or else outside buckets."""

    title = _("user")
    parameter_name = "user__exact"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        user = self.value()
        return [(user, user)] if user else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[ManagedResource]) -> QuerySet[ManagedResource]:
        outside = Q() if request.GET.get(BucketFilter.parameter_name) else Q(bucket=None)
        return queryset.filter(outside, user=self.value())


@dataclass(frozen=True)
class Chosen:
    """What part of all objects a list shows, as its address says: a bucket, a user or a kind of namespace."""

    bucket: str
    user: str
    kind: str

    @classmethod
    def by(cls, request: HttpRequest) -> Chosen:
        filters = (BucketFilter, UserFilter, NamespaceFilter)
        return cls(*(request.GET.get(chosen.parameter_name, "") for chosen in filters))

    @property
    def is_one(self) -> bool:
        """Whether it is one namespace, or a bucket with the namespaces of the users in it."""
        return bool(self.bucket or self.user) or self.kind == "global"

    @property
    def is_counted(self) -> bool:
        """Whether there are totals of just this."""
        if self.bucket:
            return not self.user and self.kind in ("", "bucket")
        return self.is_one and self.kind in ("", "user" if self.user else "global")

    @property
    def is_any(self) -> bool:
        """Whether it is everything."""
        return not (self.is_one or self.kind)


class DescriptionForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no arguments
    """Checks what may be said of an object besides its content."""

    def clean_content_type(self) -> str:
        content_type: str = self.cleaned_data["content_type"]
        if content_type and not serving.is_media_type(content_type):
            raise ValidationError(_("Write a media type such as text/plain or image/png."))
        return content_type

    def clean_metadata(self) -> dict[str, Any]:
        metadata = self.cleaned_data["metadata"] or {}
        if not isinstance(metadata, dict):
            raise ValidationError(_('Write a JSON object, such as {"author": "Ada"}.'))
        try:
            return descriptions.clean_metadata(metadata)
        except InvalidMetadata as error:
            raise ValidationError(_("Write no NUL character and no half of a surrogate pair.")) from error


class ManagedResourceAdmin(KeysetAdmin):
    """Lists objects, the newest first, or by path within a namespace or a kind of namespace."""

    form = DescriptionForm
    list_display = ["path", "namespace", "length", "content_type", "reference_count", "modified"]
    list_filter = [NamespaceFilter, BucketFilter, UserFilter]
    actions = ["delete_selected"]
    search_fields = ["path"]
    search_help_text = format_lazy(
        _(
            "The start of a path, such as photos/2024/. A bucket, a user or the global namespace is searched as a whole"
            " once it is chosen; until then, the newest {count} objects are."
        ),
        count=f"{SEARCHED_EVERYWHERE:,}",
    )
    formfield_overrides = {JSONField: {"widget": forms.Textarea(attrs={"rows": 4})}}
    fields = ["content_type", "metadata"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: ManagedResource | None = None) -> bool:
        return self._may(request, "view", obj) or self._may(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: ManagedResource | None = None) -> bool:
        return self._may(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: ManagedResource | None = None) -> bool:
        return self._may(request, "delete", obj)

    def _may(self, request: HttpRequest, action: Action, managed: ManagedResource | None) -> bool:
        return Place.of(request, managed).may(action) if managed else may(viewer(request), action, "managedresource")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List objects of all places to who may see them all; show others the one they ask for."""
        if sees_every_place(viewer(request)):
            return super().changelist_view(request, extra_context)
        chosen = {"bucket": Chosen.by(request).bucket, "user": Chosen.by(request).user}
        given = {name: value for name, value in chosen.items() if value}
        return HttpResponseRedirect(columns.page_url(self.admin_site, ManagedResource, "browse", **given))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        managed = self.get_object(request, object_id)
        if managed is None or not self.has_view_permission(request, managed):
            return super().change_view(request, object_id, form_url, extra_context)
        page = self._about(request, managed)
        return super().change_view(request, object_id, form_url, {**page, **(extra_context or {})})

    def _about(self, request: HttpRequest, managed: ManagedResource) -> dict[str, Any]:
        """Return what the page of an object shows besides its form."""
        place, resource = Place.of(request, managed), managed.resource
        folder, _slash, name = managed.path.rpartition("/")
        pages = ("download", "content", "history")
        may_see_resource = place.viewer.has_perm("django_blobstore.view_resource")
        return {
            "title": name,
            "subtitle": None,
            "has_form": True,
            "place": place,
            "place_url": place.url(self.admin_site.name, folder=f"{folder}/" if folder else ""),
            "steps": list(steps(place, self.admin_site.name, f"{folder}/" if folder else "", all_linked=True)),
            "resource": resource,
            "resource_url": may_see_resource
            and columns.page_url(self.admin_site, Resource, "change", managed.resource_id),
            "sees_counts": sees_counts(place.viewer),
            "integrity": "sha384-" + base64.b64encode(bytes.fromhex(resource.sha384)).decode(),
            "preview": Preview.of(managed),
            "urls": {page: columns.page_url(self.admin_site, ManagedResource, page, managed.pk) for page in pages},
            "transfers": list(offered(self, managed, place)),
        }

    def get_queryset(self, request: HttpRequest) -> QuerySet[ManagedResource]:
        # Not joined: SQLite might begin with the other table, and then sort all objects for each page.
        return super().get_queryset(request).prefetch_related("bucket", "resource")

    def get_ordering(self, request: HttpRequest) -> list[Any]:
        return ["-pk"] if "pk" in self.get_orders(request) else ["path"]

    def get_orders(self, request: HttpRequest) -> dict[str, list[str]]:
        chosen = Chosen.by(request)
        if chosen.is_any or (request.GET.get("q") and not chosen.is_one):
            return {"pk": ["pk"]}
        in_any_bucket = chosen.kind == "bucket" and not chosen.bucket
        return {"path": ["bucket_id", "user", "path"] if in_any_bucket else ["user", "path"]}

    def count_listed(self, request: HttpRequest) -> int | None:
        chosen = Chosen.by(request)
        if request.GET.get("q") or not chosen.is_counted:
            return None
        return Usage.objects.filter(Q(bucket_id=chosen.bucket or None), user=chosen.user).totals().object_count

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        chosen = Chosen.by(request)
        objects = cast("ManagedResourceQuerySet", queryset)
        prefix = search_term.removeprefix("/")
        if prefix and chosen.is_one:
            return objects.filter(user=chosen.user).under(prefix), False
        return _among_the_newest(objects, prefix) if prefix else objects, False

    @admin.display(description=_("namespace"))
    def namespace(self, managed: ManagedResource) -> SafeString:
        chosen: dict[str, object] = {}
        if managed.bucket_id:
            chosen[BucketFilter.parameter_name] = managed.bucket_id
        if managed.user:
            chosen[UserFilter.parameter_name] = managed.user
        chosen = chosen or {NamespaceFilter.parameter_name: "global"}
        url = columns.page_url(self.admin_site, ManagedResource, "changelist", **chosen)
        return columns.link(url, columns.namespace_name(managed))

    @admin.display(description=_("length"))
    def length(self, managed: ManagedResource) -> SafeString:
        return columns.human_length(managed.resource.length)

    @admin.display(description=_("references"))
    def reference_count(self, managed: ManagedResource) -> int:
        return managed.resource.reference_count

    @admin.display(description=_("modified"), ordering="modified_at")
    def modified(self, managed: ManagedResource) -> SafeString:
        return columns.day(managed.modified_at)

    def save_model(self, request: HttpRequest, obj: ManagedResource, form: Any, change: bool) -> None:
        """Save only what the form shows: a put may have given the object other content since it was read."""
        obj.modified_at = timezone.now()
        obj.save(update_fields=["content_type", "metadata", "modified_at"])

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Say what removing the object frees, and let it be confirmed."""
        managed = self.get_object(request, object_id)
        if managed is None:
            return self.gone(request, object_id)
        if not self.has_delete_permission(request, managed):
            raise PermissionDenied
        folder = managed.path.rpartition("/")
        back = Place.of(request, managed).url(self.admin_site.name, folder=folder[0] + folder[1])
        return RemovalPages(self, request).confirm([Part(keys=[managed.pk])], managed.path, back)

    @admin.action(description=_("Delete selected %(verbose_name_plural)s"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[ManagedResource]) -> HttpResponse:
        """Say what removing the chosen objects frees, and let it be confirmed."""
        across = request.POST.get("select_across") == "1"
        keys = () if across else tuple(queryset.values_list("pk", flat=True))
        part = Part(query=request.GET.urlencode()) if across else Part(keys=keys)
        label = _("all objects of a list") if across else _("chosen objects")
        return RemovalPages(self, request).confirm([part], str(label), request.get_full_path())

    def remove_view(self, request: HttpRequest) -> HttpResponse:
        """Confirm a removal, or go on with one."""
        return RemovalPages(self, request).respond()

    def get_urls(self) -> list[Any]:
        views: dict[str, Callable[..., HttpResponseBase]] = {
            "browse/": self.browse_view,
            "remove/": self.remove_view,
            "<int:pk>/download/": self.download_view,
            "<int:pk>/content/": self.content_view,
            **{f"<int:pk>/{name}/": partial(self.transfer_view, name=name) for name in KINDS},
        }
        own = [self._own_url(route, view) for route, view in views.items()]
        return [uploads.urls(self.admin_site), *own, *super().get_urls()]

    def _own_url(self, route: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
        """Return where `view` is, which opts out of ATOMIC_REQUESTS: a put commits a row before its first byte."""
        entered: Callable[..., HttpResponseBase] = self.admin_site.admin_view(view)
        for alias in connections:
            entered = transaction.non_atomic_requests(alias)(entered)
        return path(route, entered, name=f"django_blobstore_managedresource_{route.split('/')[-2]}")

    def browse_view(self, request: HttpRequest) -> HttpResponse:
        """Show what is in a folder of a namespace."""
        return Browser(self, request).respond()

    def transfer_view(self, request: HttpRequest, pk: int, *, name: str) -> HttpResponse:
        """Rename, copy or replace an object."""
        return TransferPage(self, request, self._required(request, pk), name).respond()

    def download_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Send the bytes as a file to save; a browser never shows them."""
        return self._sent(request, pk, _as_download)

    def content_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Send the bytes for the preview."""
        return self._sent(request, pk, shown)

    def _sent(
        self, request: HttpRequest, pk: int, answer: Callable[[HttpRequest, ManagedResource], HttpResponseBase]
    ) -> HttpResponseBase:
        managed = self._required(request, pk)
        try:
            return answer(request, managed)
        except ResourceNotFound as error:
            raise Http404 from error
        except (BlobstoreError, ConnectionError, TimeoutError) as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(columns.page_url(self.admin_site, ManagedResource, "change", pk))

    def _required(self, request: HttpRequest, pk: int) -> ManagedResource:
        """Return the object `pk` if the person may view it; raise `PermissionDenied` or `Http404`."""
        managed: ManagedResource | None = self.get_object(request, str(pk))
        if not self.has_view_permission(request, managed):
            raise PermissionDenied
        if managed is None:
            raise Http404
        return managed


def _as_download(request: HttpRequest, managed: ManagedResource) -> HttpResponseBase:
    blob = ManagedStorage().get(managed.namespace, managed.path)
    headers = {**serving.headers(blob.managed), "Content-Length": str(blob.size)}
    return StreamingHttpResponse(serving.body(request, blob), headers=headers)


def _among_the_newest(objects: ManagedResourceQuerySet, prefix: str) -> ManagedResourceQuerySet:
    newest = ManagedResource.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    # Not as a range of paths: SQLite would take that of every bucket, and sort what it finds.
    started = objects.alias(start=Left("path", len(prefix))).filter(start=prefix)
    return started.filter(pk__gt=newest - SEARCHED_EVERYWHERE)
