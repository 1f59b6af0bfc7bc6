"""What ``check`` can tell of a project's own storages and apps that would not get on with the store.

E020 the store's bytes would lie in a BlobStorage; W020 django-cleanup beside it, W023 an option of the storage that
breaks or slows the store, W024 a BlobStorage whose files have no URL. A `BlobField` says of itself W021, that its
storage knows no transactions, and W022, that its rows are not in the catalog's database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage, storages

from django_blobstore.blob_storage import BlobStorage
from django_blobstore.conf import conf, given_settings

PUBLIC_ACLS = {"public-read", "public-read-write", "publicRead", "publicReadWrite"}


def check_project(**_: Any) -> list[CheckMessage]:
    """Find storages, options and apps that would lose, show or slow down what is stored."""
    given = given_settings()
    if not isinstance(given, dict) or not isinstance(given.get("STORAGE", ""), str):
        # Other checks say so.
        return []
    return [*_check_bytes(), *_check_cleanup(), *_check_urls()]


def _check_bytes() -> Iterator[CheckMessage]:
    alias = conf.STORAGE
    storage = _made(alias)
    if isinstance(storage, BlobStorage):
        message = f"The store would keep its bytes in STORAGES[{alias!r}], a BlobStorage, which keeps none itself."
        hint = "Define STORAGES['blobstore'], or set BLOBSTORE['STORAGE'] to the alias of a storage that keeps files."
        yield Error(message, hint=hint, id="blobstore.E020")
    elif storage:
        for fault, hint in _faults(storage):
            yield Warning(f"STORAGES[{alias!r}] {fault}", hint=hint, id="blobstore.W023")


def _faults(storage: Storage) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with options that storages of django-storages share by name, and what to do."""
    if getattr(storage, "gzip", False):
        yield (
            "compresses some files: their lengths and ranges are not those of the content.",
            "Leave out the option 'gzip'; the objects that have been compressed are read as damaged.",
        )
    if getattr(storage, "file_overwrite", True) is False:
        yield (
            "asks before each put whether the name is free, and may choose another, which the store refuses.",
            "Leave out the option 'file_overwrite': no name is ever used twice.",
        )
    if getattr(storage, "default_acl", None) in PUBLIC_ACLS or getattr(storage, "querystring_auth", True) is False:
        yield (
            "lets everybody who knows or guesses a URL read the bytes, past all permissions.",
            "Leave out the options 'default_acl' and 'querystring_auth'.",
        )


def _check_cleanup() -> Iterator[CheckMessage]:
    if apps.is_installed("django_cleanup"):
        message = "django-cleanup deletes files by their names, also those that another row has."
        hint = "Remove it from INSTALLED_APPS and use django_blobstore.fields.BlobField where files belong to rows."
        yield Warning(message, hint=hint, id="blobstore.W020")


def _check_urls() -> Iterator[CheckMessage]:
    for alias in settings.STORAGES:
        storage = _made(alias)
        if isinstance(storage, BlobStorage) and not _has_urls(storage):
            message = f"The files of STORAGES[{alias!r}] have no URL: nothing serves them."
            hint = "Include 'django_blobstore.rest.urls' in the URLconf, or give the storage a 'base_url'."
            yield Warning(message, hint=hint, id="blobstore.W024")


def _has_urls(storage: BlobStorage) -> bool:
    try:
        return bool(storage.url("name"))
    except ValueError:
        return False


def _made(alias: str) -> Storage | None:
    try:
        return storages[alias]
    except (ImproperlyConfigured, TypeError):
        return None
