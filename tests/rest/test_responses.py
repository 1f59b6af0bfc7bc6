"""Bytes out, beside whatever middleware and settings a project has."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from django_blobstore.models import Bucket
from tests.invariants import assert_sound
from tests.rest import api
from tests.stored import Stored

CONTENT = b"compressible " * 1000


@pytest.mark.parametrize("middleware", ["gzip.GZipMiddleware", "http.ConditionalGetMiddleware"])
def test_middleware_changes_neither_the_bytes_nor_their_ranges_and_lengths(
    database: str, bucket: Bucket, stored: Stored, settings: Settings, middleware: str
) -> None:
    settings.MIDDLEWARE = [f"django.middleware.{middleware}", *settings.MIDDLEWARE]
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/objects/x.txt"
    api.put(client, url, CONTENT)
    for wanted, status, content in [("", 200, CONTENT), ("bytes=100-4999", 206, CONTENT[100:5000])]:
        got: Any = client.get(url, headers={"Accept-Encoding": "gzip"} | ({"Range": wanted} if wanted else {}))
        assert got.status_code == status
        assert b"".join(got.streaming_content) == content
        assert (got["Content-Length"], got.get("Content-Encoding")) == (str(len(content)), None)
        assert got["ETag"].startswith('"')


def test_views_work_with_a_transaction_for_each_request_of_the_project(
    database: str, bucket: Bucket, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections[database].settings_dict, "ATOMIC_REQUESTS", True)
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/objects/x"
    assert api.put(client, url, CONTENT).status_code == 201
    assert b"".join(client.get(url).streaming_content) == CONTENT
    assert client.delete(url).status_code == 204
    assert_sound(stored)


def test_a_file_is_closed_when_its_bytes_are_not_wanted(database: str, bucket: Bucket, stored: Stored) -> None:
    client = api.client(api.administrator())
    url = f"/api/buckets/{bucket.pk}/objects/x"
    api.put(client, url, bytes(3 * 1024 * 1024))
    answer: Any = client.get(url)
    file = answer._resource_closers[0].__self__._file
    assert not file.closed
    answer.close()
    assert file.closed
