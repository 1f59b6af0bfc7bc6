"""BlobStorage beyond the contract of storages: shared content, transactions, URLs, and the callers that know tricks."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.images import get_image_dimensions
from django.core.files.storage import default_storage, storages
from django.core.files.storage.handler import StorageHandler
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections, transaction
from django.test import Client, override_settings
from PIL import Image
from pytest_django import Settings

from django_blobstore.blob_storage import BlobStorage
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, Resource
from tests.invariants import assert_settled, assert_sound
from tests.pictures import picture, png
from tests.stored import Stored

BACKEND = {"BACKEND": "django_blobstore.storages.BlobStorage", "OPTIONS": {"bucket": "media"}}
ON_SQLITE = pytest.mark.parametrize(
    "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
)


@pytest.fixture
def media(database: str, stored: Stored, settings: Settings) -> BlobStorage:
    settings.STORAGES = {**settings.STORAGES, "default": BACKEND}
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    storage = storages["default"]
    assert isinstance(storage, BlobStorage)
    return storage


def test_one_setting_makes_the_default_storage_share_content(media: BlobStorage, stored: Stored) -> None:
    names = [default_storage.save(f"docs/{number}.txt", ContentFile(b"the same")) for number in range(3)]
    assert names == ["docs/0.txt", "docs/1.txt", "docs/2.txt"]
    assert Resource.objects.get().reference_count == 3
    assert ManagedStorage().get_for_bucket("media", "docs/1.txt").read() == b"the same"
    default_storage.delete("docs/0.txt")
    assert default_storage.open("docs/1.txt").read() == b"the same"
    assert len(stored.names()) == 1
    assert_sound(stored)


def test_the_content_type_is_what_the_upload_says_or_else_the_name(media: BlobStorage) -> None:
    long = SimpleUploadedFile("c.png", b"3", f"image/{'x' * 300}")
    for file in (SimpleUploadedFile("a.bin", b"1", "image/png"), ContentFile(b"2", "b.jpg"), long):
        media.save(None, file)
    types = ManagedResource.objects.order_by("path").values_list("content_type", flat=True)
    assert list(types) == ["image/png", "image/jpeg", "image/png"]


@ON_SQLITE
def test_text_is_read_and_written_as_utf_8(media: BlobStorage) -> None:
    media.save("a.txt", ContentFile("Käse\n"))
    with media.open("a.txt", "r") as file:
        assert (file.read(), file.size) == ("Käse\n", 6)
    with media.open("a.txt", "w") as file:
        file.write("Brot\n")
        file.write("Wein\n")
        assert file.size == 10
    with media.open("a.txt", "r") as file:
        assert list(file.file) == ["Brot\n", "Wein\n"]
    assert Resource.objects.count() == 1


@ON_SQLITE
def test_what_fails_while_it_is_written_is_not_stored(media: BlobStorage, stored: Stored) -> None:
    def fail() -> None:
        with media.open("a.bin", "wb") as file:
            file.write(b"half")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fail()
    assert not media.exists("a.bin")
    with pytest.raises(ValueError, match="'ab'"):
        media.open("a.bin", "ab")
    assert_settled(stored)


@ON_SQLITE
def test_a_closed_file_is_opened_again_and_never_one_of_that_name_here(media: BlobStorage) -> None:
    media.save("README.md", ContentFile(b"stored"))
    file = media.open("README.md")
    assert file.read() == b"stored"
    file.close()
    assert file.open().read() == b"stored"


@ON_SQLITE
def test_names_that_no_object_can_have_are_refused(media: BlobStorage, stored: Stored) -> None:
    for name in ("../a", "a//b", "a\x00b", "a/./b"):
        with pytest.raises(SuspiciousFileOperation):
            media.exists(name)
    with pytest.raises(SuspiciousFileOperation):
        media.listdir("a\x00")
    with pytest.raises(ValueError, match="name must be given"):
        media.delete("")
    assert media.save("folder\\a.txt", ContentFile(b"1")) == "folder/a.txt"
    assert media.exists("folder\\a.txt")


def test_who_takes_a_name_at_the_same_time_gets_another(media: BlobStorage, stored: Stored) -> None:
    start, names = threading.Barrier(4), []

    def save(number: int) -> None:
        try:
            start.wait()
            names.append(media.save("a.txt", ContentFile(str(number).encode() * 10)))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=save, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 4
    assert "a.txt" in names
    assert {media.open(name).read()[:1] for name in names} == {b"0", b"1", b"2", b"3"}
    assert_settled(stored)


def test_a_name_taken_just_before_the_commit_becomes_another_in_a_transaction_too(
    media: BlobStorage, stored: Stored, database: str
) -> None:
    media.save("a.txt", ContentFile(b"first"))
    with transaction.atomic(using=database):
        # As `save` goes on when somebody took the name after it looked.
        name = media._save("a.txt", ContentFile(b"second"))
        assert name != "a.txt"
    assert (media.open("a.txt").read(), media.open(name).read()) == (b"first", b"second")
    assert_settled(stored)
    assert len(stored.names()) == 2


@ON_SQLITE
def test_overwriting_keeps_the_name_and_frees_the_content(media: BlobStorage, stored: Stored) -> None:
    overwriting = BlobStorage(bucket="media", allow_overwrite=True)
    for content in (b"first", b"second"):
        assert overwriting.save("a.txt", ContentFile(content)) == "a.txt"
    assert media.open("a.txt").read() == b"second"
    assert len(stored.names()) == 1


def test_a_rolled_back_save_or_deletion_never_happened(media: BlobStorage, stored: Stored, database: str) -> None:
    media.save("kept.txt", ContentFile(b"kept"))

    def fail() -> None:
        with transaction.atomic(using=database):
            media.save("lost.txt", ContentFile(b"lost"))
            media.delete("kept.txt")
            assert media.exists("lost.txt")
            assert not media.exists("kept.txt")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fail()
    assert not media.exists("lost.txt")
    assert media.open("kept.txt").read() == b"kept"
    assert_settled(stored)
    assert len(stored.names()) == 1


@ON_SQLITE
def test_a_folder_of_more_files_than_a_page_is_listed_whole(
    media: BlobStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_blobstore.blob_storage.PAGE", 3)
    for number in range(8):
        media.save(f"many/{number}/x.txt" if number % 2 else f"many/{number}.txt", ContentFile(b""))
    folders, files = media.listdir("many/")
    assert (folders, files) == (["1", "3", "5", "7"], ["0.txt", "2.txt", "4.txt", "6.txt"])
    assert media.listdir("") == (["many"], [])
    assert media.listdir("none") == ([], [])


@ON_SQLITE
def test_a_signed_url_serves_the_file_to_anybody_and_stays_the_same_for_a_while(
    media: BlobStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.save("photos/Straße 1.png", picture())
    monkeypatch.setattr("django_blobstore.blob_storage.time.time", lambda: 4_000_000_000.0)
    url = media.url("photos/Straße 1.png")
    monkeypatch.setattr("django_blobstore.blob_storage.time.time", lambda: 4_000_000_030.0)
    assert media.url("photos/Straße 1.png") == url
    answer = Client().get(url)
    assert b"".join(answer) == png()  # type: ignore[call-overload]
    assert answer["Content-Type"] == "image/png"
    assert answer["Content-Disposition"].startswith("inline")
    assert Client().get(url.replace("Stra", "Stro")).status_code == 403
    with override_settings(BLOBSTORE={"CONTENT_HOST": "https://content.example"}):
        assert media.url("a").startswith("https://content.example/api/signed/")


@ON_SQLITE
def test_other_urls_are_those_of_the_objects_or_of_a_host_of_the_project(media: BlobStorage) -> None:
    key = Namespace("media").bucket_id
    assert BlobStorage(url_lifetime=None).url("a b.txt") == f"/api/buckets/{key}/objects/a%20b.txt"
    assert BlobStorage(bucket="", url_lifetime=None).url("a") == "/api/global/objects/a"
    assert BlobStorage(bucket="", user="7", url_lifetime=None).url("a") == "/api/me/objects/a"
    assert BlobStorage(base_url="https://cdn.example/x").url("a b.txt") == "https://cdn.example/x/a%20b.txt"
    with override_settings(ROOT_URLCONF="tests.gallery.urls"), pytest.raises(ValueError, match="include"):
        media.url("a")


@ON_SQLITE
def test_pillow_and_django_read_images_and_thumbnails_are_written(media: BlobStorage) -> None:
    name = media.save("large.png", picture(0x336699, size=(64, 48)))
    with media.open(name) as file:
        assert get_image_dimensions(file) == (64, 48)
        image = Image.open(file)
        image.thumbnail((16, 16))
    # As sorl-thumbnail writes, under a name of its own, and as easy-thumbnails does.
    written = io.BytesIO()
    image.save(written, "PNG")
    assert media.save("cache/ab/cd/large.png", ContentFile(written.getvalue())) == "cache/ab/cd/large.png"
    with media.open("cache/direct.png", "wb") as target:
        image.save(target, "PNG")
    assert Image.open(media.open("cache/direct.png")).size == (16, 12)
    assert media.get_modified_time("cache/direct.png") >= media.get_created_time(name)


@ON_SQLITE
def test_manifest_static_files_are_kept_under_their_hashed_names(
    media: BlobStorage, settings: Settings, tmp_path: Any
) -> None:
    class Static(ManifestStaticFilesStorage):
        """What a project would write, in two lines."""

    class BlobStatic(Static.__mro__[2], BlobStorage):  # type: ignore[misc,name-defined]  # ManifestFilesMixin
        """ManifestFilesMixin over BlobStorage."""

    storage = BlobStatic(bucket="static", base_url="/static/")
    sources = {"css/a.css": b"body { background: url('../img/x.png') }", "img/x.png": png()}
    for name, content in sources.items():
        storage.save(name, ContentFile(content))
    done = list(storage.post_process({name: (storage, name) for name in sources}))
    assert all(processed is True for _, _, processed in done), done
    css = storage.stored_name("css/a.css")
    image = storage.stored_name("img/x.png")
    assert css != "css/a.css"
    assert image.rpartition("/")[2].encode() in storage.open(css).read()
    assert storage.url("css/a.css") == f"/static/{css}"
    assert BlobStatic(bucket="static", base_url="/static/").stored_name("css/a.css") == css


def test_the_alias_of_the_bytes_must_not_be_a_blob_storage(database: str, settings: Settings) -> None:
    settings.STORAGES = {"default": BACKEND, "staticfiles": settings.STORAGES["staticfiles"]}
    with pytest.raises(ImproperlyConfigured, match=r"define STORAGES\['blobstore'\]"):
        storages["default"].save("a", ContentFile(b""))


def test_it_is_found_where_settings_look_and_is_the_same_as_another_of_its_namespace() -> None:
    made = StorageHandler({"media": BACKEND})["media"]
    assert made == BlobStorage(bucket="media") != BlobStorage(bucket="other")
    assert hash(made) == hash(BlobStorage(bucket="media", url_lifetime=5))
    assert BlobStorage(bucket="media", url_lifetime=5).deconstruct() == (  # type: ignore[attr-defined]
        "django_blobstore.storages.BlobStorage",
        (),
        {"bucket": "media", "url_lifetime": 5},
    )
    with pytest.raises(TypeError):
        StorageHandler({"media": {**BACKEND, "OPTIONS": {"buckett": "media"}}})["media"]
