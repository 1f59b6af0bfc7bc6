"""What is said of an object without touching its bytes: its content type and its metadata."""

from __future__ import annotations

from functools import partial
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore.managed import ManagedStorage
from django_blobstore.rest.conditions import entity_tag, require_as_wanted
from django_blobstore.rest.serializers import ContentTypeField, MetadataField, ObjectSerializer, PathField
from django_blobstore.rest.viewsets import StoreViewSet, valid


class DescriptionSerializer(serializers.Serializer[Any]):
    """What to say of the object at `path` from now on; `metadata` is all there will be."""

    path = PathField()
    content_type = ContentTypeField(required=False)
    metadata = MetadataField(required=False)


class DescriptionViewSet(StoreViewSet):
    """Sets the content type and the metadata of an object, whichever are given."""

    serializer_class = DescriptionSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("change")
        said = valid(self.get_serializer(data=request.data))
        condition = partial(require_as_wanted, request._request)
        described = ManagedStorage().describe(self.place.namespace, said.pop("path"), condition=condition, **said)
        return Response(
            ObjectSerializer(described, context=self.get_serializer_context()).data,
            headers={"ETag": entity_tag(described)},
        )
