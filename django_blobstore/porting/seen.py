"""What came by already, however much that is: in a temporary file, not in memory."""

from __future__ import annotations

import sqlite3

from django.utils import timezone

from django_blobstore.models import ManagedResource, Resource
from django_blobstore.namespaces import Namespace


class SeenContents:
    """A set of SHA-384 that grows on disk and is gone with the process."""

    def __init__(self) -> None:
        self._database = _database()
        self._database.execute("CREATE TABLE seen (sha384 BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, sha384: str) -> bool:
        """Remember `sha384` (hex) and say whether it is new."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [bytes.fromhex(sha384)])
        return added.rowcount == 1


class ForeseenObjects:
    """The objects that a dry run would have made until now, by their places."""

    def __init__(self) -> None:
        self._database = _database()
        self._database.execute("CREATE TABLE foreseen (place BLOB PRIMARY KEY, sha384, length) WITHOUT ROWID")

    def add(self, namespace: Namespace, path: str, sha384: str, length: int) -> None:
        """Remember an object with the content `sha384` (hex) of `length` bytes, in place of what was there."""
        row = [_key(namespace, path), sha384, length]
        self._database.execute("INSERT OR REPLACE INTO foreseen VALUES (?, ?, ?)", row)

    def find(self, namespace: Namespace, path: str) -> ManagedResource | None:
        """Return what would be at a place as if it had just been put there; it is in no database."""
        select = "SELECT sha384, length FROM foreseen WHERE place = ?"
        found = self._database.execute(select, [_key(namespace, path)]).fetchone()
        if found is None:
            return None
        resource = Resource(sha384=found[0], length=found[1], path="foreseen")
        return ManagedResource(path=path, resource=resource, modified_at=timezone.now())


def _key(namespace: Namespace, path: str) -> bytes:
    # Nothing clean has a line feed; of what is not, no object is foreseen.
    return f"{namespace.bucket_id}\n{namespace.user}\n{path}".encode(errors="surrogatepass")


def _database() -> sqlite3.Connection:
    # An empty name is a database that spills into a file of its own, which is deleted with the connection.
    # Whoever shares it among threads sees to it that one asks at a time.
    return sqlite3.connect("", isolation_level=None, check_same_thread=False)
