"""The admin in a real browser, under a Content-Security-Policy that allows nothing inline."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from django_blobstore.admin.base import StoreAdmin
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Resource
from tests.browser import chromium
from tests.conftest import need
from tests.invariants import assert_settled
from tests.routers import OneDatabase
from tests.stored import Stored

STRICT = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default"]),
    pytest.mark.parametrize("storage_kind", ["gridfs"]),
]


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that gives each page the strictest policy, unless it has one."""

    def respond(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", STRICT)
        return response

    return respond


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need(chromium.EXECUTABLE, "Chromium")
    # Playwright runs an event loop in this thread, in which Django would refuse to use the database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            yield chromium.launch(playwright)
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of: errors, and what the policy made it refuse."""
    return []


@pytest.fixture
def admin(
    browser: Any, live_server: LiveServer, stored: Stored, settings: Settings, complaints: list[str]
) -> Iterator[Page]:
    """A page of the admin's index, opened by somebody who may do everything."""
    settings.MIDDLEWARE = ["tests.test_admin_browser.strict_policy", *settings.MIDDLEWARE]
    User.objects.create_superuser("root", password="open sesame")
    with OneDatabase.using("default"):
        context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        context.set_default_timeout(chromium.PATIENCE)
        # Every browser asks for this; the site under test has none.
        context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{live_server.url}/admin/")
        page.fill("#id_username", "root")
        page.fill("#id_password", "open sesame")
        with page.expect_navigation():
            page.click("[type=submit]")
        yield page
        context.close()


def put(path: str, content: bytes, content_type: str = "", bucket: str = "photos") -> ManagedResource:
    return ManagedStorage().put(Namespace(bucket=bucket), path, content, content_type=content_type)


def test_from_a_bucket_to_its_object_its_bytes_and_its_content(
    admin: Page, complaints: list[str], tmp_path: Path
) -> None:
    put("site/index.html", b"<script>document.title = 'run'</script>", "text/html")
    put("site/copy.html", b"<script>document.title = 'run'</script>", "text/html", bucket="backups")
    admin.click("a:text-is('Buckets')")
    admin.click("tr:has-text('photos') .field-object_count a")
    admin.click("a:text-is('site/index.html')")
    with admin.expect_download() as downloading:
        admin.click("a:text-is('Download')")
    assert downloading.value.suggested_filename == "index.html"
    assert Path(downloading.value.path()).read_bytes() == b"<script>document.title = 'run'</script>"
    assert "index.html" in admin.title()
    admin.click(".field-resource_link a")
    references = admin.locator(".field-references tbody th")
    expect(references).to_have_text(["site/copy.html", "site/index.html"])
    assert complaints == []


def test_selected_objects_are_deleted_after_a_page_that_says_what_is_freed(
    admin: Page, complaints: list[str], stored: Stored
) -> None:
    put("a", b"shared" * 1000)
    put("b", b"shared" * 1000)
    put("c", b"kept")
    admin.click("a:text-is('Objects')")
    for path in "ab":
        admin.check(f"tr:has(th a:text-is('{path}')) [type=checkbox]")
    admin.select_option("select[name=action]", "delete_selected")
    admin.click("button[name=index]")
    expect(admin.locator("#content")).to_contain_text("Contents without a reference left")
    expect(admin.locator("#content")).to_contain_text("5.9 KB")
    admin.click("#content [type=submit]")
    expect(admin.locator(".blobstore-figures")).to_contain_text("Objects deleted")
    assert list(ManagedResource.objects.values_list("path", flat=True)) == ["c"]
    assert Resource.objects.get().reference_count == 1
    assert complaints == []
    assert_settled(stored)


def test_a_bucket_is_added_and_a_full_one_deleted(admin: Page, complaints: list[str], stored: Stored) -> None:
    put("a", b"1")
    put("b", b"2")
    admin.click("a:text-is('Buckets')")
    admin.click(".addlink:has-text('Add bucket')")
    admin.fill("#id_name", "fresh")
    admin.click("[name=_save]")
    expect(admin.locator("#result_list .field-label")).to_have_text(["fresh", "photos"])
    admin.click("a:text-is('photos')")
    admin.click(".deletelink")
    expect(admin.locator(".blobstore-figures div:has-text('Objects') dd")).to_have_text("2")
    admin.click("#content [type=submit]")
    admin.click("#content a:text-is('Back')")
    expect(admin.locator("#result_list .field-label")).to_have_text(["fresh"])
    assert [bucket.name for bucket in Bucket.objects.all()] == ["fresh"]
    assert complaints == []
    assert_settled(stored)


def test_pages_are_turned_by_keyboard_and_all_of_them_selected(
    admin: Page, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoreAdmin, "list_per_page", 2)
    for path in "abcde":
        put(path, b"x")
    admin.click("a:text-is('Buckets')")
    admin.click("tr:has-text('photos') .field-object_count a")
    paths = admin.locator("#result_list .field-path")
    for label, shown in (("Next", "cd"), ("Last", "de"), ("Previous", "bc"), ("First", "ab")):
        admin.focus(f".paginator a:text-is('{label}')")
        admin.keyboard.press("Enter")
        expect(paths).to_have_text(list(shown))
    admin.goto(re.sub(r"\?.*", "", admin.url))
    admin.check("#action-toggle")
    admin.click("a:text-is('Select all objects on all pages')")
    expect(admin.locator(".actions .all")).to_be_visible()
    admin.select_option("select[name=action]", "delete_selected")
    admin.click("button[name=index]")
    expect(admin.locator(".blobstore-figures div:has-text('Objects') dd")).to_have_text("5")
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_hash_or_path_runs_out_of_its_page(admin: Page, complaints: list[str], scheme: str) -> None:
    managed = put("folder/" + "long" * 200, b"x")
    admin.emulate_media(color_scheme=scheme)
    for link in ("Objects", "Contents"):
        admin.goto(re.sub("/admin/.*", "/admin/", admin.url))
        admin.click(f"#content a:text-is('{link}')")
        admin.click("#result_list tbody th a")
        expect(admin.locator("#content")).to_contain_text(managed.resource.sha384)
        admin.wait_for_load_state()
        fields = "[...document.querySelectorAll('.readonly, .blobstore-facts td')]"
        edges = f"{fields}.map(field => field.getBoundingClientRect().right)"
        assert max(admin.evaluate(edges)) < 1280
    assert complaints == []
