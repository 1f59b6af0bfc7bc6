"""Each setting: its default, what it takes, and that it is read when it is used."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

import django_blobstore
from django_blobstore.conf import KNOWN, conf
from docs.settings_page import MEANINGS, PAGE, page

FILES = {"BACKEND": "django.core.files.storage.FileSystemStorage"}

DEFAULTS: dict[str, Any] = {
    "STORAGE": "blobstore",
    "DEDUP_SCOPE": "global",
    "GRANTED_BUCKETS": "",
    "PROOF_PROTOCOL": "hmac",
    "PROOF_SCOPE": "global",
    "PROOF_LIFETIME": 60,
    "DELETION_GRACE": 300,
    "LEASE": 600,
    "UPLOAD_LIFETIME": 86400,
    "UPKEEP_EVERY": {"sweep": 600, "scrub": 86400, "audit": 604800},
    "SIGNED_URL_LIFETIME": 604800,
    "MAX_LENGTH": None,
    "SERVE_METHOD": "stream",
    "SERVE_LOCATION": {},
    "CONTENT_HOST": "",
}

TAKEN: dict[str, list[Any]] = {
    "STORAGE": ["default", "blobs"],
    "DEDUP_SCOPE": ["global", "owner", "bucket", "project.tenants.scope"],
    "GRANTED_BUCKETS": ["", "project.permissions.buckets_granted"],
    "PROOF_PROTOCOL": ["hmac", "seed"],
    "PROOF_SCOPE": ["global", "readable", "off"],
    "PROOF_LIFETIME": [1, 0.5],
    "DELETION_GRACE": [0, 0.5, 86400],
    "LEASE": [1, 0.5],
    "UPLOAD_LIFETIME": [1, 0.5],
    "UPKEEP_EVERY": [{}, {"sweep": 60, "scrub": 0.5}],
    "SIGNED_URL_LIFETIME": [1, 0.5],
    "MAX_LENGTH": [None, 0, 2**40],
    "SERVE_METHOD": ["stream", "redirect", "x-accel", "x-sendfile"],
    "SERVE_LOCATION": [{}, {"blobstore": "/kept/", "old": "/"}],
    "CONTENT_HOST": ["", "https://content.example.net", "http://127.0.0.1:8001"],
}

REFUSED: dict[str, list[Any]] = {
    "STORAGE": [None, 1],
    "DEDUP_SCOPE": ["", "tenant", None, len],
    "GRANTED_BUCKETS": ["guess", None, len],
    "PROOF_PROTOCOL": ["HMAC", None, ["hmac"]],
    "PROOF_SCOPE": ["", None, True],
    "PROOF_LIFETIME": [0, -1, None, "60", True],
    "DELETION_GRACE": [-1, None, "300", False, inf],
    "LEASE": [0, -1, None, "600", True, inf],
    "UPLOAD_LIFETIME": [0, -1, None, "86400", True],
    "UPKEEP_EVERY": [None, 60, {"verify": 60}, {"sweep": -1}, {"sweep": "60"}, {"sweep": None}],
    "SIGNED_URL_LIFETIME": [0, -1, None, "604800", True],
    "MAX_LENGTH": [-1, 1.5, "1 MB", True],
    "SERVE_METHOD": ["X-Accel-Redirect", None],
    "SERVE_LOCATION": ["/kept/", None, {"blobstore": "kept/"}, {"blobstore": "/kept"}, {"blobstore": None}, {1: "/"}],
    "CONTENT_HOST": [None, "content.example.net", "https://content.example.net/", "ftp://x", "https://a b", "https://"],
}


def pairs(values: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={value!r}") for name in values for value in values[name]]


def test_these_tests_speak_of_every_setting() -> None:
    assert set(DEFAULTS) == set(TAKEN) == set(REFUSED) == set(KNOWN)


@pytest.mark.parametrize("name", list(DEFAULTS))
def test_a_setting_left_out_has_its_default(settings: Settings, name: str) -> None:
    settings.BLOBSTORE = {}
    assert getattr(conf, name) == DEFAULTS[name]


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "STORAGE"])
def test_every_default_is_a_value_that_may_be_given(name: str) -> None:
    assert KNOWN[name].accepts(DEFAULTS[name])


def test_without_a_dict_at_all_there_are_defaults(settings: Settings) -> None:
    del settings.BLOBSTORE
    assert not hasattr(django_settings, "BLOBSTORE")
    assert conf.LEASE == 600


@pytest.mark.parametrize(("name", "value"), pairs(TAKEN))
def test_a_setting_gives_back_a_good_value(settings: Settings, name: str, value: Any) -> None:
    settings.BLOBSTORE = {name: value}
    assert KNOWN[name].accepts(value)
    assert getattr(conf, name) == value


@pytest.mark.parametrize(("name", "value"), pairs(REFUSED))
def test_a_setting_refuses_a_bad_value(name: str, value: Any) -> None:
    assert not KNOWN[name].accepts(value)


def test_a_setting_is_read_at_each_access(settings: Settings) -> None:
    settings.BLOBSTORE = {"LEASE": 5}
    assert conf.LEASE == 5
    settings.BLOBSTORE["LEASE"] = 6
    assert conf.LEASE == 6


def test_the_storage_is_default_where_there_is_no_blobstore(settings: Settings) -> None:
    settings.STORAGES = {"default": FILES}
    assert conf.STORAGE == "default"


def test_every_setting_says_what_it_means_in_sentences() -> None:
    assert all(setting.meaning.endswith(".") for setting in KNOWN.values())


def test_the_page_on_settings_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == page(), "Run: python -m docs.settings_page"


def test_the_page_on_settings_tells_type_default_and_values_of_each() -> None:
    told = PAGE.read_text()
    for name, setting in KNOWN.items():
        section = told.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert all(f"- {what}: " in section for what in ("Type", "Default", "Value"))
        assert setting.expects in section
    assert "- Type: `int | None`" in told
    assert "- Type: `Mapping[str, float]`" in told


def test_the_page_on_settings_tells_what_each_check_means() -> None:
    package = Path(django_blobstore.__file__).parent
    used = {id for path in package.rglob("*.py") for id in re.findall(r"\"blobstore\.([EW]\d{3})\"", path.read_text())}
    assert used == set(MEANINGS)
