"""Which URL leads to which view; the project mounts them where it likes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, include, path, re_path, register_converter

from django_blobstore.rest.bulk import BulkDeleteViewSet, BulkStatViewSet
from django_blobstore.rest.describing import DescriptionViewSet
from django_blobstore.rest.paths import AnyTextConverter
from django_blobstore.rest.signing import SignedObjectViewSet, SigningViewSet
from django_blobstore.rest.transfers import CopyViewSet, MoveViewSet
from django_blobstore.rest.tus import UploadViewSet
from django_blobstore.rest.viewsets import (
    BucketViewSet,
    ContentViewSet,
    ObjectListViewSet,
    ObjectViewSet,
    ProofViewSet,
    PutRequestViewSet,
    StoreViewSet,
)

if apps.is_installed("drf_spectacular"):
    # It knows of the descriptions that have been imported.
    import_module("django_blobstore.rest.openapi")

app_name = "blobstore"

register_converter(AnyTextConverter, "any_text")


View = Callable[..., HttpResponseBase]


def _view(viewset: type[StoreViewSet], **actions: Any) -> View:
    return non_atomic(viewset.as_view(actions))


def non_atomic(view: View) -> View:
    """Have `view` opt out of ATOMIC_REQUESTS: a put commits a row before it writes the first byte."""
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


buckets = _view(BucketViewSet, get="list", post="create")
bucket = _view(BucketViewSet, get="retrieve", patch="partial_update", delete="destroy")
object_list = _view(ObjectListViewSet, get="list")
content = _view(ContentViewSet, get="retrieve")
one_object = _view(ObjectViewSet, options="discover", get="retrieve", put="update", delete="destroy")
put_requests = _view(PutRequestViewSet, post="create")
put_request = _view(ProofViewSet, post="create")
uploads = _view(UploadViewSet, options="discover", post="create")
upload = _view(UploadViewSet, options="discover", head="show", patch="append", delete="destroy")

signed_object = _view(SignedObjectViewSet, get="retrieve")

# What is asked of objects by POST, to a URL beside that of all objects, where no path of an object can be.
OPERATIONS = {
    "copy": _view(CopyViewSet, post="create"),
    "move": _view(MoveViewSet, post="create"),
    "describe": _view(DescriptionViewSet, post="create"),
    "sign": _view(SigningViewSet, post="create"),
    "stat": _view(BulkStatViewSet, post="create"),
    "delete": _view(BulkDeleteViewSet, post="create"),
}


def _namespace(route: str) -> list[URLPattern]:
    """Return what every namespace has; `route` begins the names of its views."""
    return [
        path("objects/", object_list, name=f"{route}-objects"),
        path("objects/<any_text:path>", one_object, name=f"{route}-object"),
        path("put-requests/", put_requests, name=f"{route}-put-requests"),
        *(re_path(f"^{name}/?$", view, name=f"{route}-{name}") for name, view in OPERATIONS.items()),
    ]


urlpatterns: list[URLPattern | URLResolver] = [
    path("buckets/", buckets, name="bucket-list"),
    path("buckets/<str:bucket>/", bucket, name="bucket-detail"),
    path("buckets/<str:bucket>/", include(_namespace("bucket"))),
    path("buckets/<str:bucket>/by-sha384/<str:sha384>", content, name="bucket-content"),
    path("me/", include(_namespace("me")), {"route": "me"}),
    path("global/", include(_namespace("global")), {"route": "global"}),
    path("put-requests/<str:request_id>/", put_request, name="put-request"),
    path("signed/<str:payload>/<str:signature>/<any_text:path>", signed_object, name="signed-object"),
    path("uploads/", uploads, name="uploads"),
    path("uploads/<str:upload>/", upload, name="upload"),
]
