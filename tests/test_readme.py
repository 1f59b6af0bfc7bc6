"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.files.storage.handler import StorageHandler
from django.core.management import get_commands
from django.utils.module_loading import import_string
from pytest_django import Settings

from django_blobstore.checks import check_settings
from django_blobstore.models import ManagedResource, Resource
from tests import servers
from tests.conftest import need
from tests.stored import Stored

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block_with(language: str, text: str) -> str:
    (found,) = [block for block in blocks(language) if text in block]
    return found


def run(*code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_settings_name_apps_and_storages_that_exist() -> None:
    names = run(block_with("python", "INSTALLED_APPS"))
    for app in names["INSTALLED_APPS"]:
        import_string(f"{app}.apps")
    handler = StorageHandler(names["STORAGES"])
    assert type(handler["blobstore"]).__name__ == "GridFSStorage"


def test_the_storages_for_filefields_are_a_bucket_and_plain_files() -> None:
    names = run(block_with("python", "BlobStorage"))
    handler = StorageHandler(names["STORAGES"])
    assert {alias: type(handler[alias]).__name__ for alias in names["STORAGES"]} == {
        "default": "BlobStorage",
        "blobstore": "FileSystemStorage",
        "staticfiles": "StaticFilesStorage",
    }


def test_the_python_examples_store_one_content_and_prove_access_to_it(
    database: str, stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    run(block_with("python", "storage = ManagedStorage()"), block_with("python", "import answer"))
    assert "All is well." in capsys.readouterr().out
    resource = Resource.objects.get()
    assert resource.reference_count == 2
    paths = ManagedResource.objects.order_by("bucket__name").values_list("bucket__name", "path")
    assert list(paths) == [("archive", "copy.txt"), ("reports", "2026/january.txt")]
    assert stored.names() == {resource.path}


def test_the_asynchronous_example_copies_an_object(database: str, stored: Stored) -> None:
    run(block_with("python", "storage = ManagedStorage()"), block_with("python", "asyncio.run"))
    assert ManagedResource.objects.get(user="ann").path == "2026/january.txt"
    assert Resource.objects.get().reference_count == 2
    assert stored.names() == {Resource.objects.get().path}


def test_the_urls_mount_the_rest_interface() -> None:
    (pattern,) = run(block_with("python", "urlpatterns"))["urlpatterns"]
    assert pattern.app_name == "blobstore"


@pytest.mark.parametrize("storage_kind", ["files"])
def test_the_curl_lines_work_as_they_stand(database: str, stored: Stored) -> None:
    need(shutil.which("curl"), "curl")
    get_user_model().objects.create_superuser("admin", password="blobstore-demo")
    with servers.site() as site:
        script = block_with("bash", "curl").replace("http://127.0.0.1:8000", site.url)
        done = subprocess.run(["bash", "-ec", script], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert '"docs/readme.md"' in done.stdout
    assert README[:18] in done.stdout
    assert not ManagedResource.objects.exists()


def test_the_settings_shown_are_settings(settings: Settings) -> None:
    settings.BLOBSTORE = run(block_with("python", "BLOBSTORE = "))["BLOBSTORE"]
    assert not check_settings()


def test_every_command_is_there() -> None:
    assert set(re.findall(r"manage\.py (\w+)", README)) - {"demo"} <= set(get_commands())


def links(page: Path) -> list[tuple[str, str]]:
    """Return the file, or "", and the section, or "", of each link of a page that stays in the repository."""
    return re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text())


def sections(page: Path) -> set[str]:
    """Return the names by which sections of a page are linked."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_into_the_repository_leads_somewhere(page: Path) -> None:
    for file, section in links(page):
        target = page.parent / file if file else page
        assert target.exists(), file
        assert not section or section in sections(target), f"{file}#{section}"


def test_the_readme_leads_to_every_page() -> None:
    found: set[Path] = set()
    pages = {ROOT / "README.md"}
    while pages:
        found |= pages
        targets = {(page.parent / file).resolve() for page in pages for file, _ in links(page) if file.endswith(".md")}
        pages = targets - found
    assert set((ROOT / "docs").glob("*.md")) <= found
