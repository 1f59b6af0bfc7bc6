"""Upkeep begun from the admin in a real browser: with its script, and without any."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, expect

from django_blobstore.models import Measurement, Resource, UpkeepRun
from tests.browser import chromium
from tests.browser.samples import admin_url, fill
from tests.servers import Site


def test_a_scrub_begun_on_the_dashboard_goes_on_by_itself_and_says_what_it_read(
    page: Page, assert_accessible: Callable[[Page], None]
) -> None:
    fill()
    Resource.objects.update(verified_at=None)
    page.goto(admin_url(Measurement, "changelist"))
    page.get_by_role("button", name="Scrub").click()
    expect(page.get_by_role("status")).to_contain_text("It took")
    expect(page.locator("dl.blobstore-figures")).to_contain_text("Contents compared")
    assert not Resource.objects.filter(verified_at=None).exists()
    assert_accessible(page)


def test_the_page_of_a_run_that_has_begun_is_accessible(page: Page, assert_accessible: Callable[[Page], None]) -> None:
    run = UpkeepRun.objects.create(kind="audit", origin="task", stage="contents", done=5, total=10)
    page.goto(admin_url(UpkeepRun, "change", run.pk))
    expect(page.locator("[data-blobstore-told]")).to_contain_text("contents: 5 of 10")
    assert_accessible(page)


def test_without_scripts_a_run_goes_on_by_a_button(
    browser: Browser, site: Site, root: User, complaints: list[str]
) -> None:
    fill()
    with chromium.visiting(browser, site.url, root, complaints, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(admin_url(UpkeepRun, "changelist"))
        page.get_by_role("button", name="Audit", exact=True).click()
        expect(page.locator("[data-blobstore-told]")).to_contain_text("It begins.")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("[data-blobstore-told]")).to_contain_text("It took")
    assert complaints == []
