"""How many SQL statements a request costs: what the store itself needs, and a fixed few to know who asks and where."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.authtoken.models import Token

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from django_blobstore.rest.permissions import Place
from django_blobstore.rest.viewsets import StoreViewSet
from tests.rest import api
from tests.stored import Stored
from tests.streams import MIB, content_of

WHO_AND_WHERE = 2  # the token with its user; the bucket
MAY_SEE_COUNTS = 1  # the user's permissions with those of their groups


@pytest.fixture
def owner(database: str) -> User:
    """Somebody with no permission but what the owner of a bucket has."""
    return api.person("owner")


@pytest.fixture
def own(owner: User, stored: Stored) -> Bucket:
    return Bucket.objects.create(name="own", owner=owner)


@pytest.fixture
def client(owner: User) -> Client:
    return Client(headers={"Authorization": f"Token {Token.objects.create(user=owner).key}"})


def statements(database: str, do: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connections[database]) as captured:
        answer = do()
        if getattr(answer, "streaming", False):
            b"".join(answer.streaming_content)
    assert getattr(answer, "status_code", 200) in (200, 201, 204, 206, 304)
    return [query["sql"] for query in captured]


def test_a_get_asks_for_the_token_and_the_object_with_its_bucket(database: str, own: Bucket, client: Client) -> None:
    url = f"/api/buckets/{own.pk}/objects/x"
    api.put(client, url)
    for headers in ({}, {"Range": "bytes=1-2"}, {"If-None-Match": "*"}):
        asked = statements(database, partial(client.get, url, headers=headers))
        tables = ["authtoken_token", "django_blobstore_managedresource"]
        assert len(asked) == len(tables)
        assert all(table in sql for table, sql in zip(tables, asked, strict=True))
    assert len(statements(database, lambda: client.head(url))) == 2


def test_a_get_of_ones_own_asks_for_the_token_and_the_object(database: str, own: Bucket, client: Client) -> None:
    api.put(client, "/api/me/objects/x")
    assert len(statements(database, lambda: client.get("/api/me/objects/x"))) == 2


def test_a_get_by_who_was_granted_it_asks_for_their_permissions_too(database: str, own: Bucket) -> None:
    reader = api.person("reader", "view_managedresource")
    url = f"/api/buckets/{own.pk}/objects/x"
    ManagedStorage().put(Namespace(bucket=own.pk), "x", b"content")
    by_token = Client(headers={"Authorization": f"Token {Token.objects.create(user=reader).key}"})
    assert len(statements(database, lambda: by_token.get(url))) == 2 + 2


@pytest.mark.parametrize("length", [7, 2 * MIB])
def test_a_put_adds_a_fixed_few_to_what_the_store_needs(
    database: str, own: Bucket, client: Client, length: int
) -> None:
    store, namespace = ManagedStorage(), Namespace(bucket=own.pk)
    store.put(namespace, "first", b"", create_bucket=False)  # makes what is made once
    url = f"/api/buckets/{own.pk}/objects/ours"
    for number in range(2):  # the first makes the object, the second replaces it
        theirs, ours = content_of(length + number), content_of(length + 2 + number)
        needed = statements(database, partial(store.put, namespace, "theirs", theirs, create_bucket=False))
        asked = statements(database, partial(api.put, client, url, ours))
        assert len(asked) == WHO_AND_WHERE + len(needed) + MAY_SEE_COUNTS


def test_a_delete_adds_a_fixed_few_to_what_the_store_needs(database: str, own: Bucket, client: Client) -> None:
    store, namespace = ManagedStorage(), Namespace(bucket=own.pk)
    for path, content in (("one", b"one"), ("two", b"two")):
        store.put(namespace, path, content)
    needed = statements(database, lambda: store.remove(namespace, "one"))
    asked = statements(database, lambda: client.delete(f"/api/buckets/{own.pk}/objects/two"))
    assert len(asked) == WHO_AND_WHERE + len(needed)


def test_requests_do_not_wait_for_each_other_to_learn_where_they_are() -> None:
    """Until Python 3.12 `functools.cached_property` has one lock for all instances, held while it asks the database."""

    class Meeting:
        both_ask = Barrier(2, timeout=120)

        @property
        def user(self) -> User:
            self.both_ask.wait()
            return User(pk=1)

    def place_of(request: Meeting) -> Place:
        view = StoreViewSet(kwargs={"route": "me"})
        view.request = request
        return view.place

    with ThreadPoolExecutor(2) as threads:
        places = list(threads.map(place_of, [Meeting(), Meeting()]))
    assert [place.route for place in places] == ["me", "me"]
