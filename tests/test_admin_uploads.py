"""Who is offered to upload in the admin, and whom the URLs let in that the panel sends files to."""

from __future__ import annotations

import json
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from pytest_django import Settings

from django_blobstore.admin import uploads
from django_blobstore.admin.places import Place
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PutRequest
from tests import admin_pages
from tests.invariants import assert_empty
from tests.rest.test_tus import told
from tests.stored import Stored

WAS_STORED = "Blobstore-Was-Stored"

# A project that does not mount the REST interface.
urlpatterns = [path("admin/", admin.site.urls)]

pytestmark = [
    pytest.mark.urls(__name__),
    pytest.mark.django_db(transaction=True, databases=["default"]),
    pytest.mark.parametrize("storage_kind", ["files"]),
]


@pytest.fixture
def bucket(stored: Stored) -> Bucket:
    return Bucket.objects.create(name="bucket")


def browse(client: Client, **place: object) -> HttpResponse:
    return client.get(admin_pages.page(ManagedResource, "browse"), place)


def offered(response: HttpResponse) -> dict[str, Any] | None:
    assert response.status_code == 200
    panel: dict[str, Any] | None = response.context["upload"]
    assert ("data-blobstore-upload" in response.content.decode()) == bool(panel)
    return panel


def put(client: Client, panel: dict[str, Any], path: str = "a", content: bytes = b"content") -> HttpResponse:
    return client.put(panel["objects"] + path, content, "application/octet-stream")


def post(client: Client, url: str, **said: object) -> HttpResponse:
    return client.post(url, json.dumps(said), "application/json")


@pytest.mark.parametrize(
    ("permissions", "is_offered", "may_replace"),
    [
        (["view_managedresource"], False, False),
        (["view_managedresource", "change_managedresource"], False, False),
        (["view_managedresource", "add_managedresource"], True, False),
        (["view_managedresource", "add_managedresource", "change_managedresource"], True, True),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_it_is_offered_to_who_may_add_objects(
    bucket: Bucket, permissions: list[str], is_offered: bool, may_replace: bool
) -> None:
    panel = offered(browse(admin_pages.staff(*permissions), bucket=bucket.pk))
    assert bool(panel) == is_offered
    if panel:
        assert panel["may_replace"] == may_replace


def test_the_owner_of_a_bucket_needs_no_permission(bucket: Bucket, stored: Stored) -> None:
    client = admin_pages.staff()
    Bucket.objects.update(owner=User.objects.get())
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    assert put(client, panel).status_code == 201
    assert ManagedResource.objects.get().bucket == bucket


def test_nobody_uploads_into_the_namespace_of_somebody_else(stored: Stored) -> None:
    client = admin_pages.administrator()
    ManagedStorage().put(Namespace(user="someone"), "a", b"1")
    assert offered(browse(client, user="someone")) is None
    assert offered(browse(client, user=User.objects.get().pk))
    assert offered(browse(client, namespace="global"))


def test_what_an_object_cannot_be_called_is_not_asked_for(bucket: Bucket) -> None:
    client = admin_pages.administrator()
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    ManagedStorage().put(Namespace(bucket=bucket.pk), "there", b"1")
    response = post(client, panel["taken"], paths=["there", "not there", "", "../there", "line\nbreak", "y" * 1025])
    assert response.json() == {"taken": ["there"]}


def test_content_that_is_not_stored_is_no_error(bucket: Bucket, settings: Settings) -> None:
    client = admin_pages.administrator()
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    wanted = {"path": "a", "sha384": "0" * 96}
    assert post(client, panel["put_requests"], **wanted).status_code == 204
    known = ManagedStorage().put(Namespace(bucket=bucket.pk), "there", b"1").resource.sha384
    assert post(client, panel["put_requests"], path="a", sha384=known).status_code == 201
    settings.BLOBSTORE = {"PROOF_SCOPE": "off"}
    assert post(client, panel["put_requests"], path="a", sha384=known).status_code == 204
    assert PutRequest.objects.count() == 1


def test_who_may_not_enter_the_admin_may_not_upload_through_it(bucket: Bucket, stored: Stored) -> None:
    panel = offered(browse(admin_pages.administrator(), bucket=bucket.pk))
    assert panel
    owner = User.objects.create_user("owner")
    owner.user_permissions.set(Permission.objects.filter(content_type__app_label="django_blobstore"))
    Bucket.objects.update(owner=owner)
    client = Client()
    refused = [_all_refused(client, panel)]
    client.force_login(owner)
    refused.append(_all_refused(client, panel))
    assert refused == [{"not-authenticated"}, {"permission-denied"}]
    assert_empty(stored)


def _all_refused(client: Client, panel: dict[str, Any]) -> set[str]:
    answers = [put(client, panel), post(client, panel["taken"], paths=["a"]), post(client, panel["uploads"])]
    answers.append(post(client, panel["put_requests"], path="a", sha384="0" * 96))
    assert {answer.status_code for answer in answers} == {403}
    return {answer.json()["code"] for answer in answers}


def test_no_other_site_uploads_in_the_name_of_who_is_logged_in(bucket: Bucket, stored: Stored) -> None:
    client = admin_pages.administrator()
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    strict = Client(enforce_csrf_checks=True, HTTP_ORIGIN="http://elsewhere.test")
    strict.cookies = client.cookies
    assert put(strict, panel).status_code == 403
    assert post(strict, panel["uploads"]).status_code == 403
    assert_empty(stored)


def test_the_urls_are_no_way_to_read(bucket: Bucket) -> None:
    client = admin_pages.administrator()
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    assert put(client, panel).status_code == 201
    assert client.get(panel["objects"] + "a").status_code == 405
    assert client.delete(panel["objects"] + "a").status_code == 405


def test_a_folder_of_any_name_reaches_the_script_as_it_is(bucket: Bucket) -> None:
    folder = 'a"><script>/&amp;/été {{ x }}/'
    response = browse(admin_pages.administrator(), bucket=bucket.pk, folder=folder)
    attribute = response.content.decode().partition('data-folder="')[2].partition('"')[0]
    assert unescape(attribute) == folder


def test_the_panel_asks_the_database_nothing(bucket: Bucket) -> None:
    place = Place(User.objects.create_superuser("root"), Namespace(bucket=bucket.pk), bucket)
    with CaptureQueriesContext(connection) as captured:
        assert uploads.panel(admin.site, place, "")
    assert len(captured) == 0


@pytest.mark.parametrize(
    ("permissions", "is_told"),
    [
        (["view_managedresource", "view_resource"], True),
        (["view_managedresource"], False),
        (["view_resource"], False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("scope", ["global", "bucket"])
def test_that_content_was_stored_is_told_only_to_who_may_see_all_contents(
    bucket: Bucket, stored: Stored, settings: Settings, permissions: list[str], is_told: bool, scope: str
) -> None:
    settings.BLOBSTORE = {"DEDUP_SCOPE": scope}
    there = bucket.pk if scope == "bucket" else "elsewhere"
    ManagedStorage().put(Namespace(bucket=there), "same", b"content")
    client = admin_pages.staff(*permissions)
    Bucket.objects.filter(pk=bucket.pk).update(owner=User.objects.get())
    panel = offered(browse(client, bucket=bucket.pk))
    assert panel
    new = [put(client, panel, "new", b"new"), in_pieces(client, panel, bucket, "new too", b"new too")]
    known = [put(client, panel, "copy"), in_pieces(client, panel, bucket, "copy too", b"content")]
    assert [WAS_STORED in answer for answer in new] == [False, False]
    assert [WAS_STORED in answer for answer in known] == [is_told, is_told]
    assert ManagedResource.objects.filter(bucket=bucket, path__startswith="copy").count() == 2


def in_pieces(client: Client, panel: dict[str, Any], bucket: Bucket, path: str, content: bytes) -> HttpResponse:
    """Upload by tus, and return the answer to the last piece."""
    tus = {"Tus-Resumable": "1.0.0"}
    begins = {"Upload-Length": str(len(content)), "Upload-Metadata": told(bucket=str(bucket.pk), path=path)}
    url = client.post(panel["uploads"], headers=tus | begins)["Location"]
    piece = {"Upload-Offset": "0"}
    return client.patch(url, content, "application/offset+octet-stream", headers=tus | piece)
