"""What `check` says of a project's own storages and apps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.files.storage import FileSystemStorage
from pytest_django import Settings

BLOBS = {"BACKEND": "django_blobstore.storages.BlobStorage"}
S3 = {"bucket_name": "b", "access_key": "a", "secret_key": "s", "region_name": "us-east-1"}


def found() -> dict[str, CheckMessage]:
    messages = [message for message in run_checks(tags=["blobstore"]) if (message.id or "")[-3] == "0"]
    assert all(message.hint for message in messages)
    return {message.id or "": message for message in messages}


def with_storage(settings: Settings, **aliases: Any) -> None:
    settings.STORAGES = {**settings.STORAGES, **aliases}


def test_nothing_is_said_of_a_project_in_order(settings: Settings) -> None:
    with_storage(settings, default=BLOBS)
    assert not [id for id in found() if id >= "blobstore.W02"]


def test_bytes_that_would_lie_in_a_blob_storage_are_an_error(settings: Settings) -> None:
    with_storage(settings, blobstore=BLOBS)
    assert "a BlobStorage" in found()["blobstore.E020"].msg
    # The fields of models are checked too, whose storage keeps its bytes nowhere then.
    assert "blobstore.E020" in {message.id for message in run_checks()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gzip": True}, "compresses"),
        ({"file_overwrite": False}, "is free"),
        ({"default_acl": "public-read"}, "everybody"),
        ({"default_acl": "authenticated-read"}, "everybody"),
        ({"object_parameters": {"ACL": "public-read"}}, "everybody"),
        ({"querystring_auth": False}, "everybody"),
        ({"object_parameters": {"StorageClass": "DEEP_ARCHIVE"}}, "at once"),
    ],
)
def test_options_that_break_the_store_are_warned_of(settings: Settings, options: dict[str, Any], told: str) -> None:
    s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": S3}
    with_storage(settings, blobstore=s3)
    assert "blobstore.W023" not in found()
    with_storage(settings, blobstore={**s3, "OPTIONS": S3 | options})
    assert told in found()["blobstore.W023"].msg


@pytest.mark.parametrize(
    "options",
    [
        {"location": "a/prefix"},
        {"location": "a/prefix/"},
        {"default_acl": "private"},
        {"object_parameters": {"StorageClass": "STANDARD_IA", "ServerSideEncryption": "AES256"}},
        {"custom_domain": "cdn.example.org"},
    ],
    ids=str,
)
def test_options_that_do_no_harm_are_not_warned_of(settings: Settings, options: dict[str, Any]) -> None:
    with_storage(settings, blobstore={"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": S3 | options})
    assert not found()


def test_a_location_that_s3_cannot_have_is_an_error(settings: Settings) -> None:
    s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": S3 | {"location": "/prefix"}}
    with_storage(settings, blobstore=s3)
    assert "slash" in found()["blobstore.E006"].msg


def test_azure_is_told_not_to_look_for_free_names(settings: Settings) -> None:
    azure = {"BACKEND": "storages.backends.azure_storage.AzureStorage", "OPTIONS": {"azure_container": "blobs"}}
    with_storage(settings, blobstore=azure)
    assert "'overwrite_files' to True" in (found()["blobstore.W023"].hint or "")
    azure["OPTIONS"]["overwrite_files"] = True  # type: ignore[index]
    with_storage(settings, blobstore=azure)
    assert not found()


@pytest.mark.parametrize(("name", "shown"), [("", True), ("blobs", True), ("../blobs", False), ("../media-2", False)])
def test_files_that_a_web_server_shows_are_warned_of(
    settings: Settings, tmp_path: Path, name: str, shown: bool
) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.STATIC_ROOT = tmp_path / "static"
    location = tmp_path / "media" / name
    files = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": location}}
    with_storage(settings, blobstore=files)
    assert set(found()) == ({"blobstore.W023"} if shown else set())


def test_django_cleanup_beside_it_is_warned_of(settings: Settings) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_cleanup.apps.CleanupSelectedConfig"]
    assert "BlobField" in (found()["blobstore.W020"].hint or "")


def test_files_without_a_url_are_warned_of(settings: Settings) -> None:
    settings.ROOT_URLCONF = "tests.gallery.urls"
    with_storage(settings, media=BLOBS)
    assert "'media'" in found()["blobstore.W024"].msg
    with_storage(settings, media={**BLOBS, "OPTIONS": {"base_url": "/media/"}})
    assert "blobstore.W024" not in found()


class Broken(FileSystemStorage):
    """A storage that cannot be made."""

    def __init__(self) -> None:
        raise TypeError


def test_a_storage_that_cannot_be_made_is_left_to_its_own_check(settings: Settings) -> None:
    with_storage(settings, blobstore={"BACKEND": f"{__name__}.Broken"})
    assert set(found()) == {"blobstore.E006"}
