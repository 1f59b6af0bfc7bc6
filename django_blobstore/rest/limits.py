"""How often somebody may ask, and how much a request may say before anybody reads it."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from django_blobstore.rest.problems import Problem

# Bytes of one header, as most web servers have it; those that take more are not to make us.
HEADER_LIMIT = 8192

UPLOAD = "blobstore-upload"
PROOF = "blobstore-proof"
PROBE = "blobstore-probe"


class ScopeThrottle(SimpleRateThrottle):
    """Counts the requests of each user in `scope`; a scope of which the project gives no rate is not limited."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__()

    def get_rate(self) -> str | None:
        """Return what ``REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"]`` says of the scope now."""
        rate = api_settings.DEFAULT_THROTTLE_RATES.get(self.scope or "")
        return None if rate is None else str(rate)

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return the key of who asks; nobody comes here without having been authenticated."""
        return self.cache_format % {"scope": self.scope, "ident": request.user.pk}


def require_short_headers(request: HttpRequest) -> None:
    """Raise a 431 `Problem` if any header of `request` is longer than `HEADER_LIMIT`."""
    for name, value in request.META.items():
        if name.startswith("HTTP_") and len(value) > HEADER_LIMIT:
            header = name.removeprefix("HTTP_").replace("_", "-").title()
            detail = f"The header {header} has more than {HEADER_LIMIT} bytes."
            raise Problem(431, "header-too-large", detail, limit=HEADER_LIMIT)
