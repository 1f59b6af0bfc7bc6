"""URLs that let anybody who has them read one object for a while: what is signed, and what makes one void."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from django.core import signing
from django.core.signing import BadSignature, Signer
from django.utils import timezone
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from django_blobstore.conf import conf
from django_blobstore.errors import ConditionFailed
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.rest.paths import absolute_url
from django_blobstore.rest.problems import Problem
from django_blobstore.rest.serializers import HashField, PathField
from django_blobstore.rest.viewsets import ObjectViewSet, StoreViewSet, valid

DEFAULT_SECONDS = 3600


@dataclass(frozen=True)
class Grant:
    """Leave to read what is at a path of a namespace until `expires`, in seconds since 1970.

    With a `sha384` it is leave to read that content and no other. The path is signed too, but stands in the URL itself,
    so that clients find a name for their file there.
    """

    bucket: str
    user: str
    expires: int
    sha384: str = ""

    @classmethod
    def signed(cls, payload: str, signature: str, path: str) -> Grant:
        """Return what the parts of a URL grant; raises a `Problem` if we did not sign it or it has expired."""
        try:
            _signer().unsign(f"{payload}/{path}:{signature}")
        except BadSignature:
            raise Problem(403, "invalid-signature", "The URL is not one that was signed here.") from None
        grant = cls(**json.loads(signing.b64_decode(payload.encode())))
        if grant.expires <= timezone.now().timestamp():
            expired_at = datetime.fromtimestamp(grant.expires, UTC).isoformat()
            raise Problem(410, "url-expired", "The URL has expired; ask for a new one.", expired_at=expired_at)
        return grant

    def sign(self, path: str) -> dict[str, str]:
        """Return the parts of the URL for `path`."""
        payload = signing.b64_encode(json.dumps(asdict(self), separators=(",", ":")).encode()).decode()
        return {"payload": payload, "signature": _signer().signature(f"{payload}/{path}"), "path": path}

    @property
    def namespace(self) -> Namespace:
        return Namespace(bucket=self.bucket, user=self.user)


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
        url = absolute_url(request._request, "signed-object", **grant.sign(path))
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


def _signer() -> Signer:
    # With the secrets in SECRET_KEY_FALLBACKS too, to check.
    return Signer(salt="django_blobstore.rest.signing")


def _require_content(managed: ManagedResource, sha384: str) -> None:
    if sha384 and managed.resource.sha384 != sha384:
        raise ConditionFailed(managed.path, managed.resource.sha384)
