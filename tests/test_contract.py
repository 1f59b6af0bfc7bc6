"""The contract of storages holds for those that the store is used with, and finds out those that break it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import TestCase

import pytest
from django.core.files.storage import FileSystemStorage, InMemoryStorage, storages
from pytest_django import Settings

from django_blobstore.testing import BytesContract, StorageContract
from tests.invariants import assert_settled
from tests.stored import ALIAS, Stored

KINDS = ["files", "gridfs", "memory", "s3"]


def names_of(contract: type[Any]) -> list[str]:
    return sorted(name for name in vars(contract) if name.startswith("test_"))


def failures(contract: type[Any], test: str, alias: str) -> list[str]:
    """Return what the `test` of `contract` finds wrong with the storage under `alias`."""
    alone = alias != ALIAS or ALIAS not in storages.backends or not isinstance(storages[ALIAS], InMemoryStorage)
    case: Any = type("Contract", (contract, TestCase), {"alias": alias, "opens_files_anew": alone})(test)
    result = case.run()
    return [told for _, told in (*result.failures, *result.errors)]


def wrong(contract: type[Any], alias: str) -> dict[str, list[str]]:
    """Return what each test of `contract` finds wrong, if it does."""
    told = {test: failures(contract, test, alias) for test in names_of(contract)}
    return {test: found for test, found in told.items() if found}


@pytest.fixture(params=KINDS)
def storage_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def test_storages_do_what_file_fields_ask(stored: Stored, storage_kind: str, settings: Settings) -> None:
    if storage_kind == "s3":
        options = {**stored.options, "OPTIONS": {**stored.options["OPTIONS"], "file_overwrite": False}}
        settings.STORAGES = {**settings.STORAGES, ALIAS: options}
    assert wrong(StorageContract, ALIAS) == {}
    assert stored.names() == set()


def test_storages_do_what_the_store_asks(stored: Stored) -> None:
    assert wrong(BytesContract, ALIAS) == {}
    assert stored.names() == set()


@pytest.mark.parametrize("storage_kind", ["files", "gridfs"], indirect=True)
def test_our_own_does_too(database: str, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "django_blobstore.storages.BlobStorage"}}
    assert wrong(StorageContract, "default") == {}
    assert_settled(stored)
    assert stored.names() == set()


class Renaming(InMemoryStorage):
    """Gives each file a name of its own choice."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return super().get_available_name(f"other-{name}", max_length)


class Overwriting(InMemoryStorage):
    """Puts one file in place of another."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        self.delete(name)
        return name


class Short(InMemoryStorage):
    """Loses the end of what it is given."""

    def _save(self, name: str, content: Any) -> str:
        content.file.truncate(5)
        return str(super()._save(name, content))


class Forgiving(FileSystemStorage):
    """Finds what is not there empty."""

    def exists(self, name: str) -> bool:
        return True

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return FileSystemStorage(self.location).get_available_name(name, max_length)


@pytest.mark.parametrize("kind", [Renaming, Overwriting, Short, Forgiving], ids=lambda kind: str(kind.__name__))
def test_a_storage_that_does_otherwise_is_found_out(kind: type[Any], settings: Settings, tmp_path: Any) -> None:
    options = {"location": tmp_path} if issubclass(kind, FileSystemStorage) else {}
    settings.STORAGES = {**settings.STORAGES, "odd": {"BACKEND": f"{__name__}.{kind.__name__}", "OPTIONS": options}}
    assert wrong(StorageContract, "odd")


def test_the_mixins_are_no_tests_by_themselves() -> None:
    found: list[Callable[..., Any]] = [StorageContract, BytesContract]
    assert [one for one in found if isinstance(one, type) and issubclass(one, TestCase)] == []
