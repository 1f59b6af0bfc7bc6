"""What is said of an object without touching its bytes: its content type and its metadata."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore import serving
from django_blobstore.errors import ResourceNotFound
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.rest.metadata import checked_metadata
from django_blobstore.rest.serializers import ObjectSerializer, PathField, TextField
from django_blobstore.rest.viewsets import StoreViewSet, valid


class MetadataField(serializers.DictField):
    """Metadata; a `Problem` says what is wrong with any other."""

    child = serializers.CharField(allow_blank=True, trim_whitespace=False)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        return checked_metadata(data) if isinstance(data, dict) else super().to_internal_value(data)


class DescriptionSerializer(serializers.Serializer[Any]):
    """What to say of the object at `path` from now on; `metadata` is all there will be."""

    path = PathField()
    content_type = TextField(required=False, allow_blank=True, max_length=255)
    metadata = MetadataField(required=False)

    def validate_content_type(self, content_type: str) -> str:
        if content_type and not serving.is_media_type(content_type):
            raise serializers.ValidationError("It is a media type, like text/plain, or empty for none.")
        return content_type


class DescriptionViewSet(StoreViewSet):
    """Sets the content type and the metadata of an object, whichever are given."""

    serializer_class = DescriptionSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("change")
        said = valid(self.get_serializer(data=request.data))
        path = said.pop("path")
        objects = ManagedResource.objects.using(router.db_for_write(ManagedResource)).at(self.place.namespace, path)
        # Caches that ask by date are to learn of it: the entity tag tells of the bytes alone.
        if said and not objects.update(modified_at=timezone.now(), **said):
            raise ResourceNotFound(path)
        managed = ManagedStorage().stat(self.place.namespace, path)
        return Response(ObjectSerializer(managed, context=self.get_serializer_context()).data)
