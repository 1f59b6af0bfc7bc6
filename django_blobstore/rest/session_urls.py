"""Through which URLs a page of this site puts objects, whatever interface the project offers to programs.

The views are those of the REST interface, for whoever has a session and may enter the site that the page belongs to.
What is expected to happen is no error here: a browser writes each one into its console.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, include, path
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from django_blobstore.access import may
from django_blobstore.errors import ResourceNotFound, TooManyFailures, UploadPending
from django_blobstore.listing import find_all
from django_blobstore.models import ManagedResource, ResumableUpload
from django_blobstore.rest.bulk import PathsSerializer, wrong_paths
from django_blobstore.rest.tus import UploadViewSet
from django_blobstore.rest.urls import View, non_atomic
from django_blobstore.rest.viewsets import ObjectViewSet, ProofViewSet, PutRequestViewSet, StoreViewSet, valid

if TYPE_CHECKING:
    from django.contrib.auth.models import User

app_name = "blobstore"

# Says that the content was stored already, to who may see all contents and their references anyway.
WAS_STORED = {"Blobstore-Was-Stored": "?1"}


class SentViewSet(ObjectViewSet):
    """Objects; whoever sends one may learn whether its content was there."""

    def _stored_response(self, managed: ManagedResource) -> Response:
        response = super()._stored_response(managed)
        for name, value in _told(self.user, managed.was_stored).items():
            response.headers[name] = value
        return response


class PiecesViewSet(UploadViewSet):
    """Resumable uploads; whoever sends the last piece may learn whether the content was there."""

    def _headers(self, upload: ResumableUpload) -> dict[str, str]:
        return super()._headers(upload) | _told(self.user, upload.was_stored)


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
            path("objects/<any_text:path>", view(SentViewSet, put="update"), name=f"{route}-object"),
            path("put-requests/", view(ClaimViewSet, post="create"), name=f"{route}-put-requests"),
            path("taken/", view(TakenViewSet, post="create"), name=f"{route}-taken"),
        ]

    upload = view(PiecesViewSet, head="show", patch="append", delete="destroy")
    return [
        path("buckets/<str:bucket>/", include(namespace("bucket"))),
        path("me/", include(namespace("me")), {"route": "me"}),
        path("global/", include(namespace("global")), {"route": "global"}),
        path("put-requests/<str:request_id>/", view(ProofViewSet, post="create"), name="put-request"),
        path("uploads/", view(PiecesViewSet, post="create"), name="uploads"),
        path("uploads/<str:upload>/", upload, name="upload"),
    ]


def _told(user: User, was_stored: bool) -> dict[str, str]:
    """Return the headers that tell `user` whether a content was stored already, which may have been somebody else's."""
    sees_contents = user.has_perm("django_blobstore.view_resource") and may(user, "view", "managedresource")
    return WAS_STORED if was_stored and sees_contents else {}
