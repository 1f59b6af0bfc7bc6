"""What a signed URL grants: what is signed, and what makes one void."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from django.core import signing
from django.core.signing import BadSignature, Signer
from django.utils import timezone

from django_blobstore.namespaces import Namespace
from django_blobstore.rest.problems import Problem


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


def _signer() -> Signer:
    # With the secrets in SECRET_KEY_FALLBACKS too, to check.
    return Signer(salt="django_blobstore.rest.signing")
