"""Listings of the objects that have a wanted property."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from django_blobstore import listing
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests.rest import api
from tests.stored import Stored
from tests.streams import sha384

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

NOW = timezone.now()


@pytest.fixture
def url(database: str, stored: Stored) -> str:
    """The listing of a bucket with the objects a/0, b/1, a/2, … of as many bytes, the higher the older by a day."""
    bucket = Bucket.objects.create(name="bucket")
    for n in range(10):
        path = f"{'ab'[n % 2]}/{n}"
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, bytes(n))
        ManagedResource.objects.filter(path=path).update(modified_at=NOW - timedelta(days=n))
    ManagedStorage().put(Namespace(bucket="elsewhere"), "there", bytes(3))
    return f"/api/buckets/{bucket.pk}/objects/"


@pytest.fixture
def client(url: str) -> APIClient:
    return api.client(api.administrator())


def listed(client: APIClient, url: str, **query: Any) -> str:
    """Return the last characters of all paths, from all pages."""
    paths = []
    following: str | None = f"{url}?{urlencode(query)}"
    while following:
        page = client.get(following).json()
        paths += [shown["path"] for shown in page["objects"]]
        following = page["next"]
    return "".join(path[-1] for path in paths)


@pytest.mark.parametrize("examined", [3, 10_000])
def test_objects_are_listed_by_hash_length_and_time(
    client: APIClient, url: str, monkeypatch: pytest.MonkeyPatch, examined: int
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", examined)
    for limit in (1, 100):
        assert listed(client, url, limit=limit, sha384=sha384(bytes(3)).upper()) == "3"
        assert listed(client, url, limit=limit, sha384="0" * 96) == ""
        assert listed(client, url, limit=limit, min_length=7) == "879"
        assert listed(client, url, limit=limit, min_length=3, max_length=5) == "435"
        assert listed(client, url, limit=limit, max_length=4, prefix="a/") == "024"
        assert listed(client, url, limit=limit, max_length=4, after="a/2") == "413"
        for since in (NOW - timedelta(days=2, hours=1), (NOW - timedelta(days=2, hours=1)).isoformat()):
            assert listed(client, url, limit=limit, modified_since=since) == "021"
        assert listed(client, url, limit=limit, modified_since=NOW - timedelta(days=2), min_length=1) == "21"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sha384", "abc"),
        ("sha384", "x" * 96),
        ("sha384", "0" * 97),
        ("min_length", "-1"),
        ("min_length", "many"),
        ("max_length", str(2**63)),
        ("modified_since", "yesterday"),
        ("modified_since", "2026-13-01T00:00:00Z"),
        ("delimiter", "/"),
    ],
)
def test_a_value_that_is_none_is_refused_by_the_name_of_its_parameter(
    client: APIClient, url: str, name: str, value: str
) -> None:
    query = {"min_length": 1, name: value}
    refused = client.get(f"{url}?{urlencode(query)}")
    assert (refused.status_code, refused.json()["code"], list(refused.json()["errors"])) == (400, "invalid", [name])
