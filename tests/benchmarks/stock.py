"""What somebody would write with Django and pymongo alone: files of GridFS in and out of plain views, hashed.

And a view that does nothing for whoever has a token: what a request to a REST interface costs whatever it is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from bson import ObjectId
from django.conf import settings
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from gridfs import GridFSBucket, GridOut
from pymongo import MongoClient, WriteConcern
from rest_framework.decorators import api_view
from rest_framework.request import Request

BLOCK = 1024 * 1024
SMALL = bytes(4096)


@cache
def bucket() -> GridFSBucket:
    options = settings.STORAGES["blobstore"]["OPTIONS"]
    client: MongoClient[dict[str, Any]] = MongoClient(options["uri"])
    return GridFSBucket(client["stock"].with_options(write_concern=WriteConcern("majority")))


def streamed(request: HttpRequest, file_id: str) -> StreamingHttpResponse:
    file = bucket().open_download_stream(ObjectId(file_id))
    return StreamingHttpResponse(_chunks(file), headers={"Content-Length": str(file.length)})


def as_file(request: HttpRequest, file_id: str) -> FileResponse:
    return FileResponse(bucket().open_download_stream(ObjectId(file_id)))


@csrf_exempt
def put(request: HttpRequest, name: str) -> HttpResponse:
    hashed = hashlib.sha384()
    with bucket().open_upload_stream(name) as file:
        while block := request.read(BLOCK):
            hashed.update(block)
            file.write(block)
    return HttpResponse(hashed.hexdigest(), status=201)


@api_view(["GET", "PUT"])
def nothing(request: Request) -> HttpResponse:
    request._request.read()
    return HttpResponse(SMALL)


def _chunks(file: GridOut) -> Iterator[bytes]:
    while chunk := file.readchunk():
        yield chunk


urlpatterns = [
    path("stream/<str:file_id>", streamed),
    path("file/<str:file_id>", as_file),
    path("put/<str:name>", put),
    path("nothing", nothing),
]
