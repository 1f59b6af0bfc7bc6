"""Objects to another path or bucket without their bytes: what a copy and a move need, and from whom."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore.catalog import Condition
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.rest.conditions import require_as_wanted
from django_blobstore.rest.permissions import Place
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.serializers import PathField, TextField
from django_blobstore.rest.viewsets import StoreViewSet, stored_response, valid


class TransferSerializer(serializers.Serializer[Any]):
    """What a copy or move is asked for by; without a `target_bucket` the object stays where the URL says.

    It is the UUID of a bucket, or "me" or "global" for the objects outside buckets.
    """

    source = PathField()  # type: ignore[assignment]  # a field of its own, which serializers take off the class
    target = PathField()
    target_bucket = TextField(default=None, allow_null=True, max_length=150)


class Transfer(NamedTuple):
    """An object that was found, where it is to be, and what the commit asks about what is there."""

    source: ManagedResource
    place: Place
    path: str
    condition: Condition


class CopyViewSet(StoreViewSet):
    """Copies: another object with the content, the content type and the metadata of one that the user may read."""

    serializer_class = TransferSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("view")
        transfer = _transfer(request, self.place, valid(self.get_serializer(data=request.data)))
        copied = ManagedStorage().copy(
            transfer.source,
            transfer.place.namespace,
            transfer.path,
            create_bucket=False,
            condition=transfer.condition,
        )
        return stored_response(request, copied)


class MoveViewSet(StoreViewSet):
    """Moves: an object under another path. Who moves it could read it there, so that must be allowed here too."""

    serializer_class = TransferSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("view")
        self.place.require("delete")
        transfer = _transfer(request, self.place, valid(self.get_serializer(data=request.data)))
        moved = ManagedStorage().move(
            transfer.source, transfer.place.namespace, transfer.path, condition=transfer.condition
        )
        return stored_response(request, moved)


def _transfer(request: Request, here: Place, wanted: dict[str, Any]) -> Transfer:
    there = _target_place(here, wanted["target_bucket"])
    condition = _all_of(there.put_condition(), partial(require_as_wanted, request._request))
    if (there.namespace, wanted["target"]) == (here.namespace, wanted["source"]):
        raise Problem(400, "same-object", "Source and target are the same object.")
    source = ManagedStorage().stat(here.namespace, wanted["source"])
    return Transfer(source, there, wanted["target"], condition)


def _target_place(here: Place, name: str | None) -> Place:
    match name:
        case None:
            return here
        case "me" | "global" as route:
            return Place.of_route(here.user, route)
    return Place.of_bucket(here.user, name)


def _all_of(*conditions: Condition) -> Condition:
    def ask(found: ManagedResource | None) -> None:
        for condition in conditions:
            condition(found)

    return ask
