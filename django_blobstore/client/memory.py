"""What is remembered between runs, and where: who to log in as, uploads that go on, hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_blobstore.client.problems import NotLoggedIn

# The store forgets an upload after a day by default.
_UPLOADS_KEPT = 7 * 24 * 3600
# A file that changes twice within this time may look the same after the second change.
_SETTLED_AFTER_NS = 2_000_000_000

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER, sha384 TEXT
) WITHOUT ROWID
"""


def state_directory() -> Path:
    """Return where uploads and hashes are remembered, as the XDG base directories have it."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "blobstore"


def remember_login(url: str, token: str) -> Path:
    """Keep `token` for `url`, which is asked from now on, readable to nobody else; return the file it is in."""
    known = _read(_credentials())
    tokens = {**known.get("tokens", {}), url: token}
    _write(_credentials(), {"url": url, "tokens": tokens})
    return _credentials()


def find_login(url: str = "", token: str = "") -> tuple[str, str]:
    """Return the URL of the store and the token: those given, those in the environment, or those remembered.

    A token is never used for another URL than it is remembered for. Raises `NotLoggedIn` if no URL is known.
    """
    url = _clean(url or os.environ.get("BLOBSTORE_URL", ""))
    token = token or os.environ.get("BLOBSTORE_TOKEN", "")
    if url and token:
        return url, token
    known = _read(_credentials())
    url = url or _clean(known.get("url", ""))
    if not url:
        raise NotLoggedIn("No store is known.")
    return url, token or known.get("tokens", {}).get(url, "")


def _clean(url: str) -> str:
    return url.rstrip("/") + "/" if url else ""


def _credentials() -> Path:
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "blobstore" / "credentials.json"


class Uploads:
    """The resumable uploads under way, each under what it is of: store, token, place and content.

    What cannot be remembered begins anew in the next run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "uploads"

    def file(self, *facts: str) -> Path:
        """Return the file that remembers the upload of `facts`."""
        return self._directory / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.json"

    def find(self, file: Path) -> str:
        """Return the id of the upload that `file` remembers, or ""."""
        with suppress(OSError):
            return str(_read(file).get("upload", ""))
        return ""

    def remember(self, file: Path, upload: str) -> None:
        with suppress(OSError):
            _write(file, {"upload": upload})
            for other in self._directory.glob("*.json"):
                if time.time() - other.stat().st_mtime > _UPLOADS_KEPT:
                    other.unlink()

    def forget(self, file: Path) -> None:
        with suppress(OSError):
            file.unlink()


@dataclass(frozen=True)
class Look:
    """What tells, without reading it, that the file at `path` is as it was; nobody can set its `ctime_ns`."""

    path: Path
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def at(cls, path: Path, found: os.stat_result | None = None) -> Look:
        """Return how the file at `path` looks, or did when it was `found`."""
        found = found or path.stat()
        # SQLite's integers have a sign, inodes of 64 bits have none.
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1))

    @property
    def key(self) -> bytes:
        return os.fsencode(self.path.absolute())

    @property
    def facts(self) -> tuple[int, int, int, int]:
        return self.size, self.mtime_ns, self.ctime_ns, self.inode


class Hashes:
    """The SHA-384 of files, which need not be read again as long as they look the same.

    Where nothing can be remembered, as in a directory that is read-only, they are read each time.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def close(self) -> None:
        if self._opened:
            self._opened.close()

    def find(self, look: Look) -> str:
        """Return the SHA-384 in hex of a file that looks like that, or ""."""
        found = self._execute("SELECT size, mtime_ns, ctime_ns, inode, sha384 FROM files WHERE path = ?", look.key)
        return next((str(sha384) for *facts, sha384 in found if tuple(facts) == look.facts), "")

    def keep(self, look: Look, sha384: str) -> None:
        """Remember the SHA-384 of what looked like that before it was read, unless that may be another content now."""
        if look == Look.at(look.path) and time.time_ns() - look.mtime_ns > _SETTLED_AFTER_NS:
            self._execute("REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", look.key, *look.facts, sha384)

    def forget(self, look: Look) -> None:
        self._execute("DELETE FROM files WHERE path = ?", look.key)

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, suppress(OSError, sqlite3.Error):
            return self._rows().execute(statement, values).fetchall()
        return []

    def _rows(self) -> sqlite3.Connection:
        if self._opened is None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Each statement is a transaction of its own, so that a killed run keeps what it found.
            rows = sqlite3.connect(
                self._directory / "hashes.sqlite3", timeout=60, check_same_thread=False, isolation_level=None
            )
            for first in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF", _TABLE):
                rows.execute(first)
            self._opened = rows
        return self._opened


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _write(file: Path, document: dict[str, Any]) -> None:
    """Write `document` so that `file` has all of it or is as it was; nobody else may read it."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Made with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".new")
    try:
        with os.fdopen(descriptor, "w") as new:
            json.dump(document, new)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
