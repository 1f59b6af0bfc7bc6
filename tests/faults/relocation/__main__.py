"""Move many contents on servers of its own: `python -m tests.faults.relocation --resources 10000 --kills 100`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.test import override_settings  # noqa: E402 -- what follows needs the settings

from example_project.mongod import Mongod  # noqa: E402
from tests import servers  # noqa: E402
from tests.faults.ground import database, ground  # noqa: E402
from tests.faults.relocation.supervisor import Relocation, storages_of  # noqa: E402
from tests.settings import TEST_DIRECTORY  # noqa: E402
from tests.stored import StoredInFiles, in_gridfs, in_s3  # noqa: E402


def main() -> int:
    """Return 0 if no promise was broken."""
    options = _options()
    print(f"{options.resources} contents, {options.kills} kills, {options.database}, seed {options.seed}.", flush=True)
    with (
        TemporaryDirectory(dir=ground()) as directory,
        database(options.database),
        Mongod() as mongod,
        in_gridfs(mongod.uri) as gridfs,
        servers.s3_apart() as url,
        in_s3(url) as s3,
    ):
        stations = [StoredInFiles(Path(directory, "files")), gridfs, s3]
        with override_settings(STORAGES=storages_of(stations)):
            relocation = Relocation(
                stations, Path(directory), resources=options.resources, kills=options.kills, seed=options.seed
            )
            figures = relocation.run(lambda text: print(text, flush=True))
    print(figures)
    if figures.violations:
        print(f"Repeat it with --seed {options.seed}.")
    return bool(figures.violations)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.relocation")
    parser.add_argument("--resources", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(TEST_DIRECTORY, ignore_errors=True)
