"""Uploads and downloads while the primary of a replica set dies: `python -m tests.faults.primary_kills`."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

from django.db import connections
from django.test import override_settings

from tests.faults.replica_set import ReplicaSet
from tests.faults.traffic import Figures, Traffic
from tests.settings import STORAGES, TEST_DIRECTORY
from tests.stored import ALIAS, Stored, in_gridfs

STRIKES = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM, "stopped": signal.SIGSTOP}


def run(replicas: ReplicaSet, stored: Stored, strikes: list[str], *, uploads: int) -> Figures:
    """Strike the primary as told, with so many `uploads` acknowledged before each and after the last.

    The storage must be that of `replicas`. Raises `AssertionError` if anything is lost or wrong.
    """
    traffic = Traffic(ConnectionError, TimeoutError)
    with traffic.flowing():
        for strike in strikes:
            traffic.wait_for(uploads)
            primary = replicas.primary()
            traffic.blow()
            replicas.strike(primary, STRIKES[strike])
            traffic.wait_for(min(uploads, 10))
            replicas.bring_back(primary)
        traffic.wait_for(uploads)
        traffic.wait_for_download()
    return traffic.check(stored)


def main() -> int:
    """Return 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.primary_kills")
    parser.add_argument("--uploads", type=int, default=100, help="acknowledged before each strike")
    parser.add_argument("--strikes", nargs="+", choices=[*STRIKES], default=["killed"] * 5)
    parser.add_argument("--election-timeout", type=int, default=10_000, help="of the replica set, in ms")
    options = parser.parse_args()
    TEST_DIRECTORY.mkdir(exist_ok=True)
    connections["default"].creation.create_test_db(verbosity=0, autoclobber=True)
    with (
        ReplicaSet(election_timeout=options.election_timeout) as replicas,
        in_gridfs(replicas.uri) as stored,
        override_settings(STORAGES=STORAGES | {ALIAS: stored.options}, BLOBSTORE={"DELETION_GRACE": 0}),
    ):
        print(run(replicas, stored, options.strikes, uploads=options.uploads))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(TEST_DIRECTORY, ignore_errors=True)
