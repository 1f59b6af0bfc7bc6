"""What a signed URL grants: what is signed, and what makes one void."""

from __future__ import annotations

from datetime import UTC, datetime

from django.core.signing import BadSignature
from django.utils import timezone

from django_blobstore import grants
from django_blobstore.rest.problems import Problem


class Grant(grants.Grant):
    """A grant that came with a URL, or goes out with one."""

    @classmethod
    def signed(cls, payload: str, signature: str, path: str) -> Grant:
        """Return what the parts of a URL grant; raises a `Problem` if we did not sign it or it has expired."""
        try:
            grant = cls.unsigned(payload, signature, path)
        except BadSignature:
            raise Problem(403, "invalid-signature", "The URL is not one that was signed here.") from None
        if grant.expires <= timezone.now().timestamp():
            expired_at = datetime.fromtimestamp(grant.expires, UTC).isoformat()
            raise Problem(410, "url-expired", "The URL has expired; ask for a new one.", expired_at=expired_at)
        return grant
