"""Which rows of the project's models have an object as their file, looked up without reading a table from end to end.

A field keeps the name of its file, which is the path of an object in the namespace of the field's storage. Where its
column begins an index, one query for all of them finds the rows of all objects on a page; elsewhere the newest rows
are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from django.contrib.admin import AdminSite, ModelAdmin
from django.db.models import F, FileField, Model, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from django_blobstore.admin import columns
from django_blobstore.admin.places import viewer
from django_blobstore.blob_storage import BlobStorage
from django_blobstore.fields import file_fields
from django_blobstore.models import ManagedResource

Where = tuple[UUID | None, str]

# Each column without an index costs a query, so a page asks so many.
SCANNED_COLUMNS = 2
# So many of the newest rows are looked at in the table of such a column.
EXAMINED = 10_000
# So many rows are named on a page: any number may have a default file.
ROWS = 100


@dataclass(frozen=True)
class FileRow:
    """A row that has an object as its file: its name and, if it has a page that may be seen, the address of that."""

    name: str
    url: str


@dataclass
class FileRows:
    """The rows that have some objects as their files, by primary key of the object.

    `has_more` says that there are more than could be named; `partly` names the columns of which only the newest rows
    were looked at, and `left_out` those that were not asked about.
    """

    by_object: dict[int, list[FileRow]] = field(default_factory=dict)
    has_more: bool = False
    partly: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, site: AdminSite, request: HttpRequest, objects: Sequence[ManagedResource]) -> FileRows:
        """Return the rows, of models that the person may view, that have `objects` as their files."""
        return _Search(site, request, objects).found


class _Search:
    """One look for rows that have `objects` as their files."""

    def __init__(self, site: AdminSite, request: HttpRequest, objects: Sequence[ManagedResource]) -> None:
        self.site = site
        self.request = request
        self.found = FileRows()
        self.places = _by_place(objects)
        fields = [one for one in _fields_in(self.places) if self._may_view(one.model)]
        self._add_indexed([one for one in fields if is_indexed(one)])
        scanned = [one for one in fields if not is_indexed(one)]
        for column in scanned[:SCANNED_COLUMNS]:
            self._add_newest(column)
        self.found.left_out = [_name_of(column) for column in scanned[SCANNED_COLUMNS:]]

    def _add_indexed(self, fields: Sequence[FileField]) -> None:
        """Add rows by indexes, all fields of a database in one query."""
        parts: dict[str, list[QuerySet[Any, Any]]] = {}
        for number, column in enumerate(fields):
            rows = self._visible(column.model).filter(**{f"{column.attname}__in": list(self._objects(column))})
            # In no order: to sort those that have a default file would be to read them all.
            told = {"_number": Value(number), "_key": Cast("pk", TextField()), "_file": F(column.attname)}
            parts.setdefault(rows.db, []).append(rows.order_by().annotate(**told).values_list(*told))
        for first, *others in parts.values():
            pairs = list(first.union(*others, all=True)[: ROWS + 1])
            self.found.has_more |= len(pairs) > ROWS
            for number, key, name in pairs[:ROWS]:
                self._add(fields[number], key, name)

    def _add_newest(self, column: FileField) -> None:
        rows = self._visible(column.model).order_by("-pk").values_list("pk", column.attname)
        newest = list(rows[: EXAMINED + 1])
        pairs = [(key, name) for key, name in newest[:EXAMINED] if name in self._objects(column)]
        self.found.has_more |= len(pairs) > ROWS
        if len(newest) > EXAMINED:
            self.found.partly.append(_name_of(column))
        for key, name in pairs[:ROWS]:
            self._add(column, key, name)

    def _add(self, column: FileField, key: object, name: str) -> None:
        model = column.model
        url = columns.page_url(self.site, model, "change", key) if model in self.site._registry else ""
        row = f"{capfirst(model._meta.verbose_name)} {key}"
        told = _("%(row)s, field %(field)s") % {"row": row, "field": column.verbose_name}
        self.found.by_object.setdefault(self._objects(column)[name].pk, []).append(FileRow(told, url))

    def _objects(self, column: FileField) -> Mapping[str, ManagedResource]:
        return self.places[_place_of(column)]

    def _may_view(self, model: type[Model]) -> bool:
        """Whether the person may view rows of `model`: as its page in this admin says, else by the permission."""
        if model in self.site._registry:
            return self.site._registry[model].has_view_or_change_permission(self.request)
        return viewer(self.request).has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")

    def _visible(self, model: type[Model]) -> QuerySet[Any, Any]:
        """Return the rows of `model` that the person is shown, which its page may narrow."""
        page: ModelAdmin[Any] | None = self.site._registry.get(model)
        return page.get_queryset(self.request) if page else model._default_manager.all()


def is_indexed(column: FileField) -> bool:
    """Whether an index of the whole table begins with `column`."""
    options: Any = column.model._meta
    if column.unique or getattr(column, "db_index", False):
        return True
    indexes = [index.fields for index in options.indexes if index.condition is None]
    constraints = [one.fields for one in options.total_unique_constraints]
    ordered = [*indexes, *constraints, *options.unique_together]
    return any(fields and fields[0].removeprefix("-") == column.name for fields in ordered)


def _by_place(objects: Iterable[ManagedResource]) -> dict[Where, dict[str, ManagedResource]]:
    places: dict[Where, dict[str, ManagedResource]] = {}
    for managed in objects:
        places.setdefault((managed.bucket_id, managed.user), {})[managed.path] = managed
    return places


def _fields_in(places: Mapping[Where, Any]) -> Iterator[FileField]:
    for one in file_fields():
        has_simple_key = len(cast("Any", one.model._meta).pk_fields) == 1  # as each model with a page has
        if has_simple_key and isinstance(one.storage, BlobStorage) and _place_of(one) in places:
            yield one


def _place_of(column: FileField) -> Where:
    storage: Any = column.storage
    return storage.namespace.bucket_id, storage.namespace.user


def _name_of(column: FileField) -> str:
    return f"{column.model._meta.label}.{column.name}"
