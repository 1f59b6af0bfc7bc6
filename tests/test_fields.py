"""The file of a row goes with the row, when another takes its place, or with the transaction; never before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import IntegrityError, connections, models, transaction
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.serializer import serializer_factory
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_blobstore.fields import BlobField
from django_blobstore.models import ManagedResource, Resource
from tests.gallery.models import Album, Draft, Letter, Panorama, Paper, Photo, Portrait, blobs, files
from tests.invariants import assert_settled, assert_sound
from tests.pictures import picture, png
from tests.stored import Stored

# To make another takes as long as the first; where rows and bytes are further away, fewer say the same.
ROWS = {"default": 1000, "postgres": int(os.environ.get("BLOBSTORE_ROWS", "60"))}


@pytest.fixture(autouse=True)
def ground(database: str, stored: Stored, settings: Settings) -> Stored:
    settings.BLOBSTORE = {"DELETION_GRACE": 0}
    return stored


class Wanted(Exception):
    """Raised to have a transaction rolled back."""


def roll_back(using: str, work: Callable[[], object]) -> None:
    def fail() -> None:
        with transaction.atomic(using=using):
            work()
            raise Wanted

    with pytest.raises(Wanted):
        fail()


def photo(colour: int = 0, **columns: Any) -> Photo:
    return Photo.objects.create(image=picture(colour), **columns)


def names() -> list[str]:
    """Return the name of every file there is."""
    return sorted(ManagedResource.objects.values_list("path", flat=True))


def test_a_row_brings_its_image_with_its_dimensions(stored: Stored) -> None:
    made = photo()
    found = Photo.objects.get()
    assert (found.image.name, found.width, found.height) == ("photos/a.png", 4, 3)
    assert found.image.read() == png()
    assert made.image.name == found.image.name
    assert_sound(stored)


def test_a_deleted_row_takes_its_file_with_it(stored: Stored) -> None:
    photo().delete()
    assert names() == []
    assert_settled(stored)
    assert stored.names() == set()


def test_rows_deleted_in_bulk_and_by_a_cascade_take_their_files_with_them(stored: Stored) -> None:
    album = Album.objects.create(title="one")
    for colour in range(3):
        photo(colour, album=album)
    kept = photo(7)
    Photo.objects.filter(image="photos/a.png").delete()
    assert len(names()) == 3
    album.delete()
    assert names() == [kept.image.name]
    assert_settled(stored)
    assert len(stored.names()) == 1


def test_rows_of_a_proxy_and_of_a_second_table_take_their_files_with_them(stored: Stored) -> None:
    Portrait.objects.create(image=picture(1))
    Panorama.objects.create(image=picture(2), sound=ContentFile(b"waves", "waves.ogg"))
    assert len(names()) == 3
    Portrait.objects.filter(image="photos/a.png").delete()
    assert len(names()) == 2
    Panorama.objects.get().delete()
    assert names() == []
    assert_settled(stored)


def test_another_file_takes_the_place_of_the_one_before(stored: Stored) -> None:
    row = photo(1)
    row.image = picture(2, "b.png")
    assert names() == ["photos/a.png"]
    row.save()
    assert names() == ["photos/b.png"]
    assert Photo.objects.get().image.read() == png(2)
    assert_settled(stored)
    assert len(stored.names()) == 1


def test_each_way_of_taking_the_file_from_a_row_takes_effect_with_the_save(stored: Stored) -> None:
    ways: list[Callable[[Photo], object]] = [
        lambda row: setattr(row, "image", ""),
        lambda row: setattr(row, "image", None),
        lambda row: row.image.delete(save=False),
    ]
    for colour, take in enumerate(ways):
        row = photo(colour)
        take(row)
        assert len(names()) == 1
        if row.image.name is None:
            row.image = ""
        row.save()
        assert names() == []
    photo(9).image.delete(save=False)
    assert len(names()) == 1


def test_a_save_of_other_columns_asks_nothing_of_the_file(database: str) -> None:
    row = photo()
    row = Photo.objects.get()
    row.caption = "Dusk"
    with CaptureQueriesContext(connections[database]) as queries:
        row.save()
    statements = [query["sql"] for query in queries if not query["sql"].startswith(("BEGIN", "COMMIT"))]
    assert len(statements) == 1, statements
    with CaptureQueriesContext(connections[database]) as queries:
        row.save(update_fields=["caption"])
    assert "image" not in queries[-2]["sql"] + queries[-1]["sql"]
    assert Photo.objects.get().caption == "Dusk"


def test_an_upload_that_is_not_among_the_saved_columns_is_not_stored(stored: Stored) -> None:
    row = photo(1)
    row.image = picture(2, "b.png")
    row.save(update_fields=["caption"])
    assert names() == ["photos/a.png"]
    row.save()
    assert names() == ["photos/b.png"]


# The five cases in which libraries that delete files by name lose shared ones, or the wrong one of two.


def test_a_file_that_two_rows_name_stays_until_both_are_gone(stored: Stored) -> None:
    row = photo()
    copy = Photo.objects.get()
    copy.pk = None
    copy._state.adding = True
    copy.save()
    assert copy.image.name == row.image.name
    row.delete()
    assert copy.image.read() == png()
    copy.delete()
    assert names() == []
    assert_settled(stored)


def test_a_file_that_another_row_names_stays_when_it_is_replaced_here(stored: Stored) -> None:
    row = photo(1)
    letter = Letter.objects.create(file=row.image.name)
    row.image = picture(2, "b.png")
    row.save()
    assert letter.file.read() == png(1)
    assert names() == ["photos/a.png", "photos/b.png"]


def test_the_default_file_of_many_rows_is_never_deleted(stored: Stored) -> None:
    blobs.save("papers/blank.txt", ContentFile(b"blank"))
    first, second = Paper.objects.create(name="first"), Paper.objects.create(name="second")
    first.delete()
    second.file = ContentFile(b"written on", "second.txt")
    second.save()
    assert names() == ["papers/blank.txt", "papers/second.txt"]
    Paper.objects.all().delete()
    assert names() == ["papers/blank.txt"]


def test_a_rolled_back_deletion_leaves_the_file(database: str, stored: Stored) -> None:
    row = photo()
    roll_back(database, row.delete)
    assert Photo.objects.get().image.read() == png()
    roll_back(database, Photo.objects.all().delete)
    assert Photo.objects.get().image.read() == png()
    assert_settled(stored)


def test_a_rolled_back_replacement_leaves_the_old_file_and_takes_the_new_one(database: str, stored: Stored) -> None:
    row = photo(1)

    def replace() -> None:
        row.image = picture(2, "b.png")
        row.save()
        assert names() == ["photos/b.png"]

    roll_back(database, replace)
    assert Photo.objects.get().image.read() == png(1)
    assert_settled(stored)
    assert names() == ["photos/a.png"]
    assert len(stored.names()) == 1


def test_nothing_is_deleted_before_the_commit(database: str, stored: Stored) -> None:
    row = photo()
    before = stored.names()
    with transaction.atomic(using=database):
        row.delete()
        assert stored.names() == before
    assert stored.names() == set()


def test_a_save_that_the_database_refuses_leaves_no_file(stored: Stored) -> None:
    photo(1, place="here")
    with pytest.raises(IntegrityError):
        photo(2, place="here")
    other = photo(3, place="there")
    other.place, other.image = "here", picture(4, "c.png")
    with pytest.raises(IntegrityError):
        other.save()
    assert len(names()) == 2
    assert_settled(stored)
    assert len(stored.names()) == 2


def test_rows_created_in_bulk_keep_their_files_and_those_refused_leave_none(database: str, stored: Stored) -> None:
    Photo.objects.bulk_create([Photo(image=picture(colour)) for colour in range(3)])
    assert len(names()) == 3
    # Django 6.1 saves the files before its own transaction.
    with pytest.raises(IntegrityError), transaction.atomic(using=database):
        Photo.objects.bulk_create([Photo(image=picture(colour), place="same") for colour in (7, 8)])
    assert len(names()) == 3
    assert_settled(stored)
    Photo.objects.all().delete()
    assert names() == []


def test_a_row_read_before_another_replaced_its_file_does_not_bring_it_back(stored: Stored) -> None:
    photo(1)
    stale, fresh = Photo.objects.get(), Photo.objects.get()
    fresh.image = picture(2, "b.png")
    fresh.save()
    stale.caption = "Dawn"
    stale.save()
    found = Photo.objects.get()
    assert (found.caption, found.image.read()) == ("Dawn", png(2))
    stale.image = picture(3, "c.png")
    stale.save()
    assert names() == ["photos/c.png"]
    assert_settled(stored)


def test_a_row_deleted_by_whom_read_it_before_its_file_was_replaced_takes_the_new_one(stored: Stored) -> None:
    photo(1)
    stale, fresh = Photo.objects.get(), Photo.objects.get()
    fresh.image = picture(2, "b.png")
    fresh.save()
    stale.delete()
    assert names() == []


def test_a_row_read_without_its_file_keeps_it(stored: Stored) -> None:
    photo()
    row = Photo.objects.only("caption").get()
    row.caption = "Noon"
    row.save()
    assert Photo.objects.get().image.read() == png()
    Photo.objects.only("caption").get().delete()
    assert names() == []


def test_a_row_read_again_and_one_made_from_nothing_write_what_they_have(stored: Stored) -> None:
    row = photo(1)
    fresh = Photo.objects.get()
    fresh.image = picture(2, "b.png")
    fresh.save()
    row.refresh_from_db()
    assert row.image.name == "photos/b.png"
    row.save()
    assert Photo.objects.get().image.name == "photos/b.png"
    other = blobs.save("photos/other.png", picture(3))
    Photo(pk=row.pk, image=other).save()
    assert names() == ["photos/other.png"]


def test_two_who_replace_a_file_at_once_leave_one(database: str, stored: Stored) -> None:
    photo()
    start = threading.Barrier(4)
    failed: list[BaseException] = []

    def replace(colour: int) -> None:
        try:
            row = Photo.objects.get()
            row.image = picture(colour)
            start.wait()
            row.save()
        except BaseException as error:  # noqa: BLE001 -- told below
            failed.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=replace, args=[colour]) for colour in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names() == [Photo.objects.get().image.name]
    assert_settled(stored)


def test_two_who_delete_rows_of_one_file_at_once_leave_none(database: str, stored: Stored) -> None:
    first = photo()
    rows = [first, *(Photo.objects.create(image=first.image.name) for _ in range(3))]
    start = threading.Barrier(len(rows))
    failed: list[BaseException] = []

    def delete(row: Photo) -> None:
        try:
            with transaction.atomic(using=database):
                start.wait()
                row.delete()
        except BaseException as error:  # noqa: BLE001 -- told below
            failed.append(error)
        finally:
            connections.close_all()

    if connections[database].vendor == "sqlite":
        pytest.skip("There is one writer at a time.")
    threads = [threading.Thread(target=delete, args=[row]) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names() == []
    assert_settled(stored)


def test_a_file_in_a_storage_without_transactions_goes_after_the_commit(database: str) -> None:
    row = Draft.objects.create(file=ContentFile(b"draft", "draft.txt"))
    name = row.file.name
    with transaction.atomic(using=database):
        row.delete()
        assert files.exists(name)
    assert not files.exists(name)
    kept = Draft.objects.create(file=ContentFile(b"draft", "draft.txt"))
    roll_back(database, kept.delete)
    assert files.exists(kept.file.name)


def test_a_file_stays_if_a_row_of_another_model_has_it_in_the_same_folder(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Draft.objects.create(file=ContentFile(b"draft", "draft.txt"))
    monkeypatch.setattr(Letter._meta.get_field("file"), "storage", FileSystemStorage(location=files.location))
    letter = Letter.objects.create(file=row.file.name)
    row.delete()
    assert files.exists(letter.file.name)
    files.delete(letter.file.name)


def test_a_file_that_its_storage_does_not_delete_breaks_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(name)

    row = Draft.objects.create(file=ContentFile(b"draft", "draft.txt"))
    monkeypatch.setattr(files, "delete", refuse)
    with transaction.atomic(using=database):
        row.delete()
    assert "PermissionError" in caplog.text
    assert not Draft.objects.exists()


def test_a_thousand_rows_that_share_ten_images_take_ten_files(database: str, stored: Stored) -> None:
    uploads = [png(colour) for colour in range(10)]
    rows = [
        Photo(caption=str(number), image=ContentFile(uploads[number % 10], f"{number}.png"))
        for number in range(ROWS[database])
    ]
    Photo.objects.bulk_create(rows)
    assert len(stored.names()) == 10
    assert Resource.objects.count() == 10
    assert ManagedResource.objects.count() == ROWS[database]
    kept = [row.pk for row in Photo.objects.order_by("pk")[:10]]
    Photo.objects.exclude(pk__in=kept).delete()
    assert ManagedResource.objects.count() == 10
    assert [Photo.objects.get(pk=key).image.read() for key in kept] == uploads
    assert_settled(stored)
    assert len(stored.names()) == 10
    Photo.objects.all().delete()
    assert stored.names() == set()


def test_the_field_is_the_same_after_a_migration_wrote_it_down() -> None:
    for field in [*Photo._meta.local_fields, BlobField(upload_to="x", storage=blobs, db_index=False)]:
        if not isinstance(field, models.FileField):
            continue
        text, imports = serializer_factory(field).serialize()
        names: dict[str, Any] = {}
        exec("\n".join(imports), names)
        again = eval(text, names)
        assert again.deconstruct()[1:] == field.deconstruct()[1:]
        assert again.db_index == field.db_index
        assert "bucket='gallery'" in text
    state = ProjectState()
    state.add_model(ModelState.from_model(Paper))
    assert MigrationAutodetector(state, state.clone())._detect_changes() == {}


def test_checks_tell_of_storages_and_databases_without_a_common_transaction(tmp_path: Path) -> None:
    assert [message.id for message in Draft.check() if message.id != "models.W042"] == ["blobstore.W021"]
    assert Photo.check() == []
