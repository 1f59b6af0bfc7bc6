"""How objects are removed from the admin: what it frees is said before and after, and it takes as many steps as needed.

What is to be removed, and what was so far, travels from step to step in a signed field of the page's own form, so that
a step is one short request, whoever answers it, and nothing is left behind when somebody walks away.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, cast
from uuid import UUID

from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core import signing
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import connections
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_blobstore.access import Model, may
from django_blobstore.admin import columns
from django_blobstore.admin.places import Place, sees_counts, viewer
from django_blobstore.conf import conf
from django_blobstore.errors import CatalogBusy
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import Bucket, ManagedResource, ManagedResourceQuerySet, Resource, Usage
from django_blobstore.namespaces import Namespace

# Few enough to leave the button that confirms in sight.
LISTED = 20
# So many objects are looked at to say exactly what their removal frees.
COUNTED = 100_000
# How long a step goes on, well within what any server waits for an answer.
STEP_SECONDS = 2.0
OBJECTS_PER_TRANSACTION = 100
_RESOURCES = Resource._meta.db_table
_SALT = "django_blobstore.admin.removal"

# Given by SQL: what `{objects}`, some references, come to, and how much of it nobody else refers to.
_FREED = """
SELECT COALESCE(SUM(chosen.number), 0),
    COALESCE(SUM(CASE WHEN chosen.number >= r.reference_count THEN 1 ELSE 0 END), 0),
    COALESCE(SUM(CASE WHEN chosen.number >= r.reference_count THEN r.length ELSE 0 END), 0)
FROM (
    SELECT o.resource_id, COUNT(*) AS number
    FROM (SELECT resource_id FROM ({objects}) every LIMIT {limit}) o GROUP BY o.resource_id
) chosen
JOIN {resources} r ON r.id = chosen.resource_id
"""


@dataclass(frozen=True)
class Part:
    """Some of what is to be removed: objects by primary key, a folder, a bucket, or all that a list shows.

    A folder is a `prefix` in the namespace of `bucket` and `user`. Of `buckets`, the bucket itself goes too. `query` is
    that of the list in the admin.
    """

    keys: Sequence[int] = ()
    prefix: str | None = None
    bucket: str = ""
    user: str = ""
    whole_bucket: bool = False
    query: str | None = None


@dataclass(frozen=True)
class Removal:
    """Parts still to be removed, what the page calls them all, and what was removed so far.

    Objects newer than the primary key `newest` stay. `total` is how many there were, if that is known.
    """

    parts: Sequence[Part]
    label: str
    back: str
    newest: int = 0
    total: int | None = None
    objects: int = 0
    contents: int = 0
    bytes: int = 0
    buckets: int = 0

    def signed(self, request: HttpRequest) -> str:
        state = {**asdict(self), "by": str(viewer(request).pk)}
        return signing.dumps(state, salt=_SALT, compress=True)

    @classmethod
    def continued(cls, request: HttpRequest) -> Removal:
        """Return the removal that a form of ours asks to go on with."""
        try:
            state = signing.loads(request.POST.get("removal", ""), salt=_SALT)
        except signing.BadSignature as error:
            raise SuspiciousOperation("The page of the removal was not made here.") from error
        if state.pop("by") != str(viewer(request).pk):
            raise PermissionDenied
        return cls(**{**state, "parts": [Part(**part) for part in state["parts"]]})


@dataclass
class Estimate:
    """What a removal comes to; `is_exact` if all of its objects were looked at, else these are the first of them."""

    objects: int
    contents: int
    bytes: int
    is_exact: bool = True
    most_bytes: int | None = None


class RemovalPages:
    """The pages of one removal: confirm, go on, done."""

    def __init__(self, admin: ModelAdmin[Any], request: HttpRequest) -> None:
        self.admin = admin
        self.request = request
        self.person = viewer(request)

    def respond(self) -> HttpResponse:
        """Answer a request to the address of removals: from the browser, or from one of these pages."""
        if "removal" in self.request.POST:
            return self._step(Removal.continued(self.request))
        place = Place.named(self.request, self.request.GET)
        if place is None:
            return HttpResponseRedirect(self._address("browse"))
        return self._from_browser(place)

    def _from_browser(self, place: Place) -> HttpResponse:
        folder = self.request.GET.get("folder", "")
        back = place.url(self.admin.admin_site.name, folder=folder)
        chosen = self.request.POST
        where: dict[str, Any] = {"bucket": str(place.namespace.bucket), "user": place.namespace.user}
        if self.request.method != "POST":
            if not folder:
                return HttpResponseRedirect(back)
            parent = folder.removesuffix("/").rpartition("/")
            up = place.url(self.admin.admin_site.name, folder=parent[0] + parent[1])
            return self.confirm([Part(prefix=folder, **where)], folder, up)
        prefixes = [Part(prefix=prefix, **where) for prefix in chosen.getlist("prefix") if prefix.endswith("/")]
        keys = [int(key) for key in chosen.getlist("object") if key.isdecimal()]
        parts = [*([Part(keys=keys)] if keys else []), *prefixes]
        return self.confirm(parts, self._label(parts, place), back) if parts else HttpResponseRedirect(back)

    def _label(self, parts: Sequence[Part], place: Place) -> str:
        if len(parts) == 1 and parts[0].prefix:
            return parts[0].prefix
        number = sum(len(part.keys) or 1 for part in parts)
        chosen = ngettext("%(number)s entry of %(place)s", "%(number)s entries of %(place)s", number)
        return chosen % {"number": number_format(number), "place": place.title}

    def confirm(self, parts: Sequence[Part], label: str, back: str) -> HttpResponse:
        """Say what would go and what that frees, and change nothing."""
        self._require(parts)
        newest = ManagedResource.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        estimate = self._estimate(parts, newest)
        removal = Removal(parts, label, back, newest, estimate.objects if estimate.is_exact else None)
        first = list(islice(chain.from_iterable(self._first(part, newest) for part in parts[:LISTED]), LISTED))
        return self._page(
            "removal_confirmation.html",
            removal,
            title=_("Delete?"),
            estimate=estimate,
            listed=list(columns.object_links(self.admin.admin_site, first, estimate.objects)),
            is_folder=any(part.prefix for part in parts),
            frees=not (sees_counts(self.person) and estimate.is_exact and not estimate.bytes),
        )

    def _first(self, part: Part, newest: int) -> Iterator[ManagedResource]:
        yield from self._rows(part, newest).prefetch_related("bucket")[:LISTED]

    def _estimate(self, parts: Sequence[Part], newest: int) -> Estimate:
        found = _freed([self._rows(part, newest)[: COUNTED + 1] for part in parts])
        if found.objects <= COUNTED:
            return found
        buckets = [UUID(part.bucket) for part in parts if part.whole_bucket]
        if len(buckets) < len(parts):
            return replace(found, objects=COUNTED, is_exact=False)
        totals = Usage.objects.filter(bucket__in=buckets).totals()
        return replace(found, objects=totals.object_count, most_bytes=totals.stored_bytes, is_exact=False)

    def _step(self, removal: Removal) -> HttpResponse:
        """Remove what can be in a short time; show how far that went, or what it came to in all."""
        self._require(removal.parts)
        deadline = time.monotonic() + STEP_SECONDS
        is_busy = False
        while removal.parts and time.monotonic() < deadline:
            try:
                removal = self._remove_some(removal)
            except CatalogBusy:
                is_busy = True
                break
        if removal.parts:
            return self._page("removal_progress.html", removal, title=_("Deleting…"), is_busy=is_busy)
        told = self._told(removal)
        self._log(removal, told)
        return self._page("removal_done.html", removal, title=_("Deleted"), told=told, deleted_at=_deleted_at())

    def _remove_some(self, removal: Removal) -> Removal:
        part, *others = removal.parts
        store = ManagedStorage()
        removed = store.remove_some(self._rows(part, removal.newest), limit=OBJECTS_PER_TRANSACTION)
        if removed.objects:
            return replace(
                removal,
                objects=removal.objects + removed.objects,
                contents=removal.contents + removed.contents,
                bytes=removal.bytes + removed.bytes,
            )
        if part.whole_bucket:
            # With what came since, which is little.
            more = store.remove_bucket(Bucket(pk=UUID(part.bucket)))
            return replace(removal, parts=others, buckets=removal.buckets + 1, objects=removal.objects + more)
        return replace(removal, parts=others)

    def _rows(self, part: Part, newest: int) -> ManagedResourceQuerySet:
        """Return the objects of `part` that are not newer than `newest`, in an order that an index has."""
        if part.query is not None:
            return cast("ManagedResourceQuerySet", self._listed(part.query).filter(pk__lte=newest))
        objects = ManagedResource.objects.filter(pk__lte=newest)
        if part.keys:
            return objects.filter(pk__in=part.keys).order_by("pk")
        within = objects.filter(Q(bucket_id=part.bucket or None))
        if part.prefix is not None:
            within = within.filter(user=part.user).under(part.prefix)
        return within.order_by("user", "path")

    def _listed(self, query: str) -> QuerySet[Any]:
        request: Any = copy.copy(self.request)
        request.GET = QueryDict(query)
        listed: QuerySet[Any] = self.admin.get_changelist_instance(request).queryset
        return listed.prefetch_related(None)

    def _require(self, parts: Sequence[Part]) -> None:
        """Raise `PermissionDenied` unless the person may delete everything in `parts`."""
        if not all(self._may_delete(part) for part in parts):
            raise PermissionDenied

    def _may_delete(self, part: Part) -> bool:
        if part.whole_bucket:
            return self._may_delete_bucket(Bucket.objects.filter(pk=part.bucket).first())
        if may(self.person, "delete", "managedresource"):
            return True
        objects = ManagedResource.objects.filter(pk__in=part.keys).prefetch_related("bucket")
        if not all(Place.of(self.request, managed).may("delete") for managed in objects):
            return False
        if part.prefix is None:
            return part.query is None
        bucket = Bucket.objects.filter(pk=part.bucket).first() if part.bucket else None
        return Place(self.person, Namespace(bucket=part.bucket, user=part.user), bucket).may("delete")

    def _may_delete_bucket(self, bucket: Bucket | None) -> bool:
        if bucket is None:
            return True
        # In the order of the index, which an `exists()` would not be.
        holds_some = ManagedResource.objects.filter(bucket=bucket).order_by("user", "path").first() is not None
        needed: list[Model] = ["bucket", "managedresource"] if holds_some else ["bucket"]
        return all(may(self.person, "delete", model, bucket) for model in needed)

    def _page(self, template: str, removal: Removal, **more: Any) -> HttpResponse:
        context = {
            **self.admin.admin_site.each_context(self.request),
            "opts": self.admin.opts,
            "removal": removal,
            "signed": removal.signed(self.request),
            "remove_url": self._address("remove"),
            "is_bucket": bool(removal.buckets) or any(part.whole_bucket for part in removal.parts),
            "sees_counts": sees_counts(self.person),
            "grace": conf.DELETION_GRACE,
            **more,
        }
        return TemplateResponse(self.request, f"admin/django_blobstore/{template}", context)

    def _address(self, page: str) -> str:
        return columns.page_url(self.admin.admin_site, ManagedResource, page)

    def _told(self, removal: Removal) -> str:
        number = number_format(removal.objects, force_grouping=True)
        deleted = ngettext("Deleted %(number)s object.", "Deleted %(number)s objects.", removal.objects)
        told = deleted % {"number": number}
        if not sees_counts(self.person) or not removal.objects:
            return told
        nothing = _("That frees nothing: other objects have the same contents.")
        something = _("That frees %(size)s.") % {"size": filesizeformat(removal.bytes)}
        return f"{told} {something if removal.contents else nothing}"

    def _log(self, removal: Removal, told: str) -> None:
        model = Bucket if removal.buckets else ManagedResource
        LogEntry.objects.create(
            user_id=self.person.pk,
            content_type_id=ContentType.objects.get_for_model(model).pk,
            object_repr=removal.label[:200],
            action_flag=DELETION,
            change_message=told,
        )


def _freed(parts: Sequence[ManagedResourceQuerySet]) -> Estimate:
    """Count the objects in `parts`, no more than one over `COUNTED`, and what nobody else refers to."""
    connection = connections[parts[0].db]
    texts, parameters = [], []
    for objects in parts:
        sql, values = objects.values("pk", "resource_id").query.get_compiler(connection=connection).as_sql()
        texts.append(f"SELECT resource_id FROM ({sql}) part")
        parameters += values
    chosen = " UNION ALL ".join(texts)
    with connection.cursor() as cursor:
        cursor.execute(_FREED.format(objects=chosen, limit=COUNTED + 1, resources=_RESOURCES), parameters)
        objects, contents, freed = cursor.fetchone()
        return Estimate(int(objects), int(contents), int(freed))


def _deleted_at() -> datetime | None:
    """Return from when on a sweep deletes what was freed just now, or None if it is gone already."""
    return timezone.now() + timedelta(seconds=conf.DELETION_GRACE) if conf.DELETION_GRACE else None
