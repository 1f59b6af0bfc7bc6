"""Which contents came by already, however many they are: in a temporary file, not in memory."""

from __future__ import annotations

import sqlite3


class SeenContents:
    """A set of SHA-384 that grows on disk and is gone with the process."""

    def __init__(self) -> None:
        # An empty name is a database that spills into a file of its own, which is deleted with the connection.
        # Whoever shares it among threads sees to it that one asks at a time.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE seen (sha384 BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, sha384: str) -> bool:
        """Remember `sha384` (hex) and say whether it is new."""
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [bytes.fromhex(sha384)])
        return added.rowcount == 1
