"""Written-out SQL does what Django's own would: the same models come back, and whoever listens is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_delete, pre_save

from django_blobstore import rows
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, PendingFile, Resource
from tests.invariants import assert_settled
from tests.stored import Stored

pytestmark = pytest.mark.parametrize("storage_kind", ["memory"])

NAMESPACES = [Namespace("b"), Namespace(user="7"), Namespace("b", "7"), Namespace()]


@pytest.mark.parametrize("namespace", NAMESPACES, ids=str)
def test_an_object_is_found_with_every_column_as_django_reads_it(
    database: str, stored: Stored, namespace: Namespace
) -> None:
    store = ManagedStorage()
    for other in NAMESPACES:
        store.put(other, "a", str(other).encode(), content_type="text/plain", metadata={"one": [1, None, "ü"]})
    found = rows.find_object(database, namespace, "a")
    expected = ManagedResource.objects.select_related("resource", "bucket").at(namespace, "a").get()
    assert found
    for given, wanted in [(found, expected), (found.resource, expected.resource)]:
        for field in type(wanted)._meta.concrete_fields:
            assert getattr(given, field.attname) == getattr(wanted, field.attname), field
        assert (given._state.adding, given._state.db) == (False, database)
    assert found.bucket == expected.bucket
    assert rows.find_object(database, namespace, "b") is None


def test_what_is_inserted_is_as_if_saved(database: str, stored: Stored) -> None:
    managed = ManagedStorage().put(Namespace(), "a", b"1", metadata={"one": 1})
    assert managed.pk
    assert not managed._state.adding
    managed.content_type = "text/plain"
    managed.save()
    assert ManagedResource.objects.get().content_type == "text/plain"


@pytest.fixture(params=[pre_save, post_save, pre_delete, post_delete], ids=["pre_save", "post_save", "pre_", "post_"])
def heard(request: pytest.FixtureRequest) -> Iterator[list[tuple[type, object]]]:
    """What one of the four signals told."""
    told: list[tuple[type, object]] = []
    signal: ModelSignal = request.param

    def receiver(sender: type, instance: object, **_: object) -> None:
        told.append((sender, getattr(instance, "path", None)))

    for model in (ManagedResource, PendingFile, Resource):
        signal.connect(receiver, model)
    yield told
    for model in (ManagedResource, PendingFile, Resource):
        signal.disconnect(receiver, model)


def test_whoever_listens_to_objects_is_told_of_puts_and_removals(
    database: str, stored: Stored, heard: list[tuple[type, object]]
) -> None:
    store = ManagedStorage()
    store.put(Namespace(), "a", b"1")
    store.remove(Namespace(), "a")
    assert [path for model, path in heard if model is ManagedResource] == ["a"]
    assert_settled(stored)
