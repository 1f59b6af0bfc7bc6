"""Makes the pictures of docs/admin.md: ``python -m tests.browser.screenshots [NAME …]``.

Each page is shown as the tests visit it: on a running server, with the demo's content in GridFS. The totals of some
weeks are made up, so that there is growth to be seen.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import django

# Before anything is imported that needs them; Playwright has an event loop beside which Django must make queries.
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.settings"
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import override_settings  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from example_project.mongod import Mongod  # noqa: E402
from example_project.samples import noise  # noqa: E402
from tests import servers, settings  # noqa: E402
from tests.browser import chromium  # noqa: E402
from tests.browser.samples import PAGES, fill  # noqa: E402
from tests.stored import ALIAS, in_gridfs  # noqa: E402

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SCHEMES: tuple[chromium.Scheme, ...] = ("light", "dark")
WIDTH, HEIGHT = 1120, 720
MOST_BYTES = 60_000


def upload(page: Page, files: Path) -> None:
    """Show the browser after a few files were dropped: one that was new, one that was there, one too many."""
    page.goto(PAGES["browser"]())
    page.set_input_files("[data-part=files]", sorted(files.iterdir()))
    expect(page.locator("[data-blobstore-upload]")).to_have_attribute("data-state", "over")


def shown(name: str) -> Callable[[Page, Path], None]:
    return lambda page, files: page.goto(PAGES[name]()) and None


# What each picture shows, by the name of its files.
PICTURES: dict[str, Callable[[Page, Path], None]] = {
    "browser": shown("folder"),
    "object": shown("object"),
    "resource": shown("resource"),
    "dashboard": shown("dashboard"),
    "delete": shown("delete bucket"),
    "upload": upload,
}


def main(names: list[str]) -> None:
    """Take the pictures called `names`, or all of them."""
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as running:
        url, user, files = running.enter_context(_site())
        browser = chromium.launch(running.enter_context(sync_playwright()))
        for name in names or PICTURES:
            _take(browser, url, user, files, name)


def _take(browser: Browser, url: str, user: User, files: Path, name: str) -> None:
    complaints: list[str] = []
    with chromium.visiting(browser, url, user, complaints, viewport={"width": WIDTH, "height": HEIGHT}) as context:
        page = context.new_page()
        PICTURES[name](page, files)
        page.wait_for_load_state("networkidle")
        for scheme in SCHEMES:
            path = IMAGES / f"{name}-{scheme}.png"
            page.emulate_media(color_scheme=scheme)
            page.evaluate(chromium.ONCE_COLOURS_HAVE_FADED)
            page.screenshot(path=path)
            _shrink(path)
            print(f"{path.name}: {path.stat().st_size} bytes")
            assert path.stat().st_size < MOST_BYTES
    assert complaints == [], complaints


def _shrink(path: Path) -> None:
    """Keep no more colours than fit into a byte: a page has few, and its picture takes a third."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


@contextmanager
def _site() -> Iterator[tuple[str, User, Path]]:
    """Run the site with content; yield its URL, somebody who may do everything, and a folder of files to upload."""
    settings.TEST_DIRECTORY.mkdir()
    try:
        with ExitStack() as running:
            mongod = running.enter_context(Mongod(settings.TEST_DIRECTORY / "mongod"))
            kept = {**settings.STORAGES, ALIAS: running.enter_context(in_gridfs(mongod.uri)).options}
            running.enter_context(override_settings(STORAGES=kept))
            call_command("migrate", verbosity=0)
            fill()
            user = User.objects.create_superuser("root")
            site = running.enter_context(
                servers.site(servers.GUNICORN, env={"DJANGO_SETTINGS_MODULE": os.environ["DJANGO_SETTINGS_MODULE"]})
            )
            yield site.url, user, _files(Path(running.enter_context(TemporaryDirectory())))
    finally:
        connection.close()
        shutil.rmtree(settings.TEST_DIRECTORY)


def _files(folder: Path) -> Path:
    contents = {"database.dump": noise(3_000_000, seed=1), "lake.raw": noise(400_000, seed=7), "notes.txt": b"Notes.\n"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
