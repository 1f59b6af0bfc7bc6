"""Through which URLs a page of this site puts objects, whatever interface the project offers to programs.

The views are those of the REST interface, for whoever has a session and may enter the site that the page belongs to.
What is expected to happen is no error here: a browser writes each one into its console.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, include, path
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from django_blobstore.errors import ResourceNotFound, TooManyFailures, UploadPending
from django_blobstore.listing import find_all
from django_blobstore.rest.bulk import PathsSerializer, wrong_paths
from django_blobstore.rest.tus import UploadViewSet
from django_blobstore.rest.urls import View, non_atomic
from django_blobstore.rest.viewsets import ObjectViewSet, ProofViewSet, PutRequestViewSet, StoreViewSet, valid

app_name = "blobstore"


class ClaimViewSet(PutRequestViewSet):
    """Put requests; the answer to one for content that must be sent is empty."""

    def create(self, request: Request, **kwargs: str) -> Response:
        try:
            return super().create(request, **kwargs)
        except (ResourceNotFound, UploadPending, TooManyFailures):
            return Response(status=204)


class TakenViewSet(StoreViewSet):
    """Which of many paths have an object already, for whoever may put one there and so would learn it anyway."""

    serializer_class = PathsSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.put_condition()
        paths = valid(self.get_serializer(data=request.data))["paths"]
        there = find_all(self.place.namespace, set(paths) - wrong_paths(paths).keys())
        return Response({"taken": sorted(there)})


def session_urls(may_enter: Callable[[HttpRequest], bool]) -> list[URLPattern | URLResolver]:
    """Return the URLs for those who have a session and of whom `may_enter` says so, to be included as `app_name`."""

    class MayEnter(BasePermission):
        def has_permission(self, request: Request, view: APIView) -> bool:
            return may_enter(request._request)

    options = {
        "authentication_classes": [SessionAuthentication],
        "permission_classes": [IsAuthenticated, MayEnter],
        "renderer_classes": [JSONRenderer],
        "schema": None,  # it is no interface for programs
    }

    def view(viewset: type[StoreViewSet], **actions: Any) -> View:
        return non_atomic(viewset.as_view(actions, **options))

    def namespace(route: str) -> list[URLPattern]:
        return [
            path("objects/<any_text:path>", view(ObjectViewSet, put="update"), name=f"{route}-object"),
            path("put-requests/", view(ClaimViewSet, post="create"), name=f"{route}-put-requests"),
            path("taken/", view(TakenViewSet, post="create"), name=f"{route}-taken"),
        ]

    upload = view(UploadViewSet, head="show", patch="append", delete="destroy")
    return [
        path("buckets/<str:bucket>/", include(namespace("bucket"))),
        path("me/", include(namespace("me")), {"route": "me"}),
        path("global/", include(namespace("global")), {"route": "global"}),
        path("put-requests/<str:request_id>/", view(ProofViewSet, post="create"), name="put-request"),
        path("uploads/", view(UploadViewSet, post="create"), name="uploads"),
        path("uploads/<str:upload>/", upload, name="upload"),
    ]
