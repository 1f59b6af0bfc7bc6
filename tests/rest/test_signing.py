"""Signed URLs: whoever has one reads one object, until it expires, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from pytest_django import Settings
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from django_blobstore.rest import signing
from tests.rest import api
from tests.servers import Site
from tests.stored import Stored
from tests.streams import content_of, sha384

PATH = "a b/ü:?#.html"
CONTENT = b"<script>alert(1)</script>"


@pytest.fixture
def bucket(database: str, stored: Stored) -> Bucket:
    bucket = Bucket.objects.create(name="bucket", owner=api.person("owner"))
    ManagedStorage().put(Namespace(bucket=bucket.pk), PATH, CONTENT, content_type="text/html")
    return bucket


@pytest.fixture
def owner(bucket: Bucket) -> APIClient:
    return api.client(bucket.owner)


def sign(client: APIClient, bucket: Bucket, path: str = PATH, **wanted: Any) -> Any:
    return client.post(f"/api/buckets/{bucket.pk}/sign", {"path": path, **wanted}, format="json")


def outcome(url: str, method: str = "get") -> tuple[int, Any]:
    """Return the status and the content, or code, that anybody gets from `url`."""
    answer = getattr(api.client(), method)(url)
    if answer.streaming:
        return answer.status_code, b"".join(answer.streaming_content)
    return answer.status_code, answer.json().get("code") if answer.content else ""


def test_anybody_reads_the_object_under_the_usual_guard(owner: APIClient, bucket: Bucket) -> None:
    signed = sign(owner, bucket, expires_in=3000)
    assert signed.status_code == 200
    url = signed.json()["url"]
    left = parse_datetime(signed.json()["expires_at"]) - datetime.now(UTC)  # type: ignore[operator]
    assert timedelta(seconds=0) < left <= timedelta(seconds=3000)
    assert outcome(url) == (200, CONTENT)
    answer = api.client().get(url, headers={"Range": "bytes=1-6"})
    assert (answer.status_code, b"".join(answer.streaming_content)) == (206, b"script")
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"
    head = api.client().head(url)
    assert (head.status_code, head["Content-Length"], head["ETag"]) == (200, str(len(CONTENT)), f'"{sha384(CONTENT)}"')


def test_a_running_server_serves_it_under_a_name_for_the_file(owner: APIClient, bucket: Bucket, site: Site) -> None:
    url = sign(owner, bucket).json()["url"].replace("http://testserver", site.url)
    assert url.endswith(quote(PATH, safe="/:"))
    assert httpx.get(url, timeout=120).content == CONTENT
    assert httpx.get(url.replace("signed/", "signed/x"), timeout=120).status_code == 403


def test_it_can_be_used_for_nothing_but_reading(owner: APIClient, bucket: Bucket) -> None:
    url = sign(owner, bucket).json()["url"]
    for method in ("put", "post", "delete", "patch"):
        assert getattr(api.client(), method)(url).status_code == 405
    assert outcome(url) == (200, CONTENT)


def test_whatever_is_changed_in_it_makes_it_void(owner: APIClient, bucket: Bucket, settings: Settings) -> None:
    ManagedStorage().put(Namespace(bucket=bucket.pk), "other", b"other")
    url = sign(owner, bucket).json()["url"]
    start, rest = url.split("/signed/")
    payload, signature, path = rest.split("/", 2)
    other = signing.Grant(str(bucket.pk), "", 2**40).sign("other")["payload"]
    for parts in (
        (payload, signature, "other"),
        (other, signature, path),
        (payload[:-1], signature, path),
        (payload, signature[:-1], path),
        (payload, signature.swapcase(), path),
        (payload, "x", path),
        ("x", "y", path),
        (payload, signature, path + "x"),
        (f"{payload}:", signature, path),
    ):
        assert outcome(f"{start}/signed/{'/'.join(parts)}") == (403, "invalid-signature")
    settings.SECRET_KEY = "another"
    assert outcome(url) == (403, "invalid-signature")
    settings.SECRET_KEY_FALLBACKS = ["only-for-tests"]
    assert outcome(url) == (200, CONTENT)


def test_no_end_of_the_path_passes_for_a_part_of_the_signature(owner: APIClient, bucket: Bucket) -> None:
    for path in ("report", "report:public"):
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, path.encode())
    url = sign(owner, bucket, "report:public").json()["url"]
    assert outcome(url) == (200, b"report:public")
    start, payload, signature, _ = url.rsplit("/", 3)
    assert outcome(f"{start}/{payload}/public:{signature}/report") == (403, "invalid-signature")


def test_it_expires(owner: APIClient, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sign(owner, bucket, expires_in=60).json()["url"]
    later = timezone.now() + timedelta(seconds=61)
    monkeypatch.setattr(signing.timezone, "now", lambda: later)
    assert outcome(url) == (410, "url-expired")
    assert outcome(url, "head")[0] == 410


def test_it_may_be_bound_to_the_content_there_is(owner: APIClient, bucket: Bucket) -> None:
    anything = sign(owner, bucket).json()["url"]
    this = sign(owner, bucket, sha384=sha384(CONTENT).upper()).json()["url"]
    assert outcome(this) == outcome(anything) == (200, CONTENT)
    ManagedStorage().put(Namespace(bucket=bucket.pk), PATH, b"new")
    assert (outcome(anything), outcome(this)) == ((200, b"new"), (410, "content-replaced"))
    refused = sign(owner, bucket, sha384=sha384(CONTENT))
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition-failed")
    ManagedStorage().remove(Namespace(bucket=bucket.pk), PATH)
    assert outcome(anything) == (404, "resource-not-found")
    Bucket.objects.all().delete()
    assert outcome(anything) == (404, "resource-not-found")


def test_only_who_may_read_the_object_may_sign(bucket: Bucket) -> None:
    assert sign(api.client(), bucket).status_code == 401
    assert sign(api.client(api.person("stranger")), bucket).status_code == 404
    writer = api.person("writer", "add_managedresource", "change_managedresource", "delete_managedresource")
    assert sign(api.client(writer), bucket).status_code == 403
    assert sign(api.client(api.person("reader", "view_managedresource")), bucket).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "status", "named"),
    [
        ({"expires_in": 0}, 400, "expires_in"),
        ({"expires_in": -1}, 400, "expires_in"),
        ({"expires_in": 101}, 400, "expires_in"),
        ({"expires_in": "soon"}, 400, "expires_in"),
        ({"expires_in": 10**30}, 400, "expires_in"),
        ({"sha384": "x"}, 400, ""),
        ({"path": "not there"}, 404, ""),
        ({"path": "a\0"}, 400, ""),
    ],
)
def test_what_cannot_be_signed_is_refused(
    owner: APIClient, bucket: Bucket, settings: Settings, wanted: dict[str, Any], status: int, named: str
) -> None:
    settings.BLOBSTORE = {"SIGNED_URL_LIFETIME": 100}
    refused = sign(owner, bucket, **wanted)
    assert refused.status_code == status
    assert not named or list(refused.json()["errors"]) == [named]


def test_without_a_time_it_lasts_an_hour_or_as_long_as_allowed(
    owner: APIClient, bucket: Bucket, settings: Settings
) -> None:
    def seconds() -> float:
        left = parse_datetime(sign(owner, bucket).json()["expires_at"]) - datetime.now(UTC)  # type: ignore[operator]
        return left.total_seconds()

    assert 3000 < seconds() <= 3600
    settings.BLOBSTORE = {"SIGNED_URL_LIFETIME": 100}
    assert 0 < seconds() <= 100


def test_the_longest_path_still_has_a_url(database: str, stored: Stored) -> None:
    user = api.person("user")
    path = "ü" * 512
    ManagedStorage().put(Namespace(user=str(user.pk)), path, content_of(10))
    url = api.client(user).post("/api/me/sign", {"path": path}, format="json").json()["url"]
    assert len(url) < 4000
    assert outcome(url) == (200, content_of(10))
