"""A bucket of a million objects against one of a thousand, each in a catalog and a GridFS of its own.

Run ``python -m tests.benchmarks.scale [--objects N] [--sqlite] [--rounds N] [--only TEXT]``, or the group ``scale``.
Each row says how many times as long the same work takes in the large bucket; pages have the same number of entries on
both sides.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.duel import ROUNDS, Options, Row, duel, shown, table
from tests.benchmarks.ground import deployment

LARGE, SMALL = 1_000_000, 1_000
CONTENTS = 10  # objects for each content
AT_MOST = 1.5
PAGE = 100
FILES_IN_FOLDER = 40  # those that the large folder of a bucket of a thousand objects has
LENGTH = 1000

Work = Callable[["Side"], Callable[[], Any]]


def rows(options: Options, *, objects: int = LARGE, postgresql: bool = True, only: str = "") -> Iterator[Row]:
    """Yield every row, or those whose name has the text `only` in it."""
    with deployment(postgresql=postgresql) as directory, two_sides(directory, objects, postgresql) as sides:
        for name, each, work in [*pages(), *single_objects(), *admin_pages(), ("sweep, nothing due", 20, sweeping)]:
            if only in name:
                yield compared(name, work, sides, options.rounds, each)
        if only:
            return
        yield removals(sides, options.rounds)
        yield audits(sides)


class Side:
    """A bucket, alone in its catalog and storage, and the people who look at it."""

    def __init__(self, alias: str, objects: int) -> None:
        self.alias = alias
        self.objects = objects
        self.fresh = (f"fresh/{n:09}" for n in itertools.count())
        self.put_paths: list[str] = []

    def load(self) -> None:
        """Fill the bucket, and find out what the work needs to know of it."""
        from django.core.management import call_command
        from django.core.management.base import OutputWrapper

        from django_blobstore.management.wording import Bar
        from django_blobstore.models import ManagedResource, Resource
        from django_blobstore.namespaces import Namespace
        from django_blobstore.upkeep import measure
        from example_project.loading import load_bucket

        self.use()
        call_command("migrate", database=self.alias, verbosity=0)
        contents = max(1, self.objects // CONTENTS)
        bar = Bar(OutputWrapper(sys.stderr))
        self.bucket = load_bucket("loaded", objects=self.objects, contents=contents, on_progress=bar.show)
        bar.clear()
        self.namespace = Namespace(bucket=self.bucket.pk)
        inside = ManagedResource.objects.within(self.namespace)
        alike = inside.filter(resource__length=LENGTH).order_by("pk")[: self.objects // 4]
        self.paths = itertools.cycle([managed.path for managed in alike][:: max(1, self.objects // 200)])
        self.shared = Resource.objects.order_by("-reference_count").values_list("pk", flat=True)[0]
        measure()
        self._let_people_in()

    def _let_people_in(self) -> None:
        from django.test import Client
        from rest_framework.test import APIClient

        from tests.rest.api import administrator

        user = administrator()
        self.admin, self.api = Client(), APIClient()
        self.admin.force_login(user)
        self.api.force_authenticate(user)

    def use(self) -> None:
        """Let all that follows be about this side."""
        from django.conf import settings

        from tests.routers import OneDatabase

        OneDatabase.alias = self.alias
        settings.BLOBSTORE = {"STORAGE": _STORAGES[self.alias]}

    def bound(self, work: Work) -> Callable[[], Any]:
        self.use()
        do = work(self)

        def bound() -> None:
            self.use()
            do()

        return bound


_STORAGES = {"default": "blobstore", "small": "small"}


@contextmanager
def two_sides(directory: Path, objects: int, postgresql: bool) -> Iterator[tuple[Side, Side]]:
    from django.conf import settings
    from django.db import connections
    from django.test import override_settings

    if postgresql:
        with connections["default"].cursor() as cursor:
            cursor.execute("CREATE DATABASE small")
    name = "small" if postgresql else str(directory / "small.sqlite3")
    connections.settings["small"] = {**connections.settings["default"], "NAME": name}
    storage = settings.STORAGES["blobstore"]
    storage = {**storage, "OPTIONS": {**storage["OPTIONS"], "database": "small"}}
    with override_settings(STORAGES={**settings.STORAGES, "small": storage}), ExitStack() as stack:
        sides = Side("default", objects), Side("small", SMALL)
        for side in sides:
            stack.callback(lambda side=side: connections[side.alias].close())
            side.load()
        yield sides


def compared(name: str, work: Work, sides: tuple[Side, Side], rounds: int, each: int) -> Row:
    large, small = sides
    return duel(
        name,
        large.bound(work),
        small.bound(work),
        against=f"{SMALL:,} objects",
        at_most=AT_MOST,
        rounds=rounds,
        each=each,
    )


def pages() -> Iterator[tuple[str, int, Work]]:
    """Yield the listings, from Python and over REST."""
    for name, options in {
        f"first page of {PAGE}": {},
        f"deep page of {PAGE}": {"after": "inbox/"},
        "folder page of the root": {"folders": True},
        f"folder page, {FILES_IN_FOLDER} files": {"prefix": "inbox/", "folders": True, "limit": FILES_IN_FOLDER},
    }.items():
        yield f"{name}, list_page", 20, partial(listing, {"limit": PAGE, **options})
        yield f"{name}, REST", 5, partial(rest_listing, {"limit": PAGE, **options})


def listing(options: dict[str, Any], side: Side) -> Callable[[], Any]:
    from django_blobstore.listing import list_page

    def read() -> None:
        page = list_page(side.namespace, **options)
        assert page.objects

    return read


def rest_listing(options: dict[str, Any], side: Side) -> Callable[[], Any]:
    query = {name: value for name, value in options.items() if name != "folders"}
    if "folders" in options:
        query["delimiter"] = "/"

    def read() -> None:
        assert side.api.get(f"/api/buckets/{side.bucket.pk}/objects/", query).json()["objects"]

    return read


def single_objects() -> Iterator[tuple[str, int, Work]]:
    yield f"get, {LENGTH} bytes", 50, getting
    yield f"put, {LENGTH} bytes", 20, putting
    yield "bucket with its totals, REST", 20, partial(visiting, lambda side: (side.api, f"buckets/{side.bucket.pk}/"))


def getting(side: Side) -> Callable[[], Any]:
    from django_blobstore.managed import ManagedStorage

    store = ManagedStorage()

    def get() -> None:
        with store.get(side.namespace, next(side.paths)) as blob:
            assert len(blob.read()) == LENGTH

    return get


def putting(side: Side) -> Callable[[], Any]:
    from django_blobstore.managed import ManagedStorage

    store = ManagedStorage()

    def put() -> None:
        path = next(side.fresh)
        store.put(side.namespace, path, path.encode().ljust(LENGTH, b"."))
        side.put_paths.append(path)

    return put


def removing(side: Side) -> Callable[[], Any]:
    from django_blobstore.managed import ManagedStorage

    store = ManagedStorage()
    return lambda: store.remove(side.namespace, side.put_paths.pop())


def removals(sides: tuple[Side, Side], rounds: int) -> Row:
    """Compare removals of what was put before, without the time of the puts."""
    each = 20

    def put_again() -> None:
        for side in sides:
            put = side.bound(putting)
            while len(side.put_paths) < each:
                put()

    large, small = sides
    against = f"{SMALL:,} objects"
    compare = partial(duel, against=against, at_most=AT_MOST, rounds=rounds, each=each, between=put_again)
    return compare("remove", large.bound(removing), small.bound(removing))


def admin_pages() -> Iterator[tuple[str, int, Work]]:
    from django.urls import reverse

    def page(model: str, name: str = "changelist", *args: Any) -> str:
        return reverse(f"admin:django_blobstore_{model}_{name}", args=args)

    def visit(address: Callable[[Side], str]) -> Work:
        return partial(visiting, lambda side: (side.admin, address(side)))

    def in_bucket(side: Side) -> str:
        return f"{page('managedresource')}?bucket__uuid__exact={side.bucket.pk}"

    yield "admin, newest objects", 2, visit(lambda side: page("managedresource"))
    yield "admin, objects of a bucket", 2, visit(in_bucket)
    yield "admin, last objects of a bucket", 2, visit(lambda side: f"{in_bucket(side)}&p=last")
    yield "admin, search in a bucket", 2, visit(lambda side: f"{in_bucket(side)}&q=clients/0")
    yield "admin, newest contents", 2, visit(lambda side: page("resource"))
    yield "admin, buckets with totals", 5, visit(lambda side: page("bucket"))
    yield "admin, a folder", 5, visit(lambda side: f"{page('managedresource', 'browse')}?bucket={side.bucket.pk}")
    yield "admin, a content and 100 references", 2, visit(lambda side: page("resource", "change", side.shared))
    yield "admin, dashboard", 5, visit(lambda side: page("measurement"))
    yield "admin, dashboard of a bucket", 5, visit(lambda side: page("measurement", "bucket", side.bucket.pk))


def visiting(address: Callable[[Side], tuple[Any, str]], side: Side) -> Callable[[], Any]:
    client, path = address(side)

    def visit() -> None:
        assert client.get(path if path.startswith("/") else f"/api/{path}").status_code == 200

    return visit


def sweeping(side: Side) -> Callable[[], Any]:
    from django_blobstore.upkeep import sweep

    return sweep


def audits(sides: tuple[Side, Side]) -> Row:
    """Compare the time of an audit per object; it reads each row and each file's name, and finds nothing wrong."""
    seconds = [_audited(side) / side.objects for side in sides]
    large, small = ([each] for each in seconds)
    return Row(
        "audit, per object",
        f"{SMALL:,} objects",
        shown(large),
        shown(small),
        seconds[0] / seconds[1],
        at_most=AT_MOST,
    )


def _audited(side: Side) -> float:
    from django_blobstore.upkeep import audit

    side.use()
    began = time.perf_counter()
    assert not audit().findings.tallies
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale")
    parser.add_argument("--objects", type=int, default=LARGE, help="in the large bucket (%(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="keep the catalogs in SQLite, not PostgreSQL")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each pair is timed (%(default)s)")
    parser.add_argument("--only", default="", help="compare only what has this text in its name")
    chosen = parser.parse_args(arguments)
    found = []
    for row in rows(Options(chosen.rounds), objects=chosen.objects, postgresql=not chosen.sqlite, only=chosen.only):
        print(row, flush=True)
        found.append(row)
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
