"""What a request asks the database, and how many rows of the large tables PostgreSQL looks at to answer it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_blobstore.models import ManagedResource, PendingFile, PutRequest, Resource

LARGE = {model._meta.db_table for model in (ManagedResource, Resource, PendingFile, PutRequest)}


def complaints(alias: str, queries: CaptureQueriesContext, *, rows: int) -> Iterator[str]:
    """Say which of `queries` count or skip rows of a large table, read one from end to end, or look at over `rows`."""
    for query in queries:
        sql = query["sql"]
        if any(table in sql for table in LARGE):
            if unbounded := re.search(r"\bCOUNT\(|\bOFFSET\b", sql):
                yield f"{unbounded.group()} in {sql}"
            if sql.lstrip().startswith(("SELECT", "WITH")):
                yield from _wrong_with_plan(alias, sql, rows)


def sorts_in_sqlite(alias: str, queries: CaptureQueriesContext) -> Iterator[str]:
    """Say which of `queries` have SQLite sort what it found in a large table, instead of reading it in order."""
    for query in queries:
        sql = query["sql"]
        if sql.startswith(("SELECT", "WITH")) and any(table in sql for table in LARGE):
            with connections[alias].cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
                steps = [step for *_, step in cursor.fetchall()]
            if "USE TEMP B-TREE FOR ORDER BY" in steps:
                yield f"{steps} for {sql}"


def _wrong_with_plan(alias: str, sql: str, rows: int) -> Iterator[str]:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        [[plan]] = cursor.fetchall()
    plan = plan if isinstance(plan, list) else json.loads(plan)
    scans = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") in LARGE]
    for node in scans:
        if node["Node Type"] == "Seq Scan":
            yield f"Seq Scan on {node['Relation Name']} in {sql}"
    seen = sum(map(_seen, scans))
    if seen > rows:
        yield f"{seen} rows looked at in {sql}"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


def _seen(node: dict[str, Any]) -> int:
    """Return how many rows a scan read, in all its rounds, whether it passed them on or not."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return round((node["Actual Rows"] + removed) * node["Actual Loops"])
