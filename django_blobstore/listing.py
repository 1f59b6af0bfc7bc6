"""Pages of a namespace in byte order of the paths, as objects and folders, at a cost that only the page decides.

A page starts right after the last entry of the one before it (keyset), and a folder is passed over by one look into
the index, however much is in it (skip scan).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.db import connections

from django_blobstore.models import ManagedResource, ManagedResourceQuerySet, after_prefix
from django_blobstore.namespaces import Namespace, check_prefix

DELIMITER = "/"

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


@dataclass
class Page:
    """Its objects and its folders (`prefixes`, with their final slash); what the next page starts after, or ""."""

    objects: list[ManagedResource] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_after: str = ""


def list_page(
    namespace: Namespace, *, prefix: str = "", after: str = "", limit: int = 100, folders: bool = False
) -> Page:
    """Return the first `limit` entries of `namespace` whose path starts with `prefix` and sorts after `after`.

    With `folders`, all paths with a further slash after the prefix are one entry: the part up to that slash. At most
    two queries; the objects have their resources. Raises `InvalidPath` for a `prefix` or `after` no path can have.
    """
    start = max(check_prefix(prefix), _following(check_prefix(after), prefix, folders))
    if folders:
        return _page_with_folders(namespace, prefix, start, limit)
    objects = list(_objects(namespace).under(prefix).filter(path__gte=start)[: limit + 1])
    return Page(objects[:limit], next_after=objects[limit - 1].path if len(objects) > limit else "")


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


def _skip_scan(namespace: Namespace, prefix: str, start: str, limit: int) -> list[str]:
    """Return the first path of each entry from `start` on, at most `limit` of them."""
    connection = connections[ManagedResource.objects.all().db]
    parameters = {
        "bucket": ManagedResource._meta.get_field("bucket").get_db_prep_value(namespace.bucket_id, connection),
        "user": namespace.user,
        "start": start,
        "end": after_prefix(prefix),
        "rest": len(prefix) + 1,
        "just_after": _JUST_AFTER,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(_skip_scan_sql(connection.vendor, namespace, prefix), parameters)
        return [path for (path,) in cursor.fetchall()]


def _skip_scan_sql(vendor: str, namespace: Namespace, prefix: str) -> str:
    within = "o.bucket_id IS NULL" if namespace.bucket_id is None else "o.bucket_id = %(bucket)s"
    before_end = " AND o.path < %(end)s" if after_prefix(prefix) else ""
    return _SKIP_SCAN.format(
        objects=f'{ManagedResource._meta.db_table} o WHERE {within} AND o."user" = %(user)s{before_end}',
        index_of="strpos" if vendor == "postgresql" else "instr",
    )
