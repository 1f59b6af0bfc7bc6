"""A running site, a browser that visits it, and a page in which somebody who may do everything is logged in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django import Settings

from tests import servers
from tests.browser import chromium
from tests.conftest import DATABASES, need
from tests.outside import node_clients
from tests.routers import OneDatabase
from tests.settings import HAS_POSTGRESQL
from tests.stored import Stored, used_by_all

HERE = Path(__file__).parent
DATABASE = "postgresql" if HAS_POSTGRESQL else "sqlite"
UNDER_A_POLICY = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings"}


@pytest.fixture(
    params=[pytest.param(DATABASE, marks=pytest.mark.django_db(transaction=True, databases=[DATABASES[DATABASE]]))]
)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The one database that these tests need."""
    with OneDatabase.using(DATABASES[request.param]) as alias:
        yield alias


@pytest.fixture
def stored(kept_gridfs: Stored, settings: Settings) -> Iterator[Stored]:
    """The storage that the site has, empty before each test."""
    with used_by_all(kept_gridfs, settings) as stored:
        yield stored


@pytest.fixture(scope="session")
def kept_site() -> Iterator[Callable[[str], servers.Site]]:
    """Return the one site of a deployment; it stays, since it takes a second to start."""
    with servers.kept(lambda: servers.site(servers.GUNICORN, env=UNDER_A_POLICY)) as start:
        yield start


@pytest.fixture
def site(database: str, stored: Stored, kept_site: Callable[[str], servers.Site]) -> servers.Site:
    """The admin and the REST interface on a running server, under a strict policy."""
    return kept_site(servers.deployment())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: the tests of others must not find the event loop that it runs in this thread."""
    need(chromium.EXECUTABLE, "Chromium")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        # In a thread with an event loop Django would refuse to use the database.
        patch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield chromium.launch(playwright)


@pytest.fixture
def root(database: str) -> User:
    """Somebody who may do everything."""
    return User.objects.create_superuser("root")


@pytest.fixture
def complaints() -> list[str]:
    """What the pages complained of; a test that provokes an error takes it out of here."""
    return []


@pytest.fixture
def context(browser: Browser, site: servers.Site, root: User, complaints: list[str]) -> Iterator[BrowserContext]:
    """The browser with `root` logged in. Fails the test if any page has complained."""
    with chromium.visiting(browser, site.url, root, complaints) as context:
        yield context
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of `context`, empty at first; URLs are relative to the site."""
    return context.new_page()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    need(node_clients.available(), "Node with npm")
    return (node_clients.install(HERE) / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def assert_accessible(axe: str) -> Callable[[Page], None]:
    """A function that fails if axe-core finds anything serious or critical on a page, in light or in dark."""

    def check(page: Page) -> None:
        found = chromium.violations(page, axe)
        page.emulate_media(color_scheme="dark")
        page.evaluate(chromium.ONCE_COLOURS_HAVE_FADED)
        found += [f"in dark, {violation}" for violation in chromium.violations(page, axe, *chromium.OF_COLOURS)]
        page.emulate_media(color_scheme="light")
        assert not found, "\n".join([page.url, *found])

    return check
