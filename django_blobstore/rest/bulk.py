"""Many objects in one request: each path has a result of its own, whatever becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore.errors import InvalidPath, ResourceNotFound, UploadPending
from django_blobstore.listing import find_all
from django_blobstore.managed import ManagedStorage, arriving_at
from django_blobstore.namespaces import Namespace, check_path
from django_blobstore.rest.problems import Problem, problem_of
from django_blobstore.rest.serializers import ObjectSerializer, TextField
from django_blobstore.rest.viewsets import StoreViewSet, valid

MAX_PATHS = 1000

logger = logging.getLogger(__name__)


class PathsSerializer(serializers.Serializer[Any]):
    """The paths that a request is about: at most 1000, of which each may be wrong by itself."""

    paths = serializers.ListField(
        child=TextField(allow_blank=True, trim_whitespace=False), allow_empty=False, max_length=MAX_PATHS
    )


class BulkStatViewSet(StoreViewSet):
    """What is known of many objects, asked for in a fixed number of queries."""

    serializer_class = PathsSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("view")
        paths = valid(self.get_serializer(data=request.data))["paths"]
        return Response({"results": list(self._described(paths))})

    def _described(self, paths: list[str]) -> Iterator[dict[str, Any]]:
        wrong = wrong_paths(paths)
        there = find_all(self.place.namespace, set(paths) - wrong.keys())
        arriving = arriving_at(self.place.namespace, *(set(paths) - wrong.keys() - there.keys()))
        arriving |= {path for path, managed in there.items() if not managed.resource.path}
        describe = ObjectSerializer(context=self.get_serializer_context()).to_representation
        for path in paths:
            if path in wrong:
                yield _failure(path, wrong[path])
            elif path in arriving:
                yield _failure(path, UploadPending(path))
            elif path in there:
                yield {"path": path, "status": 200, "object": describe(there[path])}
            else:
                yield _failure(path, ResourceNotFound(path))


class BulkDeleteViewSet(StoreViewSet):
    """Deletes many objects, each in a transaction of its own."""

    serializer_class = PathsSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("delete")
        paths = valid(self.get_serializer(data=request.data))["paths"]
        return Response({"results": list(_deleted(self.place.namespace, paths))})


def _deleted(namespace: Namespace, paths: list[str]) -> Iterator[dict[str, Any]]:
    store = ManagedStorage()
    for path in paths:
        try:
            store.remove(namespace, check_path(path))
            yield {"path": path, "status": 204}
        except Exception as error:  # noqa: BLE001  # the others have been deleted, or are to be
            yield _failure(path, error)


def wrong_paths(paths: list[str]) -> dict[str, InvalidPath]:
    """Return what is wrong with those of `paths` that no object can have."""
    wrong = {}
    for path in paths:
        try:
            check_path(path)
        except InvalidPath as error:
            wrong[path] = error
    return wrong


def _failure(path: str, error: Exception) -> dict[str, Any]:
    problem = problem_of(error)
    if problem is None:
        logger.error("The object %r could not be deleted.", path, exc_info=error)
        problem = Problem(500, "unforeseen", "Something went wrong here.")
    return {"path": path, "status": problem.status, "code": problem.code, "detail": problem.detail}
