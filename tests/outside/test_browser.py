"""What users upload, opened and embedded in a real browser in every way: nothing of it runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import BrowserContext, Error, Route, sync_playwright

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource
from tests import servers
from tests.browser.chromium import EXECUTABLE, PATIENCE
from tests.conftest import need
from tests.rest import api
from tests.routers import OneDatabase
from tests.stored import Stored

QUIET = ["--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

FIRE = "console.log('FIRED');"
HTML = f'<!doctype html><body onload="{FIRE}"><script>{FIRE}</script><img src=x onerror="{FIRE}">'
UPLOADS = {
    "page.html": ("text/html", HTML),
    "page.xhtml": (
        "application/xhtml+xml",
        f'<html xmlns="http://www.w3.org/1999/xhtml"><body><script>{FIRE}</script></body></html>',
    ),
    "image.svg": (
        "image/svg+xml",
        f'<svg xmlns="http://www.w3.org/2000/svg" onload="{FIRE}"><script>{FIRE}</script></svg>',
    ),
    "feed.xml": ("text/xml", f'<x xmlns:h="http://www.w3.org/1999/xhtml"><h:script>{FIRE}</h:script></x>'),
    "script.js": ("text/javascript", FIRE),
    "old.js": ("Application/X-JavaScript; charset=utf-8", FIRE),
    "gif-and-script.gif": ("image/gif", f"GIF89a=1;{FIRE}//{HTML}"),
    "gif-said-to-be-script": ("text/javascript", f"GIF89a=1;{FIRE}"),
    "text-and-page.txt": ("text/plain", HTML),
    "of-no-type": ("nonsense", HTML),
    "of-two-types": ("text/plain, text/html", HTML),
    "replaced": ("multipart/x-mixed-replace; boundary=x", f"--x\r\nContent-Type: text/html\r\n\r\n{HTML}\r\n--x--"),
}

# Has the page embed URLs in every way, and waits until each has come or failed; downloads do neither.
EMBED = """async urls => Promise.all(urls.map(async url => {
    const add = (tag, attribute, more = {}) => new Promise(done => {
        const element = Object.assign(document.createElement(tag), more);
        element.onload = element.onerror = done;
        element[attribute] = url;
        document.body.append(element);
        setTimeout(done, 700);
    });
    const worker = () => new Promise(done => {
        const worker = new Worker(url);
        worker.onerror = done;
        setTimeout(done, 700);
    });
    await Promise.all([
        add('iframe', 'src'), add('img', 'src'), add('object', 'data'), add('embed', 'src'), add('script', 'src'),
        add('script', 'src', {type: 'module'}), add('link', 'href', {rel: 'stylesheet'}), worker(),
        import(url).catch(() => null), navigator.serviceWorker.register(url).catch(() => null),
    ]);
}))"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.django_db(transaction=True, databases=["default"]),
    pytest.mark.parametrize("storage_kind", ["files"]),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need(EXECUTABLE, "Chromium")
    # Playwright runs an event loop in this thread, in which Django would refuse to use the database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with sync_playwright() as playwright:
            yield playwright.chromium.launch(executable_path=EXECUTABLE, args=QUIET, timeout=PATIENCE)
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def site(stored: Stored) -> Iterator[servers.Site]:
    with OneDatabase.using("default"), servers.site() as site:
        yield site


@pytest.fixture
def fired() -> list[str]:
    """What scripts said."""
    return []


@pytest.fixture
def context(chromium: Any, site: servers.Site, fired: list[str]) -> Iterator[BrowserContext]:
    """A browser in which somebody who may do everything is logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("root", password=api.PASSWORD))
    context: BrowserContext = chromium.new_context(accept_downloads=False)
    context.set_default_timeout(PATIENCE)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": site.url}])
    context.on("console", lambda message: fired.append(message.text) if message.text == "FIRED" else None)
    yield context
    context.close()


def urls_of(managed: ManagedResource, site: servers.Site) -> list[str]:
    """Return every URL that sends the bytes of `managed`."""
    bucket = f"/api/buckets/{managed.bucket_id}"
    with api.remote(site) as client:
        signed = client.post(f"{site.url}{bucket}/sign", json={"path": managed.path}).raise_for_status().json()["url"]
    download = reverse("admin:django_blobstore_managedresource_download", args=[managed.pk])
    by_hash = f"{bucket}/by-sha384/{managed.resource.sha384}"
    return [signed, *(site.url + path for path in (f"{bucket}/objects/{managed.path}", by_hash, download))]


def bare(content_type: str, text: str, route: Route) -> None:
    """Answer with nothing but the type and the text."""
    route.fulfill(body=text, headers={"Content-Type": content_type})


def try_everything(context: BrowserContext, home: str, *urls: str, until: Callable[[], object] = lambda: True) -> None:
    """Open each of `urls`, then embed all of them in a page of their own site, and wait `until` something happened."""
    page = context.new_page()
    for url in urls:
        with contextlib.suppress(Error):  # a download is no page
            page.goto(url)
    page.goto(home)
    page.evaluate(EMBED, list(urls))
    deadline = time.monotonic() + PATIENCE / 1000
    while not until() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    page.close()


def test_nothing_that_was_uploaded_runs(context: BrowserContext, site: servers.Site, fired: list[str]) -> None:
    for name, (content_type, text) in UPLOADS.items():
        managed = ManagedStorage().put(Namespace(bucket="site"), name, text.encode(), content_type=content_type)
        urls = urls_of(managed, site)
        assert [context.request.get(url, timeout=PATIENCE).text() for url in urls] == [text] * 4
        try_everything(context, f"{site.url}/admin/", *urls)
        assert (name, fired) == (name, [])


def test_the_same_would_run_without_our_headers(context: BrowserContext, site: servers.Site, fired: list[str]) -> None:
    for name in ("page.html", "page.xhtml", "image.svg", "script.js"):
        content_type, text = UPLOADS[name]
        context.route(f"**/{name}", partial(bare, content_type, text))
        try_everything(context, f"{site.url}/admin/", f"{site.url}/{name}", until=lambda: fired)
        assert fired, name
        fired.clear()
