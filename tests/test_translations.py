"""The German catalogue: that it has every text of the package, translated, and is compiled as it is written."""

from __future__ import annotations

import gettext
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation
from pytest_django import Settings

import django_blobstore
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, Measurement, PendingFile, PutRequest, Resource, UpkeepRun
from django_blobstore.upkeep import audit, measure, scrub, sweep
from tests.admin_pages import page
from tests.conftest import need
from tests.stored import Stored

PACKAGE = Path(django_blobstore.__file__).parent
MESSAGES = Path("locale", "de", "LC_MESSAGES")
WRITTEN, COMPILED = PACKAGE / MESSAGES / "django.po", PACKAGE / MESSAGES / "django.mo"
HOW_TO = "In django_blobstore/, run: django-admin makemessages -l de --no-location, then compilemessages -l de."


@pytest.fixture
def tools() -> None:
    need(shutil.which("xgettext") and shutil.which("msgfmt"), "gettext")


def entries(text: str) -> dict[str, str]:
    """Return each entry of a .po file that is in use, by its context and text."""
    found = {}
    for entry in text.split("\n\n"):
        lines = [line for line in entry.splitlines() if not line.startswith("#")]
        key, _, _ = "\n".join(lines).partition("\nmsgstr")
        if lines:
            found["".join(re.findall(r'^msgctxt|^msgid_plural|"(.*)"', key, re.MULTILINE))] = entry
    return found


def run(*command: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_every_text_of_the_package_is_in_the_catalogue_and_no_other(tools: None, tmp_path: Path) -> None:
    copy = tmp_path / "django_blobstore"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.mo"))
    make = ("-P", "-m", "django", "makemessages", "--locale=de", "--no-location", "--no-obsolete")
    run(sys.executable, *make, cwd=copy)
    fresh, kept = entries((copy / MESSAGES / "django.po").read_text()), entries(WRITTEN.read_text())
    assert set(fresh) - set(kept) == set(), HOW_TO
    assert set(kept) - set(fresh) == set(), HOW_TO
    assert len(kept) > 300


def test_every_text_is_translated_and_none_is_a_guess(tools: None, tmp_path: Path) -> None:
    told = run(
        "msgfmt", "--check", "--statistics", f"--output-file={tmp_path / 'django.mo'}", str(WRITTEN), cwd=PACKAGE
    )
    assert re.fullmatch(r"\d+ translated messages\.", told.strip()), told
    assert "fuzzy" not in WRITTEN.read_text()


def test_the_compiled_catalogue_is_that_which_is_written(tools: None, tmp_path: Path) -> None:
    run("msgfmt", f"--output-file={tmp_path / 'django.mo'}", str(WRITTEN), cwd=PACKAGE)
    with open(tmp_path / "django.mo", "rb") as fresh, COMPILED.open("rb") as kept:
        assert vars(gettext.GNUTranslations(fresh))["_catalog"] == vars(gettext.GNUTranslations(kept))["_catalog"], (
            HOW_TO
        )


def test_names_and_numbers_are_those_of_the_language() -> None:
    with translation.override("de"):
        assert str(Bucket._meta.verbose_name_plural) == "Buckets"
        assert str(PendingFile._meta.verbose_name_plural) == "schwebende Dateien"
        assert str(UpkeepRun(kind="sweep", pk=7)) == "Aufräumen 7"
    assert str(PendingFile._meta.verbose_name_plural) == "pending files"


@pytest.mark.parametrize("storage_kind", ["files"])
@pytest.mark.django_db(transaction=True)
def test_every_page_of_the_admin_speaks_german(stored: Stored, settings: Settings) -> None:
    settings.LANGUAGE_CODE = "de"
    managed = ManagedStorage().put(Namespace(bucket="photos"), "a/b.txt", b"content")
    measure(), sweep(), audit(), scrub()
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    lists = (Bucket, ManagedResource, Resource, PutRequest, PendingFile, Measurement, UpkeepRun)
    rows = (managed, managed.bucket, managed.resource, UpkeepRun.objects.get(kind="audit"))
    addresses = [page(model, "changelist") for model in lists]
    addresses += [page(type(row), "change", row.pk) for row in rows]
    addresses += [
        reverse("admin:django_blobstore_managedresource_browse"),
        page(Measurement, "bucket", managed.bucket_id),
    ]
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200, address
        assert 'lang="de"' in response.content.decode()
    shown = client.get(page(Measurement, "changelist")).content.decode()
    for text in ("Was gespeichert ist", "Größte Objekte", "Beschädigte Inhalte prüfen", "noch 6\xa0Tage"):
        assert text in shown
