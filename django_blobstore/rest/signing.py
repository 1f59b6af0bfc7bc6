"""URLs that let anybody who has them read one object for a while: who may ask for one, and what it is answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore.conf import conf
from django_blobstore.errors import ConditionFailed
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.rest.content_host import signed_url
from django_blobstore.rest.grants import Grant
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.serializers import HashField, PathField
from django_blobstore.rest.viewsets import ObjectViewSet, StoreViewSet, valid

DEFAULT_SECONDS = 3600


class SigningSerializer(serializers.Serializer[Any]):
    """Which object to sign a URL for, for how many seconds, and for which content if not for any to come."""

    path = PathField()
    expires_in = serializers.IntegerField(required=False, min_value=1)
    sha384 = HashField(default="")

    def validate_expires_in(self, seconds: int) -> int:
        if seconds > conf.SIGNED_URL_LIFETIME:
            raise serializers.ValidationError(f"At most {conf.SIGNED_URL_LIFETIME} seconds are allowed.")
        return seconds


class SigningViewSet(StoreViewSet):
    """Signs URLs of objects that the user may read."""

    serializer_class = SigningSerializer

    def create(self, request: Request, **kwargs: str) -> Response:
        self.place.require("view")
        wanted = valid(self.get_serializer(data=request.data))
        namespace, path = self.place.namespace, wanted["path"]
        _require_content(ManagedStorage().stat(namespace, path), wanted["sha384"])
        seconds = wanted.get("expires_in", min(DEFAULT_SECONDS, int(conf.SIGNED_URL_LIFETIME)))
        expires = int(timezone.now().timestamp()) + seconds
        grant = Grant(str(namespace.bucket), namespace.user, expires, wanted["sha384"])
        url = signed_url(request._request, grant, path)
        return Response({"url": url, "expires_at": datetime.fromtimestamp(expires, UTC)})


class SignedObjectViewSet(ObjectViewSet):
    """One object for whoever has a URL signed for it; nobody is asked who they are."""

    authentication_classes = []
    permission_classes = [AllowAny]

    def _stat(self, store: ManagedStorage, path: str) -> ManagedResource:
        grant = Grant.signed(self.kwargs["payload"], self.kwargs["signature"], path)
        managed = store.stat(grant.namespace, path)
        if grant.sha384 and managed.resource.sha384 != grant.sha384:
            raise Problem(410, "content-replaced", "The object does not have the content that the URL was signed for.")
        return managed


def _require_content(managed: ManagedResource, sha384: str) -> None:
    if sha384 and managed.resource.sha384 != sha384:
        raise ConditionFailed(managed.path, managed.resource.sha384)
