"""A store moves from files to GridFS, to S3 and back, movers are killed on the way, and its site notices nothing.

`python -m tests.faults.relocation --resources 10000 --kills 100` goes on longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from tests import servers
from tests.faults.relocation.supervisor import Relocation, storages_of
from tests.stored import Stored, in_s3

RESOURCES = 40
KILLS = 6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "database",
    [pytest.param("postgresql", marks=pytest.mark.django_db(transaction=True, databases=["postgres"]))],
    indirect=True,
)
def test_a_store_that_moves_through_three_storages_loses_and_leaves_nothing(
    database: str, make_stored: Callable[[str], Stored], tmp_path: Path, settings: Settings
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    with servers.s3_apart() as url, in_s3(url) as s3:
        stations = [make_stored("files"), make_stored("gridfs"), s3]
        settings.STORAGES = storages_of(stations)
        figures = Relocation(stations, tmp_path, resources=RESOURCES, kills=KILLS, seed=seed).run()
    print(f"\n{figures}")
    again = f"python -m tests.faults.relocation --resources {RESOURCES} --kills {KILLS} --seed {seed}"
    assert not figures.violations, f"Repeat it with: {again}"
    assert figures.kills.total() >= KILLS - len(stations)
