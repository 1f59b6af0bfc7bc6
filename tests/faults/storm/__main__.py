"""Run a long storm on servers of its own: `python -m tests.faults.storm --kills 10000 --database postgresql`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.test import override_settings  # noqa: E402 -- what follows needs the settings

from example_project.mongod import Mongod  # noqa: E402
from tests.faults.ground import database, ground  # noqa: E402
from tests.faults.storm.supervisor import SETTINGS, Figures, Storm  # noqa: E402
from tests.settings import STORAGES, TEST_DIRECTORY  # noqa: E402
from tests.stored import ALIAS, ELSEWHERE, Stored, StoredInFiles, in_gridfs  # noqa: E402

SECONDS_BETWEEN_REPORTS = 30


def main() -> int:
    """Return 0 if no promise was broken."""
    options = _options()
    print(f"A storm of {options.kills} kills on {options.database} and {options.storage}, seed {options.seed}.")
    with (
        TemporaryDirectory(dir=ground()) as directory,
        database(options.database),
        _storage(options.storage) as stored,
    ):
        beside = StoredInFiles(Path(directory) / "elsewhere")
        storages = STORAGES | {ALIAS: stored.options, ELSEWHERE: beside.options}
        beside.alias, stored.beside = ELSEWHERE, (beside,)
        with override_settings(STORAGES=storages, BLOBSTORE=SETTINGS):
            storm = Storm(stored, Path(directory), kills=options.kills, seed=options.seed, rate=options.rate)
            figures = storm.run(_reporter())
    print(figures)
    if figures.violations:
        print(f"Repeat it with --seed {options.seed}.")
    return bool(figures.violations)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.storm")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--storage", choices=["gridfs", "files"], default="gridfs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--rate", type=float, default=0.04, help="chance of a kill at each failpoint")
    return parser.parse_args()


@contextmanager
def _storage(kind: str) -> Iterator[Stored]:
    if kind == "files":
        yield StoredInFiles(TEST_DIRECTORY / "storm")
        return
    with Mongod() as mongod, in_gridfs(mongod.uri) as stored:
        yield stored


def _reporter() -> Callable[[Figures], None]:
    """Return what prints the number of kills from time to time."""
    last = time.monotonic()

    def report(figures: Figures) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            print(f"{sum(figures.kills.values())} kills, {sum(figures.done.values())} operations", flush=True)

    return report


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(TEST_DIRECTORY, ignore_errors=True)
