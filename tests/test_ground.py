"""The ground other tests stand on: that a test sees what is left, and that servers share its database and storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.db import connections
from pymongo import MongoClient

from django_blobstore.managed import ManagedStorage
from tests import servers
from tests.stored import Stored, StoredInGridFS


@pytest.mark.parametrize("storage_kind", ["gridfs", "files", "memory", "s3"])
def test_every_stored_file_is_seen_until_it_is_gone(stored: Stored) -> None:
    assert stored.names() == set()
    stored.storage.save("deep/er/file", ContentFile(b"content"))
    assert stored.names() == {"deep/er/file"}
    stored.storage.delete("deep/er/file")
    assert stored.names() == set()


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_chunks_that_no_file_owns_are_seen(stored: StoredInGridFS) -> None:
    stored.storage.save("whole", ContentFile(b"content"))
    with MongoClient[dict[str, Any]](stored.uri) as client:
        client[stored.database]["blobs.chunks"].insert_one({"files_id": "lost", "n": 0, "data": b"content"})
    assert stored.names() == {"whole", "chunks without a file: lost"}


@pytest.mark.parametrize("kind", ["gridfs", "files", "s3"])
def test_two_storages_of_one_kind_are_apart(make_stored: Callable[[str], Stored], kind: str) -> None:
    one, other = make_stored(kind), make_stored(kind)
    assert one.options != other.options


def test_every_query_goes_to_the_database_under_test(database: str) -> None:
    get_user_model().objects.create_user("somebody")
    assert get_user_model().objects.using(database).count() == 1
    assert connections[database].vendor == {"default": "sqlite", "postgres": "postgresql"}[database]


@pytest.mark.parametrize("server", [servers.GUNICORN, servers.UVICORN], ids=lambda server: server[0])
@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_site_shares_the_database(database: str, stored: Stored, server: tuple[str, ...]) -> None:
    get_user_model().objects.create_superuser("chief", password="secret")
    with servers.site(server) as site, httpx.Client(base_url=site.url, follow_redirects=True, timeout=120) as client:
        token = _token(client)
        form = {"username": "chief", "password": "secret", "csrfmiddlewaretoken": token, "next": "/admin/"}
        assert "Log out" in client.post("/admin/login/", data=form).text
        ManagedStorage().put_for_bucket("shared", "file", b"content")
        assert "shared" in client.get("/admin/django_blobstore/bucket/").text
    assert site.process.returncode is not None


def test_a_site_that_cannot_start_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="no-such-option"), servers.site(servers.GUNICORN, "--no-such-option"):
        pass


def _token(client: httpx.Client) -> str:
    client.get("/admin/")
    return client.cookies["csrftoken"]
