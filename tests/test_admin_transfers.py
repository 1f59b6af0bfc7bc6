"""Renaming, copying and replacing an object in the admin, and what its page shows of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.admin_pages import administrator, page, text
from tests.invariants import assert_settled
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["files"])


def put(path: str = "a/one", content: bytes = b"content", **options: Any) -> ManagedResource:
    return ManagedStorage().put(Namespace(bucket="photos"), path, content, **options)


def paths() -> list[str]:
    return sorted(ManagedResource.objects.values_list("path", flat=True))


def test_an_object_is_renamed_and_remembers_it(database: str, stored: Stored) -> None:
    managed, client = put(), administrator()
    assert client.post(page(ManagedResource, "move", managed.pk), {"path": "b/two"}).status_code == 302
    assert paths() == ["b/two"]
    assert "Moved from a/one." in text(client.get(page(ManagedResource, "history", managed.pk)))
    assert_settled(stored)


def test_what_is_there_is_replaced_only_if_that_is_wanted(database: str, stored: Stored) -> None:
    managed, client = put(), administrator()
    put("b/two", b"other")
    response = client.post(page(ManagedResource, "move", managed.pk), {"path": "b/two"})
    assert "There is an object at this path already." in text(response)
    assert paths() == ["a/one", "b/two"]
    client.post(page(ManagedResource, "move", managed.pk), {"path": "b/two", "replace": "on"})
    assert paths() == ["b/two"]
    assert Resource.objects.count() == 1
    assert_settled(stored)


@pytest.mark.parametrize("path", ["../up", "a//b", "", "x" * 1025, "a/one"])
def test_a_path_that_cannot_be_is_refused(database: str, stored: Stored, path: str) -> None:
    managed, client = put(), administrator()
    assert "Error:" in client.post(page(ManagedResource, "move", managed.pk), {"path": path}).content.decode()
    assert paths() == ["a/one"]
    assert_settled(stored)


@pytest.mark.parametrize("by", ["name", "pk"])
def test_an_object_is_copied_to_another_bucket(database: str, stored: Stored, by: str) -> None:
    managed, client = put(content_type="text/plain", metadata={"by": "Ada"}), administrator()
    backups = Bucket.objects.create(name="backups")
    form = {"bucket": getattr(backups, by), "path": "copy"}
    assert client.post(page(ManagedResource, "copy", managed.pk), form).status_code == 302
    copied = ManagedResource.objects.get(bucket=backups)
    assert (copied.path, copied.resource_id, copied.metadata) == ("copy", managed.resource_id, {"by": "Ada"})
    assert Resource.objects.get().reference_count == 2
    assert_settled(stored)


def test_a_bucket_that_is_unknown_or_not_alone_in_its_name_takes_no_copy(database: str, stored: Stored) -> None:
    managed, client = put(), administrator()
    Bucket.objects.create(name="twin")
    Bucket.objects.create(name="twin")
    for name in ("none", "twin"):
        response = client.post(page(ManagedResource, "copy", managed.pk), {"bucket": name, "path": "copy"})
        assert "Please correct the error" in text(response)
    assert paths() == ["a/one"]


def test_an_object_gets_other_content_and_keeps_what_was_said_of_it(database: str, stored: Stored) -> None:
    managed, client = put(content_type="text/plain", metadata={"by": "Ada"}), administrator()
    file = SimpleUploadedFile("new.png", b"new content", content_type="image/png")
    assert client.post(page(ManagedResource, "replace", managed.pk), {"file": file}).status_code == 302
    changed = ManagedResource.objects.select_related("resource").get()
    assert (changed.pk, changed.resource.length, changed.content_type) == (managed.pk, 11, "image/png")
    assert changed.metadata == {"by": "Ada"}
    assert managed.resource.sha384 in text(client.get(page(ManagedResource, "history", managed.pk)))
    assert_settled(stored)


def test_the_page_says_the_hash_as_hex_and_for_an_integrity_attribute(database: str, stored: Stored) -> None:
    managed = put()
    shown = administrator().get(page(ManagedResource, "change", managed.pk)).content.decode()
    digest = base64.b64encode(bytes.fromhex(managed.resource.sha384)).decode().replace("+", "&#x2B;")
    assert f'<code id="sha384">{managed.resource.sha384}</code>' in shown
    assert digest in shown.replace("+", "&#x2B;")


@pytest.mark.parametrize(
    ("content_type", "path", "tag"),
    [
        ("image/png", "a", "<img "),
        ("audio/ogg", "a", "<audio "),
        ("video/mp4", "a", "<video "),
        ("text/plain", "a", "<pre "),
        ("application/json", "a", "<pre "),
        ("", "a.txt", "<pre "),
        ("text/html", "a", ""),
        ("", "a.html", ""),
        ("image/svg+xml", "a", ""),
        ("application/pdf", "a", ""),
        ("application/xhtml+xml", "a", ""),
        ("", "a.bin", ""),
    ],
)
def test_only_what_a_browser_cannot_run_is_shown(
    database: str, stored: Stored, content_type: str, path: str, tag: str
) -> None:
    managed = put(path, b"<script>run()</script>", content_type=content_type)
    shown = administrator().get(page(ManagedResource, "change", managed.pk)).content.decode()
    assert [one for one in ("<img ", "<audio ", "<video ", "<pre ") if one in shown] == ([tag] if tag else [])
    assert "<script>run()" not in shown


def test_long_text_is_shown_as_far_as_64_kib_and_bytes_as_no_text(database: str, stored: Stored) -> None:
    client = administrator()
    long, binary = put("long", b"x" * 70_000 + b"end", content_type="text/plain"), put("a.txt", b"a\0b")
    shown = text(client.get(page(ManagedResource, "change", long.pk)))
    assert "x" * 65_536 in shown
    assert "x" * 65_537 not in shown
    assert "first 64 KiB" in shown
    assert "<pre " not in client.get(page(ManagedResource, "change", binary.pk)).content.decode()


def test_a_player_gets_the_range_it_asks_for(database: str, stored: Stored) -> None:
    sound, client = put("a", b"0123456789", content_type="audio/ogg"), administrator()
    for asked, status, content in (
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=7-99", 206, b"789"),
        ("bytes=10-", 416, b""),
        ("nonsense", 200, b"0123456789"),
    ):
        response = client.get(page(ManagedResource, "content", sound.pk), headers={"Range": asked})
        sent = response.getvalue() if response.streaming else response.content
        assert (response.status_code, sent) == (status, content)
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    html = client.get(page(ManagedResource, "content", put("b", b"<b>", content_type="text/html").pk))
    assert html["Content-Disposition"].startswith("attachment")
