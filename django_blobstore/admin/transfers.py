"""The small pages on which an object is renamed, copied to another bucket, or given other content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_blobstore.admin import columns
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.admin.places import Place, listed_buckets, may_put_somewhere
from django_blobstore.catalog import Condition
from django_blobstore.errors import BlobstoreError, ConditionFailed, InvalidPath, ResourceNotFound
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource
from django_blobstore.namespaces import Namespace, clean_path

OFFERED_BUCKETS = 200


class PathField(forms.CharField):
    """A path that an object can have."""

    def clean(self, value: Any) -> str:
        try:
            return clean_path(str(super().clean(value)))
        except InvalidPath as error:
            raise ValidationError(str(error)) from error


class MoveForm(forms.Form):
    """Where an object is to be."""

    path = PathField(
        label=gettext_lazy("Path"), max_length=1024, widget=forms.TextInput(attrs={"class": "vLargeTextField"})
    )
    replace = forms.BooleanField(label=gettext_lazy("Replace what is there"), required=False)

    def __init__(self, *args: Any, place: Place, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place = place

    @property
    def target(self) -> Place:
        return self.place

    def condition(self) -> Condition:
        """Return what the commit asks: may the person write what is there, and do they want to."""
        allowed = {"add": self.target.may("add"), "change": self.target.may("change")}

        def ask(found: ManagedResource | None) -> None:
            if not allowed["change" if found else "add"]:
                raise PermissionDenied
            if found and not self.cleaned_data["replace"]:
                raise ConditionFailed(found.path, found.resource.sha384)

        return ask


class CopyForm(MoveForm):
    """Where there is to be another object with the same content."""

    bucket = forms.CharField(
        label=gettext_lazy("Bucket"),
        required=False,
        max_length=150,
        help_text=gettext_lazy("The name of a bucket, or its UUID. Leave it empty to stay where the object is."),
        widget=forms.TextInput(attrs={"class": "vTextField", "list": "blobstore-buckets", "autocomplete": "off"}),
    )
    field_order = ["bucket", "path", "replace"]

    def clean_bucket(self) -> Bucket | None:
        named = self.cleaned_data["bucket"].strip()
        found = [bucket for bucket in _buckets_named(named) if self._may_write(bucket)] if named else []
        if named and not found:
            raise ValidationError(_("There is no such bucket into which you may put objects."))
        if len(found) > 1:
            raise ValidationError(_("Several buckets have this name; give the UUID of one."))
        return found[0] if found else None

    def _may_write(self, bucket: Bucket) -> bool:
        return _may_put(Place(self.place.viewer, Namespace(bucket=bucket.pk), bucket))

    @property
    def target(self) -> Place:
        bucket = self.cleaned_data["bucket"]
        return Place(self.place.viewer, Namespace(bucket=bucket.pk), bucket) if bucket else self.place

    def offered(self) -> list[Bucket]:
        """Return buckets to choose from; any other can be named."""
        return list(listed_buckets(self.place.viewer).order_by("name", "pk")[:OFFERED_BUCKETS])


class ReplaceForm(forms.Form):
    """What an object is to have as its content."""

    file = forms.FileField(label=gettext_lazy("File"), allow_empty_file=True)
    content_type = forms.CharField(
        label=gettext_lazy("Content type"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("Leave it empty for what your browser says of the file."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )

    def __init__(self, *args: Any, place: Place, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place = place


def _may_put(place: Place) -> bool:
    return place.may("add") or place.may("change")


@dataclass(frozen=True)
class Kind:
    """One of these pages: its form, its texts, the one that leads to it, and whether it is for who sees a place."""

    form: type[MoveForm | ReplaceForm]
    title: Any
    button: Any
    offer: Any
    is_allowed: Callable[[Place], bool]


KINDS = {
    "move": Kind(
        MoveForm,
        gettext_lazy("Rename or move"),
        gettext_lazy("Move"),
        gettext_lazy("Rename"),
        lambda place: place.may("delete") and _may_put(place),
    ),
    "copy": Kind(
        CopyForm,
        gettext_lazy("Copy"),
        gettext_lazy("Copy"),
        gettext_lazy("Copy"),
        lambda place: _may_put(place) or may_put_somewhere(place.viewer),
    ),
    "replace": Kind(
        ReplaceForm,
        gettext_lazy("Replace the content"),
        gettext_lazy("Replace"),
        gettext_lazy("Replace"),
        lambda place: place.may("change"),
    ),
}


def offered(admin: StoreAdmin, managed: ManagedResource, place: Place) -> Iterator[tuple[Any, str]]:
    """Yield the text and the address of each of these pages that `managed`, an object in `place`, may have."""
    for name, kind in KINDS.items():
        if kind.is_allowed(place):
            yield kind.offer, columns.page_url(admin.admin_site, ManagedResource, name, managed.pk)


class TransferPage:
    """One request for the page of a `kind` about `managed`."""

    def __init__(self, admin: StoreAdmin, request: HttpRequest, managed: ManagedResource, name: str) -> None:
        self.admin = admin
        self.request = request
        self.managed = managed
        self.name = name
        self.kind = KINDS[name]
        self.place = Place.of(request, managed)

    def respond(self) -> HttpResponse:
        if not (self.place.may("view") and self.kind.is_allowed(self.place)):
            raise PermissionDenied
        if self.request.method != "POST":
            return self._page(self.kind.form(initial={"path": self.managed.path}, place=self.place))
        form: Any = self.kind.form(self.request.POST, self.request.FILES, place=self.place)
        if not form.is_valid():
            return self._page(form)
        try:
            stored = getattr(self, f"_{self.name}")(form)
        except ConditionFailed:
            form.add_error("path", _("There is an object at this path already."))
        except (BlobstoreError, ConnectionError, TimeoutError) as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(columns.page_url(self.admin.admin_site, ManagedResource, "change", stored.pk))
        return self._page(form)

    def _move(self, form: MoveForm) -> ManagedResource:
        path = form.cleaned_data["path"]
        if path == self.managed.path:
            raise ConditionFailed(path)
        former = self.managed.path
        moved = ManagedStorage().move(self.managed, self.managed.namespace, path, condition=form.condition())
        self._tell(moved, _("Moved from %(path)s.") % {"path": former})
        return moved

    def _copy(self, form: CopyForm) -> ManagedResource:
        path, target = form.cleaned_data["path"], form.target
        if (target.namespace, path) == (self.place.namespace, self.managed.path):
            raise ConditionFailed(path)
        copied = ManagedStorage().copy(
            self.managed, target.namespace, path, create_bucket=False, condition=form.condition()
        )
        told = _("Copied from %(path)s in %(place)s.") % {"path": self.managed.path, "place": self.place.title}
        self._tell(copied, told)
        return copied

    def _replace(self, form: ReplaceForm) -> ManagedResource:
        file = form.cleaned_data["file"]
        former = self.managed.resource.sha384
        stored = ManagedStorage().put(
            self.managed.namespace,
            self.managed.path,
            file,
            file.size,
            content_type=form.cleaned_data["content_type"] or file.content_type or self.managed.content_type,
            metadata=self.managed.metadata,
            create_bucket=False,
            condition=self._still_there,
        )
        self._tell(stored, _("Replaced the content that had the SHA-384 %(sha384)s.") % {"sha384": former})
        return stored

    def _still_there(self, found: ManagedResource | None) -> None:
        if found is None:
            raise ResourceNotFound(self.managed.path, "it was removed meanwhile")

    def _tell(self, managed: ManagedResource, told: str) -> None:
        self.admin.log_change(self.request, managed, told)
        messages.success(self.request, told)

    def _page(self, form: Any) -> HttpResponse:
        context = {
            **self.admin.admin_site.each_context(self.request),
            "opts": self.admin.opts,
            "title": self.kind.title,
            "button": self.kind.button,
            "form": form,
            "managed": self.managed,
            "place": self.place,
            "back": columns.page_url(self.admin.admin_site, ManagedResource, "change", self.managed.pk),
            "place_url": self.place.url(self.admin.admin_site.name),
            "buckets": form.offered() if isinstance(form, CopyForm) else [],
        }
        return TemplateResponse(self.request, "admin/django_blobstore/transfer.html", context)


def _buckets_named(text: str) -> list[Bucket]:
    try:
        return list(Bucket.objects.filter(pk=UUID(text)))
    except ValueError:
        return list(Bucket.objects.filter(name=text).order_by("pk")[:10])
