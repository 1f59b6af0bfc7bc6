"""A real Chromium, the pages somebody opens in it, and what it complains of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

# The first is the same browser without windows of its own, which takes a third of the time.
EXECUTABLE = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), "")
QUIET = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name of this machine that, unlike its number, browsers take for a page from elsewhere that came unencrypted.
    "--host-resolver-rules=MAP insecure.test 127.0.0.1",
]
# Nothing is to depend on how quick a machine is: what is expected or waited for may take long to come.
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)
Scheme = Literal["light", "dark"]
# The rules of axe-core whose outcome depends on colours.
OF_COLOURS = ("color-contrast", "link-in-text-block")

# Violations of the policy are told to the page itself; most, but not all, are in the console too.
TELL_OF_VIOLATIONS = """addEventListener("securitypolicyviolation", event =>
    console.error(`policy: ${event.effectiveDirective} refused ${event.blockedURI}`))"""

# By how many pixels a page must be pushed sideways to see all of it.
WIDER_THAN_THE_WINDOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

# After a change of the colour scheme.
ONCE_COLOURS_HAVE_FADED = "Promise.all(document.getAnimations().map(animation => animation.finished))"


def launch(playwright: Playwright) -> Browser:
    """Start Chromium, which must be there: see `EXECUTABLE`."""
    return playwright.chromium.launch(executable_path=EXECUTABLE, args=QUIET)


@contextmanager
def visiting(
    browser: Browser, url: str, user: User, complaints: list[str], *, scheme: Scheme = "light", **options: Any
) -> Iterator[BrowserContext]:
    """Yield a context of `browser` in which `user` is logged in at the site `url`.

    Whatever its pages complain of is added to `complaints`: errors of theirs, in the console and of the policy.
    `options` are further ones of Playwright's new_context.
    """
    client = Client()
    client.force_login(user)
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(base_url=url, color_scheme=scheme, **options)
    context.set_default_timeout(PATIENCE)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": url}])
    # Every browser asks for this; the site under test has none.
    context.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    context.add_init_script(TELL_OF_VIOLATIONS)
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    try:
        yield context
    finally:
        context.close()


def violations(page: Page, axe: str, *rules: str) -> list[str]:
    """Return what axe-core, whose source is `axe`, finds on `page` that is serious or critical, by `rules` or by all.

    It gets there by the protocol for debuggers, for which the policy of the page does not hold.
    """
    page.evaluate(f"() => {{ {axe} }}")
    # Without preloading: it would make style elements, which the policy refuses.
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate("options => axe.run(options)", options)
    return [
        f"{violation['id']} ({violation['impact']}): {node['html']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
