"""How a list in the admin is cut into pages: each begins at a place in an index, where the page before it ended.

Django's own pages count all rows and pass over those of the pages before, which takes longer the more there are.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib.admin import ShowFacets
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.db.models import BooleanField, F, Field, Func, Model, QuerySet, Value
from django.db.models.lookups import GreaterThan, LessThan
from django.db.models.options import Options
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_blobstore.admin.base import StoreAdmin

FIRST, LAST, AFTER, BEFORE = "first", "last", "after", "before"


class KeysetAdmin(StoreAdmin):
    """A list of a large table: its orders, filters and search are those that an index serves."""

    show_facets = ShowFacets.NEVER  # a facet counts all rows

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def get_orders(self, request: HttpRequest) -> Mapping[str, Sequence[str]]:
        """Return the columns by which the list may be ordered, and for each those of an index that settles ties."""
        raise NotImplementedError

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        orders = self.get_orders(request)
        return [str(column) for column in self.list_display if self._ordered_by(column) in orders]

    def _ordered_by(self, column: Any) -> str:
        return str(getattr(getattr(self, str(column), None), "admin_order_field", column))

    def count_listed(self, request: HttpRequest) -> int | None:
        """Return how many rows the list has on all its pages, if that is known without counting them."""
        return None

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Allow what the filters ask for, and nothing that might look at each row."""
        return lookup in {getattr(offered, "parameter_name", None) for offered in self.list_filter}


@dataclass(frozen=True)
class Place:
    """Where a page is: at the `FIRST` or `LAST` row, or right `AFTER` or `BEFORE` the row that has `values`."""

    side: str = FIRST
    values: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str, fields: Sequence[Field[Any, Any]]) -> Place:
        """Return the place that an address names; raise `IncorrectLookupParameters` if there can be none such."""
        side, _, packed = text.partition(".")
        if side not in (AFTER, BEFORE):
            return cls(LAST if side == LAST else FIRST)
        try:
            values = json.loads(urlsafe_b64decode(packed))
            return cls(side, tuple(_clean(field, value) for field, value in zip(fields, values, strict=True)))
        except (ValueError, TypeError, ValidationError) as error:
            raise IncorrectLookupParameters(error) from error

    @classmethod
    def of(cls, side: str, row: Model, fields: Sequence[Field[Any, Any]]) -> str:
        """Return, for an address, the place right `AFTER` or `BEFORE` a row."""
        values = json.dumps([field.value_to_string(row) for field in fields], ensure_ascii=False)
        return f"{side}.{urlsafe_b64encode(values.encode()).decode()}"

    @property
    def is_read_backwards(self) -> bool:
        return self.side in (LAST, BEFORE)


@dataclass(frozen=True)
class PageLink:
    """A way to another page: its `query`, what it says, and its `rel` in HTML, if it has one."""

    query: str
    text: Any
    rel: str = ""


class KeysetChangeList(ChangeList):
    """A list that reads one row more than a page has, and so knows whether there is another one."""

    model_admin: KeysetAdmin
    result_list: list[Any]

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Return an order that an index has: all of it up or all of it down, and no two rows at the same place."""
        orders = self.model_admin.get_orders(request)
        default = str(self.model_admin.get_ordering(request)[0])
        asked = str(super().get_ordering(request, queryset)[0])
        first = asked if asked.removeprefix("-") in orders else default
        sign = "-" if first.startswith("-") else ""
        return [sign + column for column in orders[first.removeprefix("-")]]

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and tell where those beside it are."""
        ordering = self.queryset.query.order_by
        fields = [_field(self.lookup_opts, column) for column in ordering]
        place = Place.parse(request.GET.get(PAGE_VAR, ""), fields)
        rows, place, has_more = self._read(place, ordering)
        self.result_list = rows[::-1] if place.is_read_backwards else rows
        self.page_links = list(self._links(place, has_more, fields)) if rows else []
        self._count(request)
        self.paginator = None
        self.can_show_all = self.multi_page = False
        self.show_full_result_count = False
        self.show_admin_actions = True

    def _read(self, place: Place, ordering: Sequence[Any]) -> tuple[list[Any], Place, bool]:
        """Return up to a page of rows from `place` on, and whether there are more.

        Where rows went meanwhile, the page is that at the beginning or at the end, whichever was come close to.
        """
        rows = list(_from(self.queryset, place, ordering)[: self.list_per_page + 1])
        has_more = len(rows) > self.list_per_page
        if place.side == BEFORE and not has_more:
            return self._read(Place(FIRST), ordering)
        if place.side == AFTER and not rows:
            return self._read(Place(LAST), ordering)
        return rows[: self.list_per_page], place, has_more

    def _links(self, place: Place, has_more: bool, fields: Sequence[Field[Any, Any]]) -> Any:
        if place.side == AFTER or (place.is_read_backwards and has_more):
            yield PageLink(self.get_query_string({}), _("First"))
            yield self._link(Place.of(BEFORE, self.result_list[0], fields), _("Previous"), "prev")
        if place.side == BEFORE or (not place.is_read_backwards and has_more):
            yield self._link(Place.of(AFTER, self.result_list[-1], fields), _("Next"), "next")
            yield self._link(LAST, _("Last"))

    def _link(self, place: str, text: Any, rel: str = "") -> PageLink:
        return PageLink(self.get_query_string({PAGE_VAR: place}), text, rel)

    def _count(self, request: HttpRequest) -> None:
        shown = len(self.result_list)
        known = self.model_admin.count_listed(request) if self.page_links else shown
        self.has_unknown_count = known is None
        # Django needs a number that says whether there are other pages than this one.
        self.result_count = shown + 1 if known is None else known
        # Beside the search Django says how many were found, unless these two are equal.
        self.full_result_count = self.result_count if self.has_unknown_count or not self.query else None


class _RowValue(Func):
    """Several columns or values that are compared as one, the way an index has them in order."""

    template = "(%(expressions)s)"
    output_field = BooleanField()  # any will do: the database compares part by part


def after(rows: QuerySet[Any], row: Model | None, *ordering: str) -> QuerySet[Any]:
    """Return `rows` in the order of the columns `ordering`, all up, from right after `row`, or all of them."""
    return _from(rows.order_by(*ordering), Place(AFTER, _values(row, ordering)), ordering)


def before(rows: QuerySet[Any], row: Model | None, *ordering: str) -> QuerySet[Any]:
    """Return `rows` in the order of the columns `ordering`, all down, from right before `row`, or all of them."""
    return _from(rows.order_by(*ordering), Place(BEFORE, _values(row, ordering)), ordering)


def _values(row: Model | None, ordering: Sequence[str]) -> tuple[Any, ...]:
    return () if row is None else tuple(_field(row._meta, column).value_from_object(row) for column in ordering)


def _from(rows: QuerySet[Any], place: Place, ordering: Sequence[Any]) -> QuerySet[Any]:
    """Return `rows` from `place` on, in the direction in which it is read."""
    if place.values:
        is_upwards = ordering[0].startswith("-") == place.is_read_backwards
        columns = _RowValue(*(F(column.removeprefix("-")) for column in ordering))
        fields = [_field(rows.model._meta, column) for column in ordering]
        values = [Value(value, output_field=field) for value, field in zip(place.values, fields, strict=True)]
        rows = rows.filter((GreaterThan if is_upwards else LessThan)(columns, _RowValue(*values)))
    return rows.reverse() if place.is_read_backwards else rows


def _field(options: Options[Any], column: Any) -> Field[Any, Any]:
    name = column.removeprefix("-")
    return cast("Field[Any, Any]", options.pk if name == "pk" else options.get_field(name))


def _clean(field: Field[Any, Any], text: Any) -> Any:
    """Return a value of `field` from an address, or raise `ValidationError`."""
    if not isinstance(text, str):
        raise ValidationError("A place in a list is written as texts.")
    value = field.to_python(text)
    field.run_validators(value)
    return value
