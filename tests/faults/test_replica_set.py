"""Uploads and downloads while the primary of a replica set is killed, terminated and stopped: a short run.

`python -m tests.faults.primary_kills` is the long one, with the election timeout that MongoDB has by default.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from example_project.mongod import find_mongod
from tests.conftest import need
from tests.faults.primary_kills import STRIKES, run
from tests.faults.replica_set import ReplicaSet
from tests.stored import ALIAS, StoredInGridFS, in_gridfs


@pytest.fixture(scope="module")
def replicas() -> Iterator[ReplicaSet]:
    need(find_mongod(), "mongod")
    with ReplicaSet() as replicas:
        yield replicas


@pytest.fixture
def replicated(replicas: ReplicaSet, settings: Settings) -> Iterator[StoredInGridFS]:
    # On a busy machine members elect another primary unasked, even while it is judged what is left.
    with in_gridfs(f"{replicas.uri}&serverSelectionTimeoutMS=120000") as stored:
        settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
        settings.BLOBSTORE = {"DELETION_GRACE": 0}
        yield stored


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("strike", STRIKES)
def test_nothing_acknowledged_is_lost_with_the_primary(
    replicas: ReplicaSet, replicated: StoredInGridFS, strike: str
) -> None:
    figures = run(replicas, replicated, [strike], uploads=20)
    print(f"\nprimary {strike}: {figures}")
    assert figures.acknowledged >= 40
    assert figures.downloads > 0
