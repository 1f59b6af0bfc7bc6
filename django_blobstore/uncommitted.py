"""How files written inside a caller's transaction are found again if it is rolled back, or dies.

Where the database lets another connection commit meanwhile, that one commits the row that names the file. SQLite has
one writer at a time, and elsewhere a transaction may not see what began after it: there the row is the transaction's
own, and goes with it. A note beside the file then says of it that it may have been forgotten; a sweep reads the notes.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from django.core.files.storage import Storage
from django.db import connections, transaction
from django.utils import timezone

from django_blobstore.conf import conf
from django_blobstore.models import PendingFile, Resource
from django_blobstore.offload import on_own_connections
from django_blobstore.resource_storage import ResourceStorage
from django_blobstore.storages import inventory

logger = logging.getLogger(__name__)

FOLDER = "uncommitted"
# So many paths are asked for in one query: a database takes only so many parameters.
BATCH = 500


def announce(using: str, alias: str, path: str, insert: Callable[[], object]) -> None:
    """Have `insert` write the row that names the file `path` of the storage `alias`, so that no rollback forgets it."""
    if _is_undone_by_test(using):
        insert()
    elif commits_apart(using):
        on_own_connections(insert)
    else:
        insert()
        # After the row: whoever finds the note, and has the lock of the database, finds the transaction ended.
        ResourceStorage(alias).write(_note(path), io.BytesIO())
        # No partial: Django could not name it in its log.
        transaction.on_commit(lambda: _forget(alias, [path]), using=using, robust=True)


def commits_apart(using: str) -> bool:
    """Tell whether another connection can commit a row that a transaction under way then sees."""
    connection = connections[using]
    level = connection.settings_dict.get("OPTIONS", {}).get("isolation_level")
    return connection.vendor == "postgresql" and getattr(level, "name", level) in (None, "READ_COMMITTED")


def is_note(name: str) -> bool:
    """Tell whether the file `name` is a note."""
    return name.startswith(f"{FOLDER}/")


def clear(using: str, alias: str | None = None, *, dry_run: bool = False) -> int:
    """Delete the files of transactions that were rolled back, and return how many; what fails is left to the next.

    They are those in the storage `alias`, by default that of new files.
    """
    if commits_apart(using):
        return 0
    try:
        storage = ResourceStorage(alias)
        noted = [_path_of(hexadecimal) for hexadecimal in _ended_notes(using, storage.storage)]
        forgotten = noted and _unnamed(using, noted)
        if not dry_run and noted:
            storage.remove_many(forgotten)
            _forget(storage.alias, noted)
        return len(forgotten)
    except Exception:
        # A storage may raise anything.
        logger.exception("Storage %r could not be asked for what rolled-back transactions left.", alias or conf.STORAGE)
        return 0


def _ended_notes(using: str, storage: Storage) -> list[str]:
    """Return the notes of transactions that have ended; where no lock tells, of those begun a lease ago."""
    try:
        notes = storage.listdir(FOLDER)[1]
    except FileNotFoundError:
        return []
    if connections[using].vendor == "sqlite":
        return notes
    before = timezone.now() - timedelta(seconds=conf.LEASE)
    times = {note: inventory.modified(storage, f"{FOLDER}/{note}") for note in notes}
    return [note for note, time in times.items() if time and time < before]


def _unnamed(using: str, paths: Sequence[str]) -> list[str]:
    named: set[str] = set()
    with transaction.atomic(using=using):
        # It changes nothing, but takes the lock that every other writer holds until it has ended.
        PendingFile.objects.using(using).filter(path="").update(offset=0)
        for first in range(0, len(paths), BATCH):
            named |= _named(using, paths[first : first + BATCH])
    return sorted(set(paths) - named)


def _named(using: str, paths: Sequence[str]) -> set[str]:
    tables = (PendingFile.objects.using(using), Resource.objects.using(using))
    return {path for rows in tables for path in rows.filter(path__in=paths).values_list("path", flat=True)}


def _is_undone_by_test(using: str) -> bool:
    """Tell whether all this happens in a `TestCase`, whose database forgets what is done and must keep nothing."""
    blocks = connections[using].atomic_blocks
    return bool(blocks) and getattr(blocks[0], "_from_testcase", False)


def _forget(alias: str, paths: Iterable[str]) -> None:
    ResourceStorage(alias).remove_many([_note(path) for path in paths])


def _note(path: str) -> str:
    return f"{FOLDER}/{path.rpartition('/')[2]}"


def _path_of(hexadecimal: str) -> str:
    return f"{hexadecimal[:2]}/{hexadecimal}"
