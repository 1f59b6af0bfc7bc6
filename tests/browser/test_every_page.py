"""Every page of the admin in a real browser: under a strict policy, for a screen reader, in light and dark.

Each is seen in English and light on a desk, and in German and dark on a telephone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page

from tests.browser import chromium
from tests.browser.samples import PAGES, fill
from tests.servers import Site

TELEPHONE = {"width": 390, "height": 780}
# What may be wrong there though it is right on a desk.
ON_A_TELEPHONE = (*chromium.OF_COLOURS, "scrollable-region-focusable")
PARTS = 3
BROKEN = """<p style="color: #fefefe">pale</p><img src="http://127.0.0.2/elsewhere.png"><img src="/none.png">"""


@pytest.fixture
def filled(site: Site) -> None:
    fill()


@pytest.fixture
def telephone(browser: Browser, site: Site, root: User, complaints: list[str]) -> Iterator[Page]:
    """A page on a telephone that is set to German and to dark."""
    settings: Any = {"locale": "de-DE", "scheme": "dark", "viewport": TELEPHONE}
    with chromium.visiting(browser, site.url, root, complaints, **settings) as context:
        yield context.new_page()


# To fill the store takes longer than to look at a page.
@pytest.mark.parametrize("names", [list(PAGES)[part::PARTS] for part in range(PARTS)], ids=range(PARTS))
def test_every_page_is_accessible_and_breaks_no_policy(
    filled: None,
    page: Page,
    telephone: Page,
    names: list[str],
    complaints: list[str],
    axe: str,
) -> None:
    for name in names:
        for shown, rules, language in ((page, (), "en"), (telephone, ON_A_TELEPHONE, "de")):
            answer = shown.goto(PAGES[name]())
            assert answer, name
            assert (answer.status, shown.get_attribute("html", "lang")) == (200, language), name
            assert shown.evaluate(chromium.WIDER_THAN_THE_WINDOW) == 0, (name, language)
            assert chromium.violations(shown, axe, *rules) == [], (name, language)
            assert complaints == [], (name, language)


def test_what_must_not_be_is_noticed(browser: Browser, site: Site, root: User, axe: str, complaints: list[str]) -> None:
    with chromium.visiting(browser, site.url, root, complaints) as context:
        page = context.new_page()
        page.goto("/admin/")
        page.evaluate("html => document.querySelector('#content').insertAdjacentHTML('beforeend', html)", BROKEN)
        page.wait_for_load_state("networkidle")
        assert {found.partition(" ")[0] for found in chromium.violations(page, axe)} == {"image-alt"}
        with context.expect_event("weberror"):
            page.evaluate("() => { setTimeout(() => undefined.x) }")
    for told in ("policy: style-src-attr", "policy: img-src", "404", "Cannot read properties of undefined"):
        assert any(told in complaint for complaint in complaints), told
