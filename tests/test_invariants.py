"""That the checker used by other tests notices each way in which a store can be wrong, and names it."""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile
from django.db import connection

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import PendingFile, Resource, Totals, Usage
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.parametrize("storage_kind", ["files", "gridfs"])]


@pytest.fixture
def resource(stored: Stored) -> Resource:
    return ManagedStorage().put(Namespace("bucket"), "a", b"content").resource


def test_a_store_in_order_passes(stored: Stored, resource: Resource) -> None:
    assert_sound(stored)
    assert_settled(stored)


def test_a_wrong_count_is_noticed(stored: Stored, resource: Resource) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_blobstore_resource SET reference_count = 2")
    with pytest.raises(AssertionError, match="counts 2 references but 1 objects"):
        assert_sound(stored)


@pytest.mark.parametrize("column", Totals._fields)
def test_a_wrong_total_is_noticed(stored: Stored, resource: Resource, column: str) -> None:
    Usage.objects.update(**{column: 2})
    with pytest.raises(AssertionError, match=r"the totals of bucket .* should be"):
        assert_sound(stored)


def test_wrong_bytes_are_noticed(stored: Stored, resource: Resource) -> None:
    stored.storage.delete(resource.path)
    stored.storage.save(resource.path, ContentFile(b"CONTENT"))
    with pytest.raises(AssertionError, match=r"'a' .bucket .* cannot be read"):
        assert_sound(stored)


def test_a_lost_file_is_noticed(stored: Stored, resource: Resource) -> None:
    stored.storage.delete(resource.path)
    with pytest.raises(AssertionError, match="named by a resource and not stored"):
        assert_sound(stored)


def test_an_orphaned_file_is_noticed(stored: Stored, resource: Resource) -> None:
    stored.storage.save("orphan", ContentFile(b"1"))
    with pytest.raises(AssertionError, match="'orphan' is stored and no row names it"):
        assert_settled(stored)


def test_a_file_with_two_names_is_noticed(stored: Stored, resource: Resource) -> None:
    PendingFile.objects.create(path=resource.path, storage="blobstore", lease_until="9999-01-01T00:00:00Z")
    with pytest.raises(AssertionError, match="named by a resource and a pending file"):
        assert_sound(stored)


def test_a_file_that_stays_pending_is_noticed(stored: Stored, resource: Resource) -> None:
    PendingFile.objects.create(path="a", storage="no such alias", lease_until="9999-01-01T00:00:00Z")
    with pytest.raises(AssertionError, match="still pending after the sweep: 'a'"):
        assert_settled(stored)


def test_anything_left_is_noticed(stored: Stored, resource: Resource) -> None:
    with pytest.raises(AssertionError, match=r"object 'a'(.|\n)*count 1(.|\n)*stored file"):
        assert_empty(stored)
