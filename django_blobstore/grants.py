"""What the URLs carry that let anybody who has them read one object, and how it is signed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

from django.core import signing
from django.core.signing import BadSignature, Signer

from django_blobstore.namespaces import Namespace


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
    def unsigned(cls, payload: str, signature: str, path: str) -> Self:
        """Return what the parts of a URL grant, expired or not. Raises `BadSignature` if we did not sign it."""
        signed = f"{payload}/{path}"
        # A signature with a colon in it may be one with the end of another path before it.
        if _signer().unsign(f"{signed}:{signature}") != signed:
            raise BadSignature
        return cls(**json.loads(signing.b64_decode(payload.encode())))

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
