"""The pages on which people walk through a namespace: its folders and objects, a search, and a way to a path."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from django_blobstore.access import may
from django_blobstore.admin import columns, uploads
from django_blobstore.admin.places import Place, sees_counts, sees_every_place, viewer
from django_blobstore.admin.quota import use_in_words
from django_blobstore.errors import InvalidPath
from django_blobstore.listing import DELIMITER, Page, Wanted, list_page, start_of_page_to, users_in
from django_blobstore.models import ManagedResource, Totals, Usage
from django_blobstore.namespaces import Namespace, check_prefix

if TYPE_CHECKING:
    from django_blobstore.admin.base import StoreAdmin

PER_PAGE = 100
SHA384_LENGTH = 96

_ICONS_BY_FAMILY = {"image": "image", "audio": "audio", "video": "video", "text": "text"}
_ARCHIVES = {"zip", "gzip", "x-tar", "x-7z-compressed", "x-bzip2", "x-xz", "zstd", "vnd.rar", "x-rar-compressed"}
_CODE = {"html", "css", "javascript", "json", "xml", "x-python", "x-sh", "csv"}


@dataclass(frozen=True)
class Entry:
    """A row of the browser: a folder, which has no `managed`, or an object."""

    name: str
    path: str
    url: str
    icon: str
    managed: ManagedResource | None = None

    @property
    def kind(self) -> str:
        return icon_name(self.icon)


@dataclass(frozen=True)
class Step:
    """A folder on the way to the one that is shown; the last one has no `url`."""

    name: str
    url: str


class Browser:
    """One request for a page of the place it names."""

    def __init__(self, admin: StoreAdmin, request: HttpRequest) -> None:
        self.admin = admin
        self.request = request
        self.site = admin.admin_site.name

    def respond(self) -> HttpResponse:
        place = Place.named(self.request, self.request.GET)
        if place is None:
            return self._places()
        try:
            return self._go(place) if "go" in self.request.GET else self._folder(place)
        except InvalidPath as error:
            messages.error(self.request, str(error))
            return HttpResponseRedirect(place.url(self.site))

    def _folder(self, place: Place) -> HttpResponse:
        given = self.request.GET
        folder, after, sought = (given.get(name, "") for name in ("folder", "after", "q"))
        sought = sought.strip()
        page = self._page(place, folder, after, sought)
        former = {"after": self._former(place, folder, after, sought)} if after else {}
        folder_url, bucket_url = place.url(self.site, folder=folder), self._bucket_url(place)
        totals = None if place.bucket and place.namespace.user else _totals(place)
        context = {
            **self.admin.admin_site.each_context(self.request),
            "opts": self.admin.opts,
            "title": place.title,
            "subtitle": None,
            "place": place,
            "folder": folder,
            "steps": list(steps(place, self.site, folder)),
            "entries": list(self._entries(place, folder, page, bool(sought))),
            "sought": sought,
            "after": after,
            "first_url": place.url(self.site, folder=folder, q=sought),
            "folder_url": folder_url,
            "previous_url": after and place.url(self.site, folder=folder, q=sought, **former),
            "next_url": page.next_after and place.url(self.site, folder=folder, q=sought, after=page.next_after),
            "sees_counts": sees_counts(place.viewer),
            "may_delete": place.may("delete"),
            "totals": totals,
            "quota": bucket_url and place.bucket and totals and use_in_words(place.bucket, totals.logical_bytes),
            "upload": uploads.panel(self.admin.admin_site, place, folder),
            "remove_url": place.url(self.site, "remove", folder=folder),
            **({} if folder or after or sought else self._inside(place)),
            "list_url": self._list_url(place),
            "bucket_url": bucket_url,
        }
        return TemplateResponse(self.request, "admin/django_blobstore/browser.html", context)

    def _page(self, place: Place, folder: str, after: str, sought: str) -> Page:
        if not sought:
            return list_page(place.namespace, prefix=folder, after=after, limit=PER_PAGE, folders=True)
        return list_page(place.namespace, prefix=folder, after=after, limit=PER_PAGE, wanted=_wanted(sought))

    def _former(self, place: Place, folder: str, after: str, sought: str) -> str:
        wanted = _wanted(sought) if sought else Wanted()
        return start_of_page_to(after, place.namespace, prefix=folder, limit=PER_PAGE, wanted=wanted)

    def _inside(self, place: Place) -> dict[str, Any]:
        """Return the users who have objects of their own in a bucket, of whom its first page tells."""
        if place.bucket is None or place.namespace.user:
            return {}
        after = self.request.GET.get("users_after", "").replace("\0", "")
        users = users_in(place.bucket.pk, after=after, limit=PER_PAGE + 1)
        inside = [replace(place, namespace=Namespace(place.bucket.pk, user)) for user in users[:PER_PAGE]]
        return {
            "inside": [(one.namespace.user, one.url(self.site)) for one in inside],
            "more_inside_url": len(users) > PER_PAGE and place.url(self.site, users_after=users[PER_PAGE - 1]),
        }

    def _entries(self, place: Place, folder: str, page: Page, is_search: bool) -> Iterator[Entry]:
        """Yield folders and objects in the order of their paths."""
        found: list[tuple[str, ManagedResource | None]] = [(path, None) for path in page.prefixes]
        found += [(managed.path, managed) for managed in page.objects]
        for path, managed in sorted(found, key=lambda entry: entry[0].encode()):
            name = path if is_search else path.removeprefix(folder)
            if managed is None:
                yield Entry(name, path, place.url(self.site, folder=path), "folder")
            else:
                url = columns.page_url(self.admin.admin_site, ManagedResource, "change", managed.pk)
                yield Entry(name, path, url, icon_of(managed), managed)

    def _go(self, place: Place) -> HttpResponse:
        """Lead to the object or the folder at the path that was typed, or say that there is none."""
        path = check_prefix(self.request.GET["go"].strip().lstrip(DELIMITER))
        found = place.objects.filter(path=path).values_list("pk", flat=True).first()
        if found is not None:
            return HttpResponseRedirect(columns.page_url(self.admin.admin_site, ManagedResource, "change", found))
        folder = path.rstrip(DELIMITER) + DELIMITER if path else ""
        if folder and not place.objects.under(folder).exists():
            messages.warning(self.request, _("There is nothing at %(path)s.") % {"path": path})
            return HttpResponseRedirect(place.url(self.site, folder=self.request.GET.get("folder", "")))
        return HttpResponseRedirect(place.url(self.site, folder=folder))

    def _places(self) -> HttpResponse:
        """Show where objects outside buckets are: everybody's, and each user's."""
        after = self.request.GET.get("after", "").replace("\0", "")
        users = list(self._users(after))
        last = users[PER_PAGE - 1][0].namespace.user if len(users) > PER_PAGE else ""
        everybody = Place(viewer(self.request), Namespace())
        context = {
            **self.admin.admin_site.each_context(self.request),
            "opts": self.admin.opts,
            "title": _("Objects outside buckets"),
            "everybody": (everybody, _totals(everybody)) if everybody.may("view") else None,
            "users": [(place, totals, place.url(self.site)) for place, totals in users[:PER_PAGE]],
            "first_url": "?",
            "previous_url": after and _address(after=self._start_of_users_to(after)),
            "next_url": last and _address(after=last),
            "everybody_url": everybody.url(self.site),
        }
        return TemplateResponse(self.request, "admin/django_blobstore/places.html", context)

    def _users(self, after: str) -> Iterator[tuple[Place, Totals]]:
        rows = self._totals_of_users().filter(user__gt=after).order_by("user")
        for user, *totals in rows[: PER_PAGE + 1]:
            yield Place(viewer(self.request), Namespace(user=user)), Totals(*totals)

    def _start_of_users_to(self, after: str) -> str:
        """Return after which user the page begins that ends with the one called `after`: "" if it is the first page."""
        rows = self._totals_of_users().filter(user__lte=after).order_by("-user")
        return next((user for user, *_ in rows[PER_PAGE : PER_PAGE + 1]), "")

    def _totals_of_users(self) -> QuerySet[Any, Any]:
        """Return the users outside buckets of whom the person may know, each with the totals."""
        person = viewer(self.request)
        kept = Usage.objects.filter(bucket=None).exclude(user="")
        if not sees_every_place(person):
            kept = kept.filter(user=str(person.pk))
        sums = {column: Sum(column) for column in Totals._fields}
        return kept.values_list("user").annotate(**sums).filter(object_count__gt=0)

    def _list_url(self, place: Place) -> str:
        if not sees_every_place(place.viewer):
            return ""
        chosen: dict[str, Any] = {}
        if place.bucket:
            chosen["bucket__uuid__exact"] = place.bucket.pk
        if place.namespace.user:
            chosen["user__exact"] = place.namespace.user
        return columns.page_url(
            self.admin.admin_site, ManagedResource, "changelist", **chosen or {"namespace": "global"}
        )

    def _bucket_url(self, place: Place) -> str:
        if place.bucket is None or not may(place.viewer, "view", "bucket", place.bucket):
            return ""
        return columns.page_url(self.admin.admin_site, type(place.bucket), "change", place.bucket.pk)


def steps(place: Place, site: str, folder: str, *, all_linked: bool = False) -> Iterator[Step]:
    """Yield the way to `folder`, from the place itself on."""
    names = folder.removesuffix(DELIMITER).split(DELIMITER) if folder else []
    yield Step(place.title, place.url(site) if names or all_linked else "")
    for depth, name in enumerate(names, start=1):
        path = "".join(f"{part}{DELIMITER}" for part in names[:depth])
        yield Step(name, place.url(site, folder=path) if depth < len(names) or all_linked else "")


def _address(**query: str) -> str:
    return "?" + urlencode({name: value for name, value in query.items() if value})


def _wanted(sought: str) -> Wanted:
    """Return what was asked for: a content by its hash, or a text in paths."""
    is_hash = len(sought) == SHA384_LENGTH and set(sought.lower()) <= set("0123456789abcdef")
    return Wanted(sha384=sought.lower()) if is_hash else Wanted(text=check_prefix(sought))


def _totals(place: Place) -> Totals:
    """Return the maintained totals; those of a bucket are with all that users have in it."""
    return Usage.objects.within(place.namespace).totals()


def icon_of(managed: ManagedResource) -> str:
    """Return which icon stands for the kind of content that `managed` says it has, or that its name tells of."""
    media_type = managed.content_type or mimetypes.guess_type(managed.path)[0] or ""
    family, _slash, subtype = media_type.partition(";")[0].strip().lower().partition("/")
    if subtype == "pdf":
        return "document"
    if subtype in _ARCHIVES:
        return "archive"
    if subtype in _CODE or (subtype.endswith(("+json", "+xml")) and family != "image"):
        return "code"
    return _ICONS_BY_FAMILY.get(family, "file")


def icon_name(icon: str) -> str:
    """Return what an icon stands for, for those who do not see it."""
    names = {
        "folder": _("Folder"),
        "image": _("Image"),
        "audio": _("Audio"),
        "video": _("Video"),
        "text": _("Text"),
        "code": _("Code or data"),
        "archive": _("Archive"),
        "document": _("Document"),
    }
    return names.get(icon, _("File"))
