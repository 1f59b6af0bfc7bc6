"""Pages of a namespace: their order, their folders, and what they cost."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db.models import QuerySet

from django_blobstore import listing
from django_blobstore.errors import InvalidPath
from django_blobstore.listing import Wanted, list_page, start_of_page_to
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


def walk_back(
    namespace: Namespace, last: str, *, limit: int, wanted: Wanted | None = None, prefix: str = ""
) -> list[str]:
    """Return the entries of the pages up to that which ends with `last`, read from the last page to the first."""
    entries: list[str] = []
    how: dict[str, Any] = {"wanted": wanted} if wanted else {}
    after = last
    while after:
        start = start_of_page_to(after, namespace, limit=limit, prefix=prefix, **how)
        page = list_page(namespace, after=start, limit=limit, prefix=prefix, folders=not wanted, **how)
        here = sorted([managed.path for managed in page.objects] + page.prefixes, key=str.encode)
        entries = [entry for entry in here if entry.encode() <= after.encode()] + entries
        assert not start or len(here) == limit or wanted
        after = start
    return entries


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


def test_pages_of_folders_are_walked_back_as_they_came(database: str, django_assert_num_queries: Any) -> None:
    choice = random.Random(2)
    paths = {"/".join(choice.choices(["a", "b", "0", "-", "ü", "z z"], k=choice.randint(1, 4))) for _ in range(300)}
    for namespace in NAMESPACES:
        fill(namespace, PATHS)
    fill(Namespace(user="8"), paths)
    cases = [(namespace, PATHS, prefix) for namespace in NAMESPACES for prefix in ["", "a/", "b"]]
    cases += [(Namespace(user="8"), paths, prefix) for prefix in ["", "a/", "a/b/"]]
    for (namespace, there, prefix), limit in product(cases, [1, 3, 1000]):
        entries = entries_of(there, prefix)
        assert walk_back(namespace, entries[-1], limit=limit, prefix=prefix) == entries
    with django_assert_num_queries(1, using=database):
        assert start_of_page_to("b/", BUCKET, limit=2) == "a/"
    with pytest.raises(InvalidPath):
        start_of_page_to("a\0", BUCKET)


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


def fill_lengths(count: int) -> None:
    """Put `count` objects of the lengths 0, 1, 2, …, modified a minute after each other, into the bucket."""
    Bucket.objects.create(pk=BUCKET.bucket_id)
    contents = [Resource(sha384=f"{n:096x}", length=n, path=f"{n}") for n in range(count)]
    Resource.objects.bulk_create(contents)
    QuerySet(ManagedResource).bulk_create(
        ManagedResource(bucket_id=BUCKET.bucket_id, path=f"{n:04}", resource=content, modified_at=minute(n))
        for n, content in enumerate(contents)
    )


def minute(number: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)


def found(wanted: Wanted, *, limit: int, **where: Any) -> tuple[list[str], int]:
    """Return the paths of what is wanted, and how many pages they came in."""
    paths: list[str] = []
    pages, after = 0, ""
    while True:
        page = list_page(BUCKET, after=after, limit=limit, wanted=wanted, **where)
        assert len(page.objects) <= limit
        paths += [managed.path for managed in page.objects]
        pages += 1
        if not page.next_after:
            return paths, pages
        after = page.next_after


WANTED: list[tuple[Wanted, Iterable[int]]] = [
    (Wanted(min_length=45), range(45, 50)),
    (Wanted(max_length=3), range(4)),
    (Wanted(min_length=7, max_length=7), [7]),
    (Wanted(min_length=8, max_length=7), []),
    (Wanted(modified_since=minute(48)), [48, 49]),
    (Wanted(min_length=10, max_length=20, modified_since=minute(19)), [19, 20]),
    (Wanted(sha384=f"{30:096x}"), [30]),
    (Wanted(sha384=f"{30:096x}", min_length=31), []),
    (Wanted(sha384="f" * 96), []),
]


@pytest.mark.parametrize("examined", [1, 7, 50, 51])
def test_what_is_wanted_is_found_however_little_a_page_looks_at(
    database: str, monkeypatch: pytest.MonkeyPatch, examined: int
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", examined)
    fill_lengths(50)
    for wanted, numbers in WANTED:
        for limit in (1, 3, 100):
            assert found(wanted, limit=limit)[0] == [f"{n:04}" for n in numbers], (wanted, limit)
        under = [f"{n:04}" for n in numbers if 10 <= n < 20]
        assert found(wanted, limit=100, prefix="001")[0] == under, wanted


@pytest.mark.parametrize("examined", [1, 7, 50])
def test_pages_of_what_is_wanted_are_walked_back_however_little_a_page_looks_at(
    database: str, monkeypatch: pytest.MonkeyPatch, examined: int
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", examined)
    monkeypatch.setattr(listing, "SEARCHED", examined)
    fill_lengths(50)
    for limit in (1, 3, 100):
        for wanted, numbers in [
            (Wanted(min_length=45), range(45, 50)),
            (Wanted(text="4"), [n for n in range(50) if "4" in str(n)]),
            (Wanted(sha384=f"{49:096x}"), [49]),
        ]:
            assert walk_back(BUCKET, "0049", limit=limit, wanted=wanted) == [f"{n:04}" for n in numbers]


def test_a_page_looks_at_a_fixed_number_of_objects_and_says_where_to_go_on(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", 10)
    fill_lengths(50)
    page = list_page(BUCKET, wanted=Wanted(min_length=45))
    assert (page.objects, page.next_after) == ([], "0009")
    assert found(Wanted(min_length=45), limit=100)[1] == 5
    assert found(Wanted(sha384=f"{45:096x}"), limit=100)[1] == 1


def test_a_content_with_very_many_references_is_listed_in_pages_too(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", 4)
    fill(BUCKET, PATHS)
    assert found(Wanted(sha384="0" * 96), limit=3)[0] == PATHS
    assert found(Wanted(sha384="1" * 96), limit=3) == ([], 1)
    others = [Namespace(bucket=UUID(int=2)), Namespace(user="7")]
    for namespace in others:
        fill(namespace, ["x"])
        page = list_page(namespace, wanted=Wanted(sha384="0" * 96))
        assert ([managed.path for managed in page.objects], page.next_after) == (["x"], "")


def test_a_page_of_what_is_wanted_takes_two_queries(database: str, django_assert_num_queries: Any) -> None:
    fill_lengths(50)
    for wanted in (Wanted(sha384=f"{30:096x}"), Wanted(min_length=1), Wanted(modified_since=minute(3))):
        with django_assert_num_queries(2, using=database):
            assert [managed.resource.length for managed in list_page(BUCKET, wanted=wanted).objects]
