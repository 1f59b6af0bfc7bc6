"""A PostgreSQL server that keeps what it acknowledges, and that can be ended at once and started again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from django.core.management import call_command
from django.db import connections

from tests import servers
from tests.routers import OneDatabase

ALIAS = "postgres"
SECONDS = 120


@contextmanager
def moved_to(alias: str, address: dict[str, str]) -> Iterator[None]:
    """Let `alias` and every query go to the empty database at `address`, new entries of DATABASES, meanwhile."""
    settings = connections[alias].settings_dict
    before = {name: settings[name] for name in address}
    connections[alias].close()
    settings.update(address)
    try:
        with OneDatabase.using(alias):
            call_command("migrate", database=alias, verbosity=0)
            yield
    finally:
        connections[alias].close()
        settings.update(before)


class Postgres:
    """PostgreSQL with its data in `directory`, on a Unix socket at `address`, with fsync."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._server = servers.empty_postgresql(directory)

    @property
    def address(self) -> dict[str, str]:
        """HOST and PORT for DATABASES."""
        path = self._server.get_postmaster_info().socket_path
        return {"HOST": str(path.parent), "PORT": path.suffix.removeprefix(".")}

    def start(self) -> None:
        servers.start_postgresql(self._server)

    def stop(self) -> None:
        self._server.stop()

    def end_at_once(self, number: signal.Signals) -> None:
        """Send the postmaster SIGQUIT, its immediate mode, or SIGKILL, and wait until all of its processes ended."""
        postmaster = psutil.Process(self._server.get_pid())
        # Else it might make a process that nobody waits for, and whose memory stands in the way of the next start.
        postmaster.suspend()
        while postmaster.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        everyone = [postmaster, *postmaster.children(recursive=True)]
        os.kill(postmaster.pid, number)
        with suppress(ProcessLookupError):
            os.kill(postmaster.pid, signal.SIGCONT)
        _, alive = psutil.wait_procs(everyone, SECONDS)
        assert not alive


@contextmanager
def running_postgres(directory: Path, **configuration: str) -> Iterator[Postgres]:
    """Run PostgreSQL with an empty database, to which the alias "postgres" and every query go meanwhile."""
    server = Postgres(directory)
    with (directory / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in configuration.items())
    server.start()
    try:
        name, user = (connections[ALIAS].settings_dict[key] for key in ("NAME", "USER"))
        _create_database(name, host=server.address["HOST"], port=server.address["PORT"], user=user)
        with moved_to(ALIAS, server.address):
            yield server
    finally:
        server.stop()


def _create_database(name: str, **server: str) -> None:
    with psycopg.connect(**server, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
