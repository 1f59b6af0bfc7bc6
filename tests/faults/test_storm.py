"""Eight processes at work on the same objects are killed again and again, and nothing is lost.

`BLOBSTORE_KILLS=1000 pytest tests/faults/test_storm.py` and `python -m tests.faults.storm --kills 10000` go on longer.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from pytest_django import Settings

from tests.faults.storm.journal import Journal, read
from tests.faults.storm.supervisor import SETTINGS, Storm
from tests.stored import Stored, StoredInFiles

# For each of the two pairs of a database and a storage.
KILLS = int(os.environ.get("BLOBSTORE_KILLS", "60"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_storm_of_kills_loses_nothing(database: str, stored: Stored, tmp_path: Path, settings: Settings) -> None:
    settings.BLOBSTORE = SETTINGS
    StoredInFiles(tmp_path / "elsewhere").stand_beside(stored, settings)
    seed = random.SystemRandom().randrange(10**6)
    figures = Storm(stored, tmp_path, kills=KILLS, seed=seed).run()
    print(f"\n{database}, {stored.kind}, seed {seed}: {figures}")
    alias = {"default": "sqlite", "postgres": "postgresql"}[database]
    again = f"python -m tests.faults.storm --kills {KILLS} --database {alias} --storage {stored.kind} --seed {seed}"
    assert not figures.violations, f"Repeat it with: {again}"
    assert sum(figures.kills.values()) >= KILLS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_journal_is_sure_of_what_was_acknowledged(file: Path) -> None:
    journal = Journal(file, {"a": 1, "b": None})
    journal.begin("a", 2)
    journal.end("put")
    story = read(file)
    assert (story.possible("a"), story.possible("b"), story.done) == ({2}, {None}, Counter(put=1))


def test_a_journal_is_in_doubt_about_what_was_only_begun(file: Path) -> None:
    journal = Journal(file, {"a": 1})
    journal.begin("a", None)
    assert read(file).possible("a") == {1, None}


def test_a_journal_forgets_what_was_refused(file: Path) -> None:
    journal = Journal(file, {"a": 1})
    journal.begin("a", 2)
    journal.end("put", failed=True)
    journal.end("sweep")
    assert (read(file).possible("a"), read(file).done) == ({1}, Counter({"put refused": 1, "sweep": 1}))
