"""Downloads from the admin: the bytes, and headers that keep a browser from running them."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connections
from django.test import AsyncClient
from django.utils import timezone

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, Resource
from tests.admin_pages import administrator, page, staff, text
from tests.stored import Stored

HTML = b"<script>alert(document.domain)</script>"

files_only = pytest.mark.parametrize("storage_kind", ["files"])


def put(path: str, content: bytes = HTML, content_type: str = "text/html") -> str:
    """Store an object and return the path of its download."""
    managed = ManagedStorage().put(Namespace(bucket="site"), path, content, content_type=content_type)
    return page(ManagedResource, "download", managed.pk)


def test_an_uploaded_page_is_a_file_to_save_and_never_a_page_of_the_site(database: str, stored: Stored) -> None:
    response = administrator().get(put("docs/index.html"))
    assert response.status_code == 200
    assert response.getvalue() == HTML
    assert response["Content-Disposition"] == 'attachment; filename="index.html"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Content-Length"] == str(len(HTML))
    assert response["Content-Type"] == "text/html"


def test_bytes_arrive_in_blocks_of_a_megabyte(database: str, stored: Stored) -> None:
    content = b"0123456789abcdef" * 160_000
    response = administrator().get(put("large", content))
    blocks = list(response)
    assert b"".join(blocks) == content
    assert len(blocks) == 3


@files_only
@pytest.mark.parametrize(
    ("path", "disposition"),
    [
        ("a/été.txt", "attachment; filename=\"_t_.txt\"; filename*=UTF-8''%C3%A9t%C3%A9.txt"),
        ('a/say "hi".txt', "attachment; filename=\"say _hi_.txt\"; filename*=UTF-8''say%20%22hi%22.txt"),
        ("a/tail; filename=evil.exe", 'attachment; filename="tail; filename=evil.exe"'),
    ],
)
def test_the_name_of_the_file_is_the_end_of_the_path(
    database: str, stored: Stored, path: str, disposition: str
) -> None:
    assert administrator().get(put(path))["Content-Disposition"] == disposition


@files_only
@pytest.mark.parametrize("content_type", ["", "html", "text/html\r\nX-Evil: 1", "text/html\n", "té/xt"])
def test_a_content_type_that_is_none_is_sent_as_unknown_bytes(database: str, stored: Stored, content_type: str) -> None:
    url = put("page")
    # The store takes none that has control characters; a row may come from elsewhere.
    ManagedResource.objects.update(content_type=content_type)
    response = administrator().get(url)
    assert response["Content-Type"] == "application/octet-stream"
    assert "X-Evil" not in response


@files_only
def test_an_asgi_server_gets_the_bytes_by_an_async_iterator(database: str, stored: Stored) -> None:
    url = put("large", b"x" * 3_000_000)
    user = User.objects.create_superuser("root")

    async def download() -> tuple[bool, list[bytes]]:
        client = AsyncClient()
        await client.aforce_login(user)
        response = await client.get(url)
        blocks = [block async for block in response]
        await sync_to_async(connections.close_all)()
        return response.is_async, blocks

    is_async, blocks = asyncio.run(download())
    assert is_async
    assert b"".join(blocks) == b"x" * 3_000_000


@files_only
def test_a_download_needs_the_permission_to_view_objects(database: str, stored: Stored) -> None:
    url = put("page")
    stranger = staff("view_bucket", "view_resource")
    assert stranger.get(url).status_code == 403
    assert stranger.get(page(ManagedResource, "download", 4711)).status_code == 403


@files_only
def test_who_may_view_objects_may_download_them(database: str, stored: Stored) -> None:
    client = staff("view_managedresource")
    assert client.get(put("page")).getvalue() == HTML
    assert client.get(page(ManagedResource, "download", 4711)).status_code == 404


@files_only
def test_who_is_not_logged_in_is_asked_to(database: str, stored: Stored, client: object) -> None:
    response = client.get(put("page"))
    assert response.status_code == 302
    assert "login" in response["Location"]


def test_a_lost_file_is_told_on_the_page_of_the_object_and_marked(database: str, stored: Stored) -> None:
    url = put("page")
    client = administrator()
    stored.storage.delete(Resource.objects.get().path)
    assert "is damaged: its file is missing" in text(client.get(url, follow=True))
    assert "blobstore-missing" in client.get(page(Resource, "changelist")).content.decode()


@files_only
def test_no_part_of_content_that_is_marked_is_shown(database: str, stored: Stored) -> None:
    put("sound.png", b"0123456789", content_type="image/png")
    url = page(ManagedResource, "content", ManagedResource.objects.get().pk)
    client = administrator()
    assert client.get(url, headers={"Range": "bytes=2-4"}).getvalue() == b"234"
    Resource.objects.update(damaged_at=timezone.now())
    answer = client.get(url, headers={"Range": "bytes=2-4"}, follow=True)
    assert "is damaged" in text(answer)
    assert client.get(url).getvalue() == b"0123456789"
