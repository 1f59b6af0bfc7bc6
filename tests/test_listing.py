"""Pages of a namespace: their order, their folders, and what they cost."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db.models import QuerySet

from django_blobstore.errors import InvalidPath
from django_blobstore.listing import list_page
from django_blobstore.models import Bucket, ManagedResource, Resource
from django_blobstore.namespaces import Namespace

BUCKET = Namespace(bucket=UUID(int=1))
NAMESPACES = [BUCKET, Namespace(user="7"), Namespace()]

# In byte order, which is neither that of any language nor that of UTF-16.
PATHS = ["A", "Z", "a", "a!", "a/b", "a/b!", "a/b/c", "a/c", "a0", "b", "ä", "\uffee", "\U0001f600", "\U0010ffff/x"]


def fill(namespace: Namespace, paths: Iterable[str]) -> None:
    if namespace.bucket_id:
        Bucket.objects.get_or_create(pk=namespace.bucket_id)
    resource = Resource.objects.get_or_create(sha384="0" * 96, defaults={"length": 1})[0]
    rows = [
        ManagedResource(bucket_id=namespace.bucket_id, user=namespace.user, path=path, resource=resource)
        for path in paths
    ]
    # Past the guard of reference counts, which do not matter here.
    QuerySet(ManagedResource).bulk_create(rows, batch_size=1000)


def walk(namespace: Namespace, *, limit: int, **wanted: Any) -> list[str]:
    """Return the entries of all pages, one after the other."""
    entries: list[str] = []
    after = ""
    while True:
        page = list_page(namespace, after=after, limit=limit, **wanted)
        here = sorted([managed.path for managed in page.objects] + page.prefixes, key=str.encode)
        assert len(here) == limit or not page.next_after
        entries += here
        if not page.next_after:
            return entries
        after = page.next_after


def entries_of(paths: Iterable[str], prefix: str) -> list[str]:
    """Return what a listing with folders must give, told the slow way."""
    found = set()
    for path in paths:
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            found.add(prefix + name + slash)
    return sorted(found, key=str.encode)


def test_all_paths_come_once_in_byte_order_whatever_the_page_size(database: str) -> None:
    for namespace in NAMESPACES:
        fill(namespace, reversed(PATHS))
    for namespace, limit in product(NAMESPACES, [1, 2, 5, len(PATHS), 1000]):
        assert walk(namespace, limit=limit) == PATHS


def test_folders_come_once_among_the_objects_in_byte_order(database: str) -> None:
    for namespace in NAMESPACES:
        fill(namespace, PATHS)
    prefixes = ["", "a", "a/", "a/b", "a/b/", "b", "\U0010ffff", "\U0010ffff/", "nothing"]
    for namespace, prefix, limit in product(NAMESPACES, prefixes, [1, 2, 5, 1000]):
        assert walk(namespace, limit=limit, prefix=prefix, folders=True) == entries_of(PATHS, prefix)


def test_random_trees_are_listed_as_the_slow_way_lists_them(database: str) -> None:
    choice = random.Random(1)
    paths = {"/".join(choice.choices(["a", "b", "0", "-", "ü", "z z"], k=choice.randint(1, 4))) for _ in range(300)}
    fill(BUCKET, paths)
    for prefix in ["", "a/", "b", "a/b/", "-/0"]:
        assert walk(BUCKET, limit=7, prefix=prefix, folders=True) == entries_of(paths, prefix)
        flat = sorted((path for path in paths if path.startswith(prefix)), key=str.encode)
        assert walk(BUCKET, limit=7, prefix=prefix) == flat


def test_a_page_says_apart_what_is_an_object_and_what_a_folder(database: str) -> None:
    fill(BUCKET, ["a", "a/b", "c"])
    page = list_page(BUCKET, limit=2, folders=True)
    assert ([managed.path for managed in page.objects], page.prefixes, page.next_after) == (["a"], ["a/"], "a/")


def test_after_a_path_inside_a_folder_the_folder_comes_if_more_is_in_it(database: str) -> None:
    fill(BUCKET, ["a/b", "a/c", "d"])
    assert list_page(BUCKET, after="a/b", folders=True).prefixes == ["a/"]
    assert list_page(BUCKET, after="a/c", folders=True).prefixes == []
    assert list_page(BUCKET, after="a/", folders=True).prefixes == []


def test_a_page_of_one_namespace_has_nothing_of_another(database: str) -> None:
    others = [Namespace(bucket=UUID(int=2)), Namespace(bucket=UUID(int=1), user="7"), Namespace(user="8")]
    for number, namespace in enumerate([*NAMESPACES, *others]):
        fill(namespace, [f"x/{number}", f"y{number}"])
    for number, namespace in enumerate([*NAMESPACES, *others]):
        assert walk(namespace, limit=10) == [f"x/{number}", f"y{number}"]
        assert walk(namespace, limit=10, folders=True) == ["x/", f"y{number}"]


def test_a_page_takes_two_queries_however_much_is_in_its_folders(database: str, django_assert_num_queries: Any) -> None:
    fill(BUCKET, [f"folder {folder}/{number}" for folder in range(20) for number in range(200)])
    fill(BUCKET, [f"object {number}" for number in range(20)])
    with django_assert_num_queries(2, using=database):
        page = list_page(BUCKET, limit=30, folders=True)
        assert [managed.resource.length for managed in page.objects] == [1] * 10
    with django_assert_num_queries(1, using=database):
        assert [managed.resource.length for managed in list_page(BUCKET, limit=30).objects] == [1] * 30


@pytest.mark.parametrize("name", ["prefix", "after"])
def test_text_that_no_path_can_have_is_refused_before_the_database_sees_it(
    database: str, name: str, django_assert_num_queries: Any
) -> None:
    for text in ["a\0", "a\n", "\ufffd", chr(0xD800), "x" * 1025]:
        with django_assert_num_queries(0, using=database), pytest.raises(InvalidPath):
            list_page(BUCKET, **{name: text})
