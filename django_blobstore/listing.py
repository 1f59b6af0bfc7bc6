"""Pages of a namespace in byte order of the paths, as objects and folders, at a cost that only the page decides.

A page starts right after the last entry of the one before it (keyset), and a folder is passed over by one look into
the index, however much is in it (skip scan). Where no index helps to find what is wanted, a page looks at `EXAMINED`
objects and the next one goes on from there, however few were found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q

from django_blobstore.models import ManagedResource, ManagedResourceQuerySet, after_prefix
from django_blobstore.namespaces import Namespace, check_prefix

DELIMITER = "/"

# How many objects are looked at for one page of those with a wanted property: some tens of milliseconds.
EXAMINED = 10_000

# The same for a text in their paths, which the index itself has.
SEARCHED = 100_000

# Sorts right after the text it follows: no path has a control character.
_JUST_AFTER = "\x01"

# Each step finds the first path that is neither the one found before nor in its folder. '0' is what follows '/'.
_SKIP_SCAN = """
WITH RECURSIVE found (path, number) AS (
    SELECT (SELECT o.path FROM {objects} AND o.path >= %(start)s ORDER BY o.path LIMIT 1), 1
    UNION ALL
    SELECT (
        SELECT o.path FROM {objects} AND o.path >=
            CASE {index_of}(substr(found.path, %(rest)s), '/')
            WHEN 0 THEN found.path || %(just_after)s
            ELSE substr(found.path, 1, %(rest)s + {index_of}(substr(found.path, %(rest)s), '/') - 2) || '0'
            END
        ORDER BY o.path LIMIT 1
    ), number + 1
    FROM found WHERE found.path IS NOT NULL AND number < %(limit)s
)
SELECT path FROM found WHERE path IS NOT NULL ORDER BY number
"""

# The same the other way: each step finds the last path before the one found before, and before its folder.
_SKIP_SCAN_BACK = """
WITH RECURSIVE found (path, number) AS (
    SELECT (SELECT o.path FROM {objects} AND o.path >= %(start)s AND o.path < %(below)s
        ORDER BY o.path DESC LIMIT 1), 1
    UNION ALL
    SELECT (
        SELECT o.path FROM {objects} AND o.path >= %(start)s AND o.path <
            substr(found.path, 1, CASE {index_of}(substr(found.path, %(rest)s), '/')
            WHEN 0 THEN length(found.path)
            ELSE %(rest)s + {index_of}(substr(found.path, %(rest)s), '/') - 1
            END)
        ORDER BY o.path DESC LIMIT 1
    ), number + 1
    FROM found WHERE found.path IS NOT NULL AND number < %(limit)s
)
SELECT path FROM found WHERE path IS NOT NULL ORDER BY number
"""

# The same for the users who have objects in a bucket.
_USERS = """
WITH RECURSIVE found (name, number) AS (
    SELECT (SELECT o."user" FROM {objects} AND o."user" > %(after)s ORDER BY o."user" LIMIT 1), 1
    UNION ALL
    SELECT (SELECT o."user" FROM {objects} AND o."user" > found.name ORDER BY o."user" LIMIT 1), number + 1
    FROM found WHERE found.name IS NOT NULL AND number < %(limit)s
)
SELECT name FROM found WHERE name IS NOT NULL ORDER BY number
"""


@dataclass
class Page:
    """Its objects and its folders (`prefixes`, with their final slash); what the next page starts after, or ""."""

    objects: list[ManagedResource] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_after: str = ""


@dataclass(frozen=True)
class Wanted:
    """The properties that objects must have to be listed: the SHA-384 (hex), lengths in bytes, how new they are.

    `text` is to be anywhere in the path, in capital letters or small ones.
    """

    sha384: str = ""
    text: str = ""
    min_length: int | None = None
    max_length: int | None = None
    modified_since: datetime | None = None

    @property
    def condition(self) -> Q:
        """All of them, as a condition of objects; it is empty, and false, if nothing is asked for."""
        terms = {
            "resource__sha384": self.sha384 or None,
            "path__icontains": self.text or None,
            "resource__length__gte": self.min_length,
            "resource__length__lte": self.max_length,
            "modified_at__gte": self.modified_since,
        }
        return Q(**{name: value for name, value in terms.items() if value is not None})


ANY = Wanted()


def list_page(
    namespace: Namespace,
    *,
    prefix: str = "",
    after: str = "",
    limit: int = 100,
    folders: bool = False,
    wanted: Wanted = ANY,
) -> Page:
    """Return the first `limit` entries of `namespace` whose path starts with `prefix` and sorts after `after`.

    With `folders`, all paths with a further slash after the prefix are one entry: the part up to that slash. Objects
    that are not `wanted` are left out; folders cannot be asked for as well then. A page of what is wanted may have less
    than `limit` objects, or none, and yet a next page. At most two queries, or three where a content has very many
    references; the objects have their resources. Raises `InvalidPath` for a `prefix` or `after` no path can have.
    """
    start = max(check_prefix(prefix), _following(check_prefix(after), prefix, folders))
    if folders:
        return _page_with_folders(namespace, prefix, start, limit)
    objects = _objects(namespace).under(prefix).filter(path__gte=start)
    return _page_of_wanted(namespace, objects, wanted, limit) if wanted.condition else _page_of(objects, limit)


def start_of_page_to(
    after: str, namespace: Namespace, *, prefix: str = "", limit: int = 100, wanted: Wanted = ANY
) -> str:
    """Return what to start a page after that ends with the entry `after`: "" where that is the first page.

    It is one of folders, or of what is `wanted`, if that is given. At most two queries, as many as `list_page` takes.
    """
    if wanted.condition:
        return _start_of_wanted(namespace, prefix, _following(check_prefix(after), prefix, False), limit, wanted)
    below = _following(check_prefix(after), prefix, True)
    found = _skip_scan(namespace, prefix, prefix, limit + 1, below=below)
    return _entry(found[limit], prefix) if len(found) > limit else ""


def users_in(bucket: UUID, *, after: str = "", limit: int = 100) -> list[str]:
    """Return the first `limit` users, after the one called `after`, who have objects of their own in `bucket`."""
    connection = connections[ManagedResource.objects.all().db]
    with connection.cursor() as cursor:
        sql = _USERS.format(objects=f"{ManagedResource._meta.db_table} o WHERE o.bucket_id = %(bucket)s")
        cursor.execute(sql, {"bucket": _key_of(bucket, connection), "after": after, "limit": limit})
        return [name for (name,) in cursor.fetchall()]


def find_all(namespace: Namespace, paths: Iterable[str]) -> dict[str, ManagedResource]:
    """Return the objects of `namespace` at those of `paths` where there is one, by path, with their resources."""
    return {managed.path: managed for managed in _objects(namespace).filter(path__in=paths)}


def _page_of(objects: ManagedResourceQuerySet, limit: int) -> Page:
    found = list(objects[: limit + 1])
    return Page(found[:limit], next_after=found[limit - 1].path if len(found) > limit else "")


def _page_of_wanted(namespace: Namespace, objects: ManagedResourceQuerySet, wanted: Wanted, limit: int) -> Page:
    if wanted.sha384:
        paths = _paths_having(namespace, wanted.sha384)
        if len(paths) <= EXAMINED:
            return _page_of(objects.filter(wanted.condition, path__in=paths), limit)
    # The last one to be looked at and, if there is any, one after it.
    examined = SEARCHED if wanted.text else EXAMINED
    paths = list(objects.values_list("path", flat=True)[examined - 1 : examined + 1])
    if len(paths) < 2:
        return _page_of(objects.filter(wanted.condition), limit)
    page = _page_of(objects.filter(wanted.condition, path__lte=paths[0]), limit)
    page.next_after = page.next_after or paths[0]
    return page


def _start_of_wanted(namespace: Namespace, prefix: str, below: str, limit: int, wanted: Wanted) -> str:
    objects = _objects(namespace).under(prefix).filter(path__lt=below).order_by("-path")
    paths = _paths_having(namespace, wanted.sha384) if wanted.sha384 else []
    unseen: list[str] = []
    if wanted.sha384 and len(paths) <= EXAMINED:
        objects = objects.filter(path__in=paths)
    else:
        examined = SEARCHED if wanted.text else EXAMINED
        unseen = list(objects.values_list("path", flat=True)[examined : examined + 1])
        objects = objects.filter(path__gt=unseen[0]) if unseen else objects
    found = objects.filter(wanted.condition).values_list("path", flat=True)[limit : limit + 1]
    return next(iter([*found, *unseen]), "")


def _paths_having(namespace: Namespace, sha384: str) -> list[str]:
    """Return the paths of all objects with a content, or one more than `EXAMINED`: to sort more takes too long.

    The index of references has them.
    """
    having = ManagedResource.objects.within(namespace).filter(resource__sha384=sha384)
    return list(having.values_list("path", flat=True)[: EXAMINED + 1])


def _following(after: str, prefix: str, folders: bool) -> str:
    """Return the least text that sorts after the entry `after`, and after all of its paths if it is a folder."""
    if folders and after.startswith(prefix) and after[len(prefix) :].endswith(DELIMITER):
        return after_prefix(after)
    return after + _JUST_AFTER if after else ""


def _page_with_folders(namespace: Namespace, prefix: str, start: str, limit: int) -> Page:
    found = _skip_scan(namespace, prefix, start, limit + 1)
    entries = [_entry(path, prefix) for path in found[:limit]]
    paths = [entry for entry in entries if not entry.endswith(DELIMITER)]
    return Page(
        objects=list(_objects(namespace).filter(path__in=paths)) if paths else [],
        prefixes=[entry for entry in entries if entry.endswith(DELIMITER)],
        next_after=entries[-1] if len(found) > limit else "",
    )


def _entry(path: str, prefix: str) -> str:
    name, slash, _ = path[len(prefix) :].partition(DELIMITER)
    return prefix + name + slash


def _objects(namespace: Namespace) -> ManagedResourceQuerySet:
    return ManagedResource.objects.within(namespace).select_related("resource").order_by("path")


def _skip_scan(namespace: Namespace, prefix: str, start: str, limit: int, *, below: str = "") -> list[str]:
    """Return the first path of each entry from `start` on, at most `limit` of them.

    With `below`, the last path of each entry that sorts before it, the last entry first.
    """
    connection = connections[ManagedResource.objects.all().db]
    parameters = {
        "bucket": _key_of(namespace.bucket_id, connection),
        "user": namespace.user,
        "start": start,
        "below": below,
        "end": after_prefix(prefix),
        "rest": len(prefix) + 1,
        "just_after": _JUST_AFTER,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        sql = _SKIP_SCAN_BACK if below else _SKIP_SCAN
        cursor.execute(_skip_scan_sql(sql, connection.vendor, namespace, prefix), parameters)
        return [path for (path,) in cursor.fetchall()]


def _key_of(bucket: UUID | None, connection: BaseDatabaseWrapper) -> Any:
    return ManagedResource._meta.get_field("bucket").get_db_prep_value(bucket, connection)


def _skip_scan_sql(sql: str, vendor: str, namespace: Namespace, prefix: str) -> str:
    within = "o.bucket_id IS NULL" if namespace.bucket_id is None else "o.bucket_id = %(bucket)s"
    before_end = " AND o.path < %(end)s" if after_prefix(prefix) else ""
    return sql.format(
        objects=f'{ManagedResource._meta.db_table} o WHERE {within} AND o."user" = %(user)s{before_end}',
        index_of="strpos" if vendor == "postgresql" else "instr",
    )
