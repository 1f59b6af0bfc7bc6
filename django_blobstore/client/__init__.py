"""A client of the REST interface, which needs neither Django nor a project: extra ``client``."""

from __future__ import annotations

from django_blobstore.client.operations import Client
from django_blobstore.client.outcomes import Outcome
from django_blobstore.client.problems import (
    ClientError,
    ContentDiffers,
    InvalidAddress,
    NotLoggedIn,
    Refused,
    Stopped,
    Unreachable,
)
from django_blobstore.client.threaded import AsyncClient

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ContentDiffers",
    "InvalidAddress",
    "NotLoggedIn",
    "Outcome",
    "Refused",
    "Stopped",
    "Unreachable",
]
