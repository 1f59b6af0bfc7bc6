"""What users uploaded, sent from a host of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from django_blobstore.rest.grants import Grant
from tests.rest import api
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

HOST = "content.example.net"
CONTENT = b"<script>alert(1)</script>"
MIDDLEWARE = "django_blobstore.rest.content_host.ContentHostMiddleware"


@pytest.fixture(autouse=True)
def content_host(settings: Settings) -> None:
    settings.BLOBSTORE = {"CONTENT_HOST": f"https://{HOST}"}
    settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]


@pytest.fixture
def url(bucket: Bucket, stored: Stored) -> str:
    """The URL of an object on the main host."""
    ManagedStorage().put(Namespace(bucket=bucket.pk), "a/ü ?.html", CONTENT, content_type="text/html")
    return f"/api/buckets/{bucket.pk}/objects/a/%C3%BC%20%3F.html"


def there(url: str, **headers: str) -> Any:
    """GET `url` from its own host, as somebody unknown."""
    parts = urlsplit(url)
    return APIClient().get(parts.path, headers={"Host": parts.netloc, **headers})


def test_a_get_leads_to_a_signed_url_on_the_content_host(database: str, url: str) -> None:
    sent = api.client(api.administrator()).get(url)
    assert (sent.status_code, sent["Cache-Control"]) == (302, "no-store")
    assert sent["Location"].startswith(f"https://{HOST}/api/signed/")
    assert sent["Location"].endswith("/a/%C3%BC%20%3F.html")
    got = there(sent["Location"])
    assert (got.status_code, b"".join(got.streaming_content)) == (200, CONTENT)
    assert got["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert got["Content-Disposition"].startswith("attachment")
    part = there(sent["Location"], Range="bytes=1-6")
    assert (part.status_code, b"".join(part.streaming_content)) == (206, b"script")


def test_a_url_that_somebody_signs_is_of_the_content_host(database: str, url: str, bucket: Bucket) -> None:
    asked = api.client(api.administrator()).post(
        f"/api/buckets/{bucket.pk}/sign", {"path": "a/ü ?.html"}, format="json"
    )
    signed = asked.json()["url"]
    assert signed.startswith(f"https://{HOST}/api/signed/")
    got = there(signed)
    assert (got.status_code, b"".join(got.streaming_content)) == (200, CONTENT)


def test_objects_of_users_and_of_nobody_are_sent_from_there_too(database: str, url: str) -> None:
    client = api.client(api.administrator())
    for mine in ("/api/me/objects/x", "/api/global/objects/x"):
        api.put(client, mine, mine.encode())
        got = there(client.get(mine)["Location"])
        assert (got.status_code, b"".join(got.streaming_content)) == (200, mine.encode())


def test_the_main_host_still_says_what_needs_no_bytes(database: str, url: str) -> None:
    client = api.client(api.administrator())
    assert client.head(url)["Content-Length"] == str(len(CONTENT))
    assert client.get(url, headers={"If-None-Match": client.head(url)["ETag"]}).status_code == 304
    assert client.get(f"{url}x").status_code == 404
    assert api.client(api.person("stranger")).get(url).status_code == 404
    assert api.client().get(url).status_code == 401


def test_the_content_host_answers_nothing_else(database: str, url: str) -> None:
    client = api.client(api.administrator())
    for other in (url, "/api/buckets/", "/api/me/objects/", "/admin/", "/admin/login/"):
        assert client.get(other, headers={"Host": HOST}).status_code == 404
        assert client.get(other, headers={"Host": HOST.upper()}).status_code == 404
    assert api.put(client, "/api/me/objects/x", HTTP_HOST=HOST).status_code == 404
    assert client.get("/api/me/objects/").json()["objects"] == []


def test_the_url_is_void_once_it_is_late_altered_or_the_content_replaced(
    database: str, url: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api.client(api.administrator())
    signed = client.get(url)["Location"]
    assert there(signed + "x").status_code == 403
    api.put(client, url, b"other")
    assert there(signed).json()["code"] == "content-replaced"
    late = Grant(str(bucket.pk), "", int(timezone.now().timestamp()) - 1).sign("a")
    answer = there(f"https://{HOST}/api/signed/{late['payload']}/{late['signature']}/a")
    assert (answer.status_code, answer.json()["code"]) == (410, "url-expired")
