"""Gates without noise: what a page asks the database may not grow with the tables, only with the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_blobstore import listing
from django_blobstore.admin import browser, objects, references, removal
from django_blobstore.admin.base import StoreAdmin
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import (
    Bucket,
    ManagedResource,
    Measurement,
    PendingFile,
    PutRequest,
    Resource,
    UpkeepRun,
)
from django_blobstore.upkeep import audit, measure, sweep
from example_project.loading import load_bucket
from tests.admin_pages import administrator, page
from tests.conftest import DATABASES
from tests.query_plans import complaints, sorts_in_sqlite
from tests.routers import OneDatabase
from tests.stored import Stored

# As many as make a scan show; docs/performance.md says how a million fared.
OBJECTS = int(os.environ.get("BLOBSTORE_PLANNED_OBJECTS", "20000"))
QUERIES_PER_PAGE = 12
# A page reads each of its objects, their contents, and one more of each.
PER_PAGE = 20
ROWS_PER_PAGE = 60
HASH = "ab" * 48

pytestmark = [
    pytest.mark.parametrize("storage_kind", ["memory"]),
    pytest.mark.django_db(transaction=True, databases=["postgres"]),
]


@pytest.fixture
def large(postgres: Any, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of many objects, with some outside, in a catalog with as many files and requests under way."""
    monkeypatch.setattr(objects, "SEARCHED_EVERYWHERE", PER_PAGE * 2)
    monkeypatch.setattr(StoreAdmin, "list_per_page", PER_PAGE)
    monkeypatch.setattr(references, "PER_PAGE", PER_PAGE)
    monkeypatch.setattr(browser, "PER_PAGE", PER_PAGE)
    with OneDatabase.using(DATABASES["postgresql"]):
        ManagedStorage().put(Namespace(), "shared/logo.png", b"logo")
        ManagedStorage().put(Namespace(user="7"), "mine.txt", b"mine")
        _make_requests(5_000)
        _make_files(5_000)
        bucket = load_bucket("large", objects=OBJECTS, contents=OBJECTS // 4)
        _look_after()
        yield bucket


def _look_after() -> None:
    """Write down what the dashboard tells."""
    measure()
    sweep()
    audit()


def _make_requests(number: int) -> None:
    later = timezone.now() + timedelta(days=1)
    states = [*[PutRequest.State.USED] * 99, PutRequest.State.FAILED]
    PutRequest.objects.bulk_create(
        PutRequest(id=f"{n}", path="a", sha384=HASH, length=1, nonce=b"", ranges=[], state=state, expires_at=later)
        for n, state in ((n, states[n % 100]) for n in range(number))
    )


def _make_files(number: int) -> None:
    later = timezone.now() + timedelta(days=1)
    PendingFile.objects.bulk_create(
        PendingFile(path=f"{n:08}", storage="blobstore", discard=True, due_at=later + timedelta(seconds=n))
        for n in range(number)
    )


def admin_pages(bucket: Bucket) -> Iterator[str]:
    """Yield the address of every kind of page."""
    shared = Resource.objects.order_by("-reference_count").first()
    for model, queries in {
        Bucket: ["", "q=large"],
        ManagedResource: [
            "",
            "q=clients/0",
            "namespace=bucket",
            "namespace=bucket&q=clients/0",
            "namespace=user",
            "namespace=global",
            "user__exact=7",
            f"bucket__uuid__exact={bucket.pk}",
            f"bucket__uuid__exact={bucket.pk}&q=clients/03/projects/",
            f"bucket__uuid__exact={bucket.pk}&q=inbox/000010",
            f"bucket__uuid__exact={bucket.pk}&o=-1",
            f"bucket__uuid__exact={bucket.pk}&o=3",
            "o=1",
        ],
        Resource: ["", "q=a", f"q={shared.sha384}", "o=-1", "o=3", "o=7", "q=a&state=sound"]
        + [f"state={state}" for state in ("sound", "damaged", "missing", "pending")],
        PutRequest: [""] + [f"state={state}" for state in ("open", "expired", "claimed", "used", "failed")],
        PendingFile: ["", *(f"state={state}" for state in ("arriving", "abandoned", "waiting", "due"))],
    }.items():
        yield from (f"{page(model, 'changelist')}?{query}" for query in queries)
    yield from (page(model, "changelist") for model in (Measurement, UpkeepRun))
    yield page(Measurement, "bucket", bucket.pk)
    browse = page(ManagedResource, "browse")
    yield from (browse, f"{browse}?namespace=global", f"{browse}?user=7")
    for query in ("", "&folder=clients/", "&folder=inbox/", "&after=clients/", "&folder=inbox/&after=inbox/000010"):
        yield f"{browse}?bucket={bucket.pk}{query}"
    notes = ManagedResource.objects.get(path="notes-3.txt")
    yield from (page(ManagedResource, name, notes.pk) for name in ("copy", "move", "replace", "history"))
    rows = [bucket, notes, shared]
    rows += [PutRequest.objects.first(), PendingFile.objects.first(), UpkeepRun.objects.get(kind="audit")]
    yield from (page(type(row), "change", row.pk) for row in rows)


def pages_beside(response: HttpResponse) -> Iterator[str]:
    """Yield, for the first page of a list, the next and the last one, and for the last one that before it."""
    lists = getattr((response.context or {}).get("cl"), "page_links", [])
    queries = {str(link.text): link.query for link in lists}
    wanted = ["Previous"] if "Next" not in queries else ["Next", "Last"] if "Previous" not in queries else []
    yield from (response.request["PATH_INFO"] + queries[text] for text in wanted if text in queries)


def rest_pages(bucket: Bucket) -> Iterator[str]:
    objects = f"/api/buckets/{bucket.pk}/objects/"
    yield from ("/api/buckets/", "/api/buckets/?name=large", f"/api/buckets/{bucket.pk}/", f"{objects}notes-3.txt")
    yield from ("/api/me/objects/", "/api/global/objects/", "/api/global/objects/?delimiter=/")
    for query in (
        "",
        "after=clients/50",
        "after=zzz",
        "delimiter=/",
        "prefix=clients/&delimiter=/",
        "prefix=clients/03/projects/00&delimiter=/",
        "prefix=inbox/",
    ):
        yield f"{objects}?limit={PER_PAGE}&{query}"


def pages_by_hash(bucket: Bucket) -> Iterator[str]:
    """Yield listings of a content; SQLite sorts its references, of which so many are looked at only."""
    for sha384 in (Resource.objects.order_by("pk")[1].sha384, HASH):
        yield f"/api/buckets/{bucket.pk}/objects/?limit={PER_PAGE}&sha384={sha384}"


def test_no_page_counts_skips_or_scans_a_large_table(large: Bucket) -> None:
    alias, client, wrong = DATABASES["postgresql"], administrator(), []
    addresses = [*admin_pages(large), *rest_pages(large), *pages_by_hash(large)]
    for address in addresses:
        with CaptureQueriesContext(connections[alias]) as queries:
            response = client.get(address)
        assert response.status_code == 200, address
        wrong += [f"{address}: {complaint}" for complaint in complaints(alias, queries, rows=ROWS_PER_PAGE)]
        wrong += [f"{address}: {len(queries)} queries"] if len(queries) > QUERIES_PER_PAGE else []
        addresses += set(pages_beside(response)).difference(addresses)
    assert not wrong, "\n".join(wrong)
    assert len(addresses) > 100


def test_a_page_of_what_no_index_finds_looks_at_so_many_and_no_more(
    large: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXAMINED", PER_PAGE)
    alias, client, wrong = DATABASES["postgresql"], administrator(), []
    for query in ("min_length=1", "max_length=0", "modified_since=2999-01-01T00:00:00Z"):
        for after in ("", "clients/50"):
            with CaptureQueriesContext(connections[alias]) as queries:
                page = client.get(f"/api/buckets/{large.pk}/objects/?after={after}&{query}").json()
            assert page["next"], query
            # To skip what one page looks at is to look at it.
            found = complaints(alias, queries, rows=ROWS_PER_PAGE)
            wrong += [f"{query}: {complaint}" for complaint in found if not complaint.startswith("OFFSET")]
    assert not wrong, "\n".join(wrong)


def test_a_search_or_a_removal_looks_at_so_many_objects_and_no_more(
    large: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SEARCHED", PER_PAGE)
    monkeypatch.setattr(removal, "COUNTED", PER_PAGE)
    alias, client, wrong = DATABASES["postgresql"], administrator(), []
    within = f"bucket={large.pk}"
    notes = ManagedResource.objects.get(path="notes-3.txt")
    for address in (
        f"{page(ManagedResource, 'browse')}?{within}&q=final",
        f"{page(ManagedResource, 'browse')}?{within}&folder=clients/03/&q=final",
        f"{page(ManagedResource, 'remove')}?{within}&folder=clients/",
        page(ManagedResource, "delete", notes.pk),
        page(Bucket, "delete", large.pk),
    ):
        with CaptureQueriesContext(connections[alias]) as queries:
            assert client.get(address).status_code == 200, address
        # To skip or to count what one page looks at is to look at it.
        found = complaints(alias, queries, rows=ROWS_PER_PAGE)
        wrong += [f"{address}: {one}" for one in found if not one.startswith(("OFFSET", "COUNT"))]
        wrong += [f"{address}: {len(queries)} queries"] if len(queries) > QUERIES_PER_PAGE else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.django_db(transaction=True)
def test_no_page_has_sqlite_sort_a_large_table(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreAdmin, "list_per_page", PER_PAGE)
    _make_requests(100)
    _make_files(100)
    alias, client, wrong = DATABASES["sqlite"], administrator(), []
    bucket = load_bucket("large", objects=5_000, contents=500)
    _look_after()
    addresses = [*admin_pages(bucket), *rest_pages(bucket)]
    for address in addresses:
        with CaptureQueriesContext(connections[alias]) as queries:
            response = client.get(address)
        wrong += [f"{address}: {sort}" for sort in sorts_in_sqlite(alias, queries)]
        addresses += set(pages_beside(response)).difference(addresses)
    assert not wrong, "\n".join(wrong)
    with CaptureQueriesContext(connections[alias]) as queries:
        list(ManagedResource.objects.order_by("content_type")[:10])
    assert list(sorts_in_sqlite(alias, queries)), "the gate lets a sort pass"


def test_the_gate_complains_of_what_it_is_there_for(postgres: Any, stored: Stored) -> None:
    with OneDatabase.using(DATABASES["postgresql"]) as alias:
        load_bucket("large", objects=2_000, contents=1_000)
        for read in (
            lambda: ManagedResource.objects.count(),
            lambda: list(ManagedResource.objects.order_by("pk")[20:40]),
            lambda: list(ManagedResource.objects.filter(path__contains="x")),
            lambda: list(Resource.objects.order_by("pk")[:100]),
        ):
            with CaptureQueriesContext(connections[alias]) as queries:
                read()
            assert list(complaints(alias, queries, rows=ROWS_PER_PAGE))
