"""Every page of the admin in a real browser: under a strict policy, for a screen reader, in light and dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page

from tests.browser import chromium
from tests.browser.samples import PAGES, fill
from tests.servers import Site

DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 780}
PARTS = 3
BROKEN = """<p style="color: #fefefe">pale</p><img src="http://127.0.0.2/elsewhere.png"><img src="/none.png">"""


@pytest.fixture
def filled(site: Site) -> None:
    fill()


# To fill the store takes longer than to look at a page.
@pytest.mark.parametrize("names", [list(PAGES)[part::PARTS] for part in range(PARTS)], ids=range(PARTS))
def test_every_page_is_accessible_and_breaks_no_policy(
    filled: None,
    page: Page,
    names: list[str],
    complaints: list[str],
    axe: str,
    assert_accessible: Callable[[Page], None],
) -> None:
    for name in names:
        page.set_viewport_size(DESK)
        answer = page.goto(PAGES[name]())
        assert answer, name
        assert answer.status == 200, name
        assert page.evaluate(chromium.WIDER_THAN_THE_WINDOW) == 0, name
        assert_accessible(page)
        page.set_viewport_size(TELEPHONE)
        assert page.evaluate(chromium.WIDER_THAN_THE_WINDOW) == 0, f"{name}, on a telephone"
        assert chromium.violations(page, axe, "scrollable-region-focusable") == [], f"{name}, on a telephone"
        assert complaints == [], name


def test_what_must_not_be_is_noticed(browser: Browser, site: Site, root: User, axe: str, complaints: list[str]) -> None:
    with chromium.visiting(browser, site.url, root, complaints) as context:
        page = context.new_page()
        page.goto("/admin/")
        page.evaluate("html => document.querySelector('#content').insertAdjacentHTML('beforeend', html)", BROKEN)
        page.wait_for_load_state("networkidle")
        assert {found.partition(" ")[0] for found in chromium.violations(page, axe)} == {"image-alt"}
        with page.expect_event("pageerror"):
            page.evaluate("() => { setTimeout(() => undefined.x) }")
    for told in ("policy: style-src-attr", "policy: img-src", "404", "Cannot read properties of undefined"):
        assert any(told in complaint for complaint in complaints), told
