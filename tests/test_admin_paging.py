"""Pages of the admin's lists: whole, in order, and where they should be after rows went or came."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from django_blobstore.admin import objects
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest, Resource
from tests.admin_pages import administrator, confirmed, listed, page, text
from tests.conftest import ON_ONE_DATABASE
from tests.invariants import assert_settled
from tests.stored import Stored

PER_PAGE = 3
LIST = "/admin/django_blobstore/managedresource/"

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreAdmin, "list_per_page", PER_PAGE)


@pytest.fixture
def filled(database: str, stored: Stored) -> Bucket:
    """Two buckets, of which this has eight objects, and rows of every other kind."""
    store = ManagedStorage()
    for n in range(8):
        store.put_for_bucket("photos", f"é/{n}", b"%d" % (n % 5))
        store.put_for_bucket("other", f"{n}", b"%d" % n)
        store.put(Namespace(user=f"{n}"), "mine", b"m")
        store.put(Namespace(), f"{n}", b"g")
        _under_way(n)
    return Bucket.objects.get(name="photos")


def _under_way(n: int) -> None:
    later = timezone.now() + timedelta(hours=1 + n % 3)
    PutRequest.objects.create(id=f"r{n}", path="a", sha384="ab", length=1, nonce=b"", ranges=[], expires_at=later)
    PendingFile.objects.create(path=f"p{n}", storage="blobstore", discard=True, due_at=later)


def lists(bucket: Bucket) -> Iterator[tuple[str, list[Model]]]:
    """Yield the address of each kind of list, and its rows in the order in which they should be."""
    in_bucket = ManagedResource.objects.filter(bucket=bucket)
    outside = ManagedResource.objects.filter(bucket=None)
    chosen = f"{LIST}?bucket__uuid__exact={bucket.pk}"
    contents, requests, files = (page(model, "changelist") for model in (Resource, PutRequest, PendingFile))
    yield LIST, list(ManagedResource.objects.order_by("-pk"))
    yield f"{LIST}?q=é/", list(in_bucket.order_by("-pk"))
    yield chosen, list(in_bucket.order_by("path"))
    yield f"{chosen}&o=-1", list(in_bucket.order_by("-path"))
    yield f"{chosen}&q=é/", list(in_bucket.order_by("path"))
    yield f"{LIST}?namespace=bucket", list(ManagedResource.objects.exclude(bucket=None).order_by("bucket_id", "path"))
    yield f"{LIST}?namespace=user", list(outside.exclude(user="").order_by("user"))
    yield f"{LIST}?namespace=global", list(outside.filter(user="").order_by("path"))
    yield contents, list(Resource.objects.order_by("-pk"))
    yield f"{contents}?o=1", list(Resource.objects.order_by("sha384"))
    yield f"{contents}?state=sound&o=7", list(Resource.objects.order_by("pk"))
    yield requests, list(PutRequest.objects.order_by("-created_at"))
    yield f"{requests}?state=open", list(PutRequest.objects.order_by("-created_at"))
    yield files, list(PendingFile.objects.order_by("path"))
    yield f"{files}?state=waiting", list(PendingFile.objects.order_by("due_at", "path"))


def link(response: HttpResponse, label: str) -> str:
    """Return the address behind the link `label` of a list, or "" if it has none."""
    found = [link.query for link in response.context["cl"].page_links if str(link.text) == label]
    return str(response.request["PATH_INFO"]) + found[0] if found else ""


def walk(client: Client, address: str, label: str) -> Iterator[list[Any]]:
    """Yield the rows of the page at `address` and of those to which its links `label` lead."""
    while address:
        response = client.get(address)
        yield listed(response)
        address = link(response, label)


def rows_of(pages: Iterator[list[Any]]) -> list[Any]:
    return [row for rows in pages for row in rows]


def test_each_row_is_on_one_page_in_order_there_and_back(filled: Bucket) -> None:
    client = administrator()
    for address, rows in lists(filled):
        assert len(rows) >= 8, address
        assert rows_of(walk(client, address, "Next")) == rows, address
        last = link(client.get(address), "Last")
        back = list(walk(client, last, "Previous"))
        assert back[0] == rows[-PER_PAGE:], address
        assert back[-1] == rows[:PER_PAGE], address
        assert {row.pk for row in rows_of(iter(back))} == {row.pk for row in rows}, address
        assert listed(client.get(link(client.get(last), "First"))) == rows[:PER_PAGE]


def test_a_list_of_one_page_has_no_links_and_says_how_many_it_has(database: str, stored: Stored) -> None:
    for n in range(PER_PAGE):
        ManagedStorage().put_for_bucket("photos", f"{n}", b"x")
    response = administrator().get(LIST)
    assert response.context["cl"].page_links == []
    assert "3 objects" in text(response)
    assert "on all pages" not in text(response)


def test_how_many_there_are_is_said_of_a_namespace_and_of_nothing_that_would_have_to_be_counted(filled: Bucket) -> None:
    client = administrator()
    ManagedStorage().put(Namespace(bucket="photos", user="7"), "of a user in it", b"x")
    chosen = client.get(f"{LIST}?bucket__uuid__exact={filled.pk}")
    assert "9 objects" in text(chosen)
    assert "Select all 9 objects" in text(chosen)
    assert "8 objects" in text(client.get(f"{LIST}?namespace=global"))
    for query in ("", "?q=é", f"?bucket__uuid__exact={filled.pk}&q=é", "?namespace=bucket", "?namespace=user"):
        shown = text(client.get(LIST + query))
        assert "Select all objects on all pages" in shown
        assert "objects" not in shown.partition("Pages of objects")[2]


def test_a_search_says_how_many_it_found_only_if_they_are_all_there(filled: Bucket) -> None:
    client = administrator()
    assert "1 result" in text(client.get(f"{LIST}?q=é/3"))
    assert "result" not in text(client.get(f"{LIST}?q=é/"))


def test_rows_that_come_or_go_neither_repeat_nor_hide_others(filled: Bucket) -> None:
    client, store = administrator(), ManagedStorage()
    address = f"{LIST}?bucket__uuid__exact={filled.pk}"
    first = client.get(address)
    for path in ("é/0", "é/2"):
        store.remove_for_bucket("photos", path)
    store.put_for_bucket("photos", "a", b"comes before the first page")
    assert [row.path for row in listed(client.get(link(first, "Next")))] == ["é/3", "é/4", "é/5"]


def test_after_the_last_page_was_removed_the_one_before_it_is_the_last(filled: Bucket) -> None:
    client = administrator()
    *_, before, last = walk(client, f"{LIST}?bucket__uuid__exact={filled.pk}", "Next")
    address = link(client.get(link(client.get(f"{LIST}?bucket__uuid__exact={filled.pk}"), "Next")), "Next")
    assert listed(client.get(address)) == last
    for managed in last:
        ManagedStorage().remove(managed.namespace, managed.path)
    assert listed(client.get(address)) == before


def test_a_page_before_one_at_the_beginning_is_the_first_one_and_full(filled: Bucket) -> None:
    client = administrator()
    address = f"{LIST}?bucket__uuid__exact={filled.pk}"
    second = client.get(link(client.get(address), "Next"))
    ManagedStorage().remove_for_bucket("photos", "é/0")
    assert [row.path for row in listed(client.get(link(second, "Previous")))] == ["é/1", "é/2", "é/3"]


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


NOWHERE = [
    *("after.", "after.!", "after." + packed("[]"), "before." + packed('["x"]')),
    *(
        "after." + packed(text)
        for text in ('["1", "2"]', f'["{10**30}"]', "null", "[7]", '{"a": 1}', '[["1"]]', "[null]", '["\\u0000"]')
    ),
    "after." + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
]


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
def test_an_address_that_names_no_place_leads_to_the_first_page(filled: Bucket) -> None:
    client = administrator()
    for address in (LIST, page(Resource, "changelist"), page(PutRequest, "changelist")):
        first = listed(client.get(address))
        for place in NOWHERE:
            response = client.get(address, {"p": place}, follow=True)
            assert [url for url, _ in response.redirect_chain] == [f"{address}?e=1"], place
            assert listed(response) == first, place


@pytest.mark.parametrize("database", ON_ONE_DATABASE, indirect=True)
def test_a_number_from_an_old_address_leads_to_the_first_page(filled: Bucket) -> None:
    client = administrator()
    first = listed(client.get(LIST))
    for place in ("7", "x", "first", "0"):
        assert listed(client.get(LIST, {"p": place})) == first, place


def test_all_rows_on_all_pages_are_deleted_from_whichever_page_it_is_asked(filled: Bucket, stored: Stored) -> None:
    client = administrator()
    second = link(client.get(f"{LIST}?bucket__uuid__exact={filled.pk}"), "Next")
    [chosen, *_] = listed(client.get(second))
    asked = {"action": "delete_selected", "_selected_action": [chosen.pk], "select_across": "1"}
    response = client.post(second, asked)
    assert "Objects 8" in text(response)
    confirmed(client, response)
    assert not ManagedResource.objects.filter(bucket=filled).exists()
    assert ManagedResource.objects.count() == 24
    PendingFile.objects.filter(path__startswith="p").delete()
    assert_settled(stored)


def test_only_those_selected_on_a_page_are_deleted(filled: Bucket) -> None:
    client = administrator()
    second = link(client.get(f"{LIST}?bucket__uuid__exact={filled.pk}"), "Next")
    [chosen, *_] = listed(client.get(second))
    confirmed(client, client.post(second, {"action": "delete_selected", "_selected_action": [chosen.pk]}))
    assert ManagedResource.objects.count() == 31
    assert not ManagedResource.objects.filter(pk=chosen.pk).exists()


def test_a_search_everywhere_looks_at_the_newest_objects_only(filled: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "SEARCHED_EVERYWHERE", 8)
    found = listed(administrator().get(f"{LIST}?q=é/"))
    assert [managed.path for managed in found] == ["é/7", "é/6"]


def test_a_search_in_a_bucket_looks_at_all_of_it_and_not_at_what_users_have_there(filled: Bucket) -> None:
    ManagedStorage().put(Namespace(bucket="photos", user="7"), "é/of a user", b"x")
    client, address = administrator(), f"{LIST}?bucket__uuid__exact={filled.pk}"
    assert len(rows_of(walk(client, f"{address}&q=é/", "Next"))) == 8
    assert [row.path for row in listed(client.get(f"{address}&q=é/&user__exact=7"))] == ["é/of a user"]
    assert len(rows_of(walk(client, address, "Next"))) == 9


def test_what_might_look_at_each_row_is_not_answered(filled: Bucket) -> None:
    client = administrator()
    for lookup in ("path__contains=1", "resource__length__gt=0", "metadata__a=1", "user__contains=7"):
        assert client.get(f"{LIST}?{lookup}").status_code == 400, lookup


def test_no_order_is_offered_or_taken_that_no_index_has(filled: Bucket) -> None:
    client = administrator()
    assert 'class="sortable' not in client.get(LIST).content.decode()
    for address in (f"{LIST}?o=3", f"{LIST}?o=1", f"{LIST}?o=-2.1"):
        assert listed(client.get(address)) == listed(client.get(LIST))
    contents = client.get(page(Resource, "changelist")).content.decode()
    assert contents.count('scope="col" class="sortable') == 2
