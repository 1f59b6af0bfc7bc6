"""What a project hears of, when, and what its receivers cannot do to the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.dispatch import Signal
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_blobstore import signals
from django_blobstore.errors import ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, Resource
from tests.invariants import assert_settled
from tests.stored import Stored

HOME = Namespace("home")
NAMES = ["object_stored", "object_removed", "resource_freed", "object_served"]


class Heard:
    """Everything that was sent, in order, as (signal, what it is about)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def listen(self, name: str, stack: ExitStack) -> None:
        signal: Signal = getattr(signals, name)

        def receive(**facts: Any) -> None:
            self.told.append((name, facts["managed"].path if "managed" in facts else facts["length"]))

        signal.connect(receive, weak=False)
        stack.callback(signal.disconnect, receive)

    def take(self) -> list[tuple[str, Any]]:
        """Return what was heard since the last time."""
        told, self.told = self.told, []
        return told


@pytest.fixture
def heard() -> Iterator[Heard]:
    listener = Heard()
    with ExitStack() as stack:
        for name in NAMES:
            listener.listen(name, stack)
        yield listener


@pytest.fixture
def store(database: str, stored: Stored) -> ManagedStorage:
    return ManagedStorage()


def test_each_change_is_told_once(store: ManagedStorage, heard: Heard) -> None:
    managed = store.put(HOME, "a", b"one")
    assert heard.take() == [("object_stored", "a")]
    store.copy(managed, HOME, "b")
    assert heard.take() == [("object_stored", "b")]
    store.put(HOME, "a", b"other")
    assert heard.take() == [("object_stored", "a")]
    store.put(HOME, "b", b"other")
    assert heard.take() == [("resource_freed", 3), ("object_stored", "b")]
    store.move(store.stat(HOME, "b"), HOME, "c")
    assert heard.take() == [("object_removed", "b"), ("object_stored", "c")]
    store.remove(HOME, "a")
    assert heard.take() == [("object_removed", "a")]
    store.remove(HOME, "c")
    assert sorted(heard.take()) == [("object_removed", "c"), ("resource_freed", 5)]
    with pytest.raises(ResourceNotFound):
        store.remove(HOME, "c")
    assert heard.take() == []


def test_nothing_is_told_before_the_commit_or_of_what_is_rolled_back(
    store: ManagedStorage, heard: Heard, database: str
) -> None:
    store.put(HOME, "a", b"one")
    heard.take()

    def fail() -> None:
        with transaction.atomic(using=database):
            store.put(HOME, "b", b"two", durable=False)
            store.remove(HOME, "a")
            assert heard.take() == []
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fail()
    assert heard.take() == []
    with transaction.atomic(using=database):
        store.put(HOME, "b", b"two", durable=False)
        assert heard.take() == []
    assert heard.take() == [("object_stored", "b")]


def test_receivers_find_what_they_are_told_of(store: ManagedStorage) -> None:
    found = []

    def receive(sender: type, managed: ManagedResource, **_: Any) -> None:
        found.append((sender, store.get(managed.namespace, managed.path).read(), managed.was_created))

    signals.object_stored.connect(receive)
    try:
        store.put(HOME, "a", b"one")
    finally:
        signals.object_stored.disconnect(receive)
    assert found == [(ManagedResource, b"one", True)]


@pytest.mark.parametrize("name", NAMES)
def test_a_receiver_that_fails_changes_nothing(
    store: ManagedStorage, stored: Stored, heard: Heard, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    signal: Signal = getattr(signals, name)

    def fail(**_: Any) -> None:
        raise ZeroDivisionError

    signal.connect(fail)
    try:
        store.put(HOME, "a", b"one")
        if name == "object_served":
            served(store)
        store.remove(HOME, "a")
    finally:
        signal.disconnect(fail)
    assert name in dict(heard.take())
    assert "ZeroDivisionError" in caplog.text
    assert_settled(stored)
    assert stored.names() == set()


def served(store: ManagedStorage, **headers: str) -> int:
    get_user_model().objects.create_superuser("admin", password="x")
    client = Client()
    client.login(username="admin", password="x")
    answer = client.get(f"/api/buckets/{HOME.bucket_id}/objects/a", headers=headers)
    list(answer)  # type: ignore[call-overload]
    return answer.status_code


def test_bytes_that_are_sent_are_told_of(store: ManagedStorage, heard: Heard) -> None:
    managed = store.put(HOME, "a", b"one")
    heard.take()
    assert served(store) == 200
    assert heard.take() == [("object_served", "a")]
    get_user_model().objects.all().delete()
    assert served(store, **{"If-None-Match": f'"{managed.resource.sha384}"'}) == 304
    assert heard.take() == []


@pytest.mark.parametrize("storage_kind", ["files"])
def test_bytes_that_a_web_server_sends_are_told_of_too(store: ManagedStorage, heard: Heard, settings: Settings) -> None:
    settings.BLOBSTORE = {"SERVE_METHOD": "x-sendfile"}
    store.put(HOME, "a", b"one")
    heard.take()
    assert served(store) == 200
    assert heard.take() == [("object_served", "a")]


def test_to_listen_costs_no_statement(store: ManagedStorage, database: str, heard: Heard) -> None:
    store.put(HOME, "warm", b"warm")
    with CaptureQueriesContext(connections[database]) as with_listeners:
        store.put(HOME, "a", b"one")
        store.remove(HOME, "a")
    for name in NAMES:
        signal: Signal = getattr(signals, name)
        assert signal.receivers
    assert Resource.objects.count() == 1
    heard.take()
    saved = {name: getattr(signals, name).receivers for name in NAMES}
    try:
        for name in NAMES:
            getattr(signals, name).receivers = []
        with CaptureQueriesContext(connections[database]) as without:
            store.put(HOME, "a", b"one")
            store.remove(HOME, "a")
    finally:
        for name, receivers in saved.items():
            getattr(signals, name).receivers = receivers
    assert len(with_listeners) == len(without)
    assert heard.take() == []
