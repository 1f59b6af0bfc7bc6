"""The page of a content names the rows of the project that have it as their file, at a cost that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_blobstore.admin import file_rows
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, Resource
from tests.admin_pages import administrator, page, staff, text
from tests.conftest import DATABASES
from tests.gallery.models import Letter, Paper, Photo
from tests.pictures import picture
from tests.query_plans import complaints
from tests.routers import OneDatabase
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])
GALLERY = Namespace("gallery")


def page_of(client: Client, path: str) -> HttpResponse:
    resource = ManagedResource.objects.get(path=path, bucket__name="gallery").resource
    return client.get(page(Resource, "change", resource.pk))


def letter(path: str = "letters/a", content: bytes = b"dear") -> Letter:
    ManagedStorage().put(GALLERY, path, content)
    return Letter.objects.create(file=path)


def test_rows_are_named_and_lead_to_their_pages(database: str, stored: Stored) -> None:
    photo, other = Photo.objects.create(image=picture(1)), Photo.objects.create(image=picture(2))
    ManagedStorage().put(Namespace("elsewhere"), photo.image.name, b"another content by that name")
    response = page_of(administrator(), photo.image.name)
    assert f"Photo {photo.pk}, field image" in text(response)
    assert reverse("admin:gallery_photo_change", args=[photo.pk]) in response.content.decode()
    assert f"Photo {other.pk}," not in text(response)
    elsewhere = ManagedResource.objects.get(bucket__name="elsewhere").resource
    assert "Photo" not in text(administrator_page(elsewhere))


def administrator_page(resource: Resource) -> HttpResponse:
    client = Client()
    client.force_login(User.objects.get(username="root"))
    return client.get(page(Resource, "change", resource.pk))


def test_a_row_without_a_page_is_named_and_of_a_column_without_an_index_the_newest_are_found(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = letter()
    client = administrator()
    response = page_of(client, "letters/a")
    assert f"Letter {first.pk}, field file" in text(response)
    assert "has no index" not in text(response)
    monkeypatch.setattr(file_rows, "EXAMINED", 1)
    letter("letters/b", b"another")
    response = page_of(client, "letters/a")
    assert f"Letter {first.pk}" not in text(response)
    assert "gallery.Letter.file has no index: only the newest rows" in text(response)


def test_rows_of_models_that_one_may_not_view_are_not_named(database: str, stored: Stored) -> None:
    photo = Photo.objects.create(image=picture(1))
    written = letter(photo.image.name, photo.image.read())
    client = staff("view_resource", "view_managedresource")
    shown = text(page_of(client, photo.image.name))
    assert "Photo" not in shown
    assert "Letter" not in shown
    assert "File of" not in shown
    user = User.objects.get(username="staff")
    user.user_permissions.add(Permission.objects.get(codename="view_photo"))
    shown = text(page_of(client, photo.image.name))
    assert f"Photo {photo.pk}, field image" in shown
    assert f"Letter {written.pk}" not in shown


def test_of_many_rows_with_one_file_some_are_named(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_rows, "ROWS", 2)
    ManagedStorage().put(GALLERY, "papers/blank.txt", b"blank")
    for name in "abc":
        Paper.objects.create(name=name)
    shown = text(page_of(administrator(), "papers/blank.txt"))
    assert shown.count("Paper ") == 2
    assert "More rows have these files than are named here" in shown


def test_columns_without_an_index_beyond_so_many_are_not_asked_about(
    database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_rows, "SCANNED_COLUMNS", 0)
    letter()
    shown = text(page_of(administrator(), "letters/a"))
    assert "gallery.Letter.file has no index: its rows were not looked at" in shown


@pytest.mark.parametrize("objects", [1, 3])
def test_rows_of_all_objects_on_a_page_are_found_by_two_queries(database: str, stored: Stored, objects: int) -> None:
    for n in range(objects):
        letter(f"letters/{n}")
    client = administrator()
    resource = Resource.objects.get()
    with CaptureQueriesContext(connections[database]) as queries:
        response = client.get(page(Resource, "change", resource.pk))
    assert [len(files) for *_, files in response.context["rows"]] == [1] * objects
    assert sum("gallery_" in query["sql"] for query in queries) == 2
    assert len(queries) <= 12


@pytest.mark.django_db(transaction=True, databases=["postgres"])
def test_no_table_of_the_project_is_read_from_end_to_end(
    postgres: Any, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_rows, "EXAMINED", 50)
    monkeypatch.setattr("tests.query_plans.LARGE", {"gallery_paper", "gallery_letter"})
    with OneDatabase.using(DATABASES["postgresql"]) as alias:
        for path in ("papers/77", "letters/77"):
            ManagedStorage().put(GALLERY, path, b"the same")
        Paper.objects.bulk_create(Paper(name=f"{n}", file=f"papers/{n}") for n in range(20_000))
        Letter.objects.bulk_create(Letter(file=f"letters/{n}") for n in range(20_000))
        client = administrator()
        with connections[alias].cursor() as cursor:
            cursor.execute("VACUUM ANALYZE gallery_paper, gallery_letter")
        with CaptureQueriesContext(connections[alias]) as queries:
            response = client.get(page(Resource, "change", Resource.objects.get().pk))
        assert "Paper 77, field file" in text(response)
        assert list(complaints(alias, queries, rows=60)) == []
