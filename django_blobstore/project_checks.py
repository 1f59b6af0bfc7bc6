"""What ``check`` can tell of a project's own storages and apps that would not get on with the store.

E020 the store's bytes would lie in a BlobStorage; W020 django-cleanup beside it, W023 an option of the storage that
breaks or slows the store, W024 a BlobStorage whose files have no URL. A `BlobField` says of itself W021, that its
storage knows no transactions, and W022, that its rows are not in the catalog's database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import FileSystemStorage, Storage, storages

from django_blobstore.blob_storage import BlobStorage
from django_blobstore.conf import conf, given_settings

# Those of S3, and of Google.
PUBLIC_ACLS = {
    *("public-read", "public-read-write", "authenticated-read"),
    *("publicRead", "publicReadWrite", "authenticatedRead"),
}
# What is there is read hours after it was asked for.
ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}


def check_project(**_: Any) -> list[CheckMessage]:
    """Find storages, options and apps that would lose, show or slow down what is stored."""
    given = given_settings()
    if not isinstance(given, dict) or not isinstance(given.get("STORAGE", ""), str):
        # Other checks say so.
        return []
    return [*_check_bytes(), *_check_cleanup(), *_check_urls()]


def made(alias: str) -> Storage | None:
    """Return the storage, or None if it cannot be made; E005 and E006 say so of the one in use."""
    try:
        return storages[alias]
    except (ImproperlyConfigured, TypeError):
        return None


def _check_bytes() -> Iterator[CheckMessage]:
    alias = conf.STORAGE
    storage = made(alias)
    if isinstance(storage, BlobStorage):
        message = f"The store would keep its bytes in STORAGES[{alias!r}], a BlobStorage, which keeps none itself."
        hint = "Define STORAGES['blobstore'], or set BLOBSTORE['STORAGE'] to the alias of a storage that keeps files."
        yield Error(message, hint=hint, id="blobstore.E020")
    elif storage:
        for fault, hint in _faults(storage):
            yield Warning(f"STORAGES[{alias!r}] {fault}", hint=hint, id="blobstore.W023")


def _faults(storage: Storage) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with options, which storages of django-storages share by name, and what to do."""
    if getattr(storage, "gzip", False):
        yield (
            "compresses some files: their lengths and ranges are not those of the content.",
            "Leave out the option 'gzip'; the objects that have been compressed are read as damaged.",
        )
    if asks := _option_that_asks(storage):
        yield (
            "asks before each put whether the name is free, and may choose another, which the store refuses.",
            f"{asks}: no name is ever used twice.",
        )
    if _archives(storage):
        yield (
            "keeps bytes where they cannot be read at once.",
            "Leave 'StorageClass' out of 'object_parameters', and have no rule of the bucket's move objects there.",
        )
    if hint := _shows_everybody(storage):
        yield "lets everybody who knows or guesses a URL read the bytes, past all permissions.", hint


def _option_that_asks(storage: Storage) -> str:
    """Say which option has the storage look for a free name; "" if none does."""
    if getattr(storage, "file_overwrite", True) is False:
        return "Leave out the option 'file_overwrite'"
    if getattr(storage, "overwrite_files", True) is False:  # AzureStorage, by default
        return "Set the option 'overwrite_files' to True"
    return ""


def _archives(storage: Storage) -> bool:
    return _parameters(storage).get("StorageClass") in ARCHIVES


def _shows_everybody(storage: Storage) -> str:
    """Say what to do about a storage that everybody can read; "" if nobody but us can, as far as options tell."""
    acls = {getattr(storage, "default_acl", None), _parameters(storage).get("ACL")}
    if acls & PUBLIC_ACLS or getattr(storage, "querystring_auth", True) is False:
        return "Leave out the options 'default_acl' and 'querystring_auth', and an 'ACL' in 'object_parameters'."
    if isinstance(storage, FileSystemStorage) and _is_shown(storage):
        return "Give it a 'location' outside MEDIA_ROOT and STATIC_ROOT, which web servers show."
    return ""


def _parameters(storage: Storage) -> dict[str, Any]:
    parameters = getattr(storage, "object_parameters", None)
    return parameters if isinstance(parameters, dict) else {}


def _is_shown(storage: FileSystemStorage) -> bool:
    roots = [Path(root).resolve() for root in (settings.MEDIA_ROOT, settings.STATIC_ROOT) if root]
    return any(Path(storage.location).resolve().is_relative_to(root) for root in roots)


def _check_cleanup() -> Iterator[CheckMessage]:
    if apps.is_installed("django_cleanup"):
        message = "django-cleanup deletes files by their names, also those that another row has."
        hint = "Remove it from INSTALLED_APPS and use django_blobstore.fields.BlobField where files belong to rows."
        yield Warning(message, hint=hint, id="blobstore.W020")


def _check_urls() -> Iterator[CheckMessage]:
    for alias in settings.STORAGES:
        storage = made(alias)
        if isinstance(storage, BlobStorage) and not _has_urls(storage):
            message = f"The files of STORAGES[{alias!r}] have no URL: nothing serves them."
            hint = "Include 'django_blobstore.rest.urls' in the URLconf, or give the storage a 'base_url'."
            yield Warning(message, hint=hint, id="blobstore.W024")


def _has_urls(storage: BlobStorage) -> bool:
    try:
        return bool(storage.url("name"))
    except ValueError:
        return False
