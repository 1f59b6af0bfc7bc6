"""What `check` says of a project's own storages and apps."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gzip": True}, "compresses"),
        ({"file_overwrite": False}, "is free"),
        ({"default_acl": "public-read"}, "everybody"),
        ({"querystring_auth": False}, "everybody"),
    ],
)
def test_options_that_break_the_store_are_warned_of(settings: Settings, options: dict[str, Any], told: str) -> None:
    s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": S3}
    with_storage(settings, blobstore=s3)
    assert "blobstore.W023" not in found()
    with_storage(settings, blobstore={**s3, "OPTIONS": S3 | options})
    assert told in found()["blobstore.W023"].msg


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
