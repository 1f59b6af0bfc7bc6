"""Forked processes that a failpoint kills or stops, and what they reached before."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from django.core.files.storage import storages
from django.db import connections
from pymongo import MongoClient

from django_blobstore.failpoints import Plan, arm
from django_blobstore.storages import GridFSStorage
from tests.stored import Stored, StoredInGridFS, StoredInS3

SECONDS = 200
APP_NAME = "doomed"

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Fate:
    """How a process ended, and the failpoints it reached in order."""

    exit_code: int | None
    reached: list[str]
    said: str

    @property
    def was_killed(self) -> bool:
        return self.exit_code == -signal.SIGKILL

    @property
    def killed_at(self) -> str:
        """The failpoint that killed it. Raises `AssertionError` if it failed in another way."""
        assert self.exit_code in (0, -signal.SIGKILL), f"It ended with {self.exit_code} and said:\n{self.said}"
        return self.reached[-1] if self.was_killed else ""


class Doomed:
    """A child process that does `work` under the failpoints' `plan`, with connections of its own."""

    def __init__(self, work: Callable[[], object], plan: str, directory: Path) -> None:
        self.log = directory / f"failpoints-{time.monotonic_ns()}"
        self.log.touch()
        self.process = start(lambda: _do(work, Plan(plan, str(self.log)), self.log.with_suffix(".error")))

    def fate(self, stored: Stored) -> Fate:
        """Wait until it has ended, and until the servers have noticed."""
        self.process.join(SECONDS)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"A child process hung after {self.log.read_text().split()}.")
        wait_until_forgotten(stored)
        error = self.log.with_suffix(".error")
        return Fate(
            self.process.exitcode, self.log.read_text().split(), error.read_text() if error.exists() else "nothing"
        )

    def wait_until_stopped(self) -> bool:
        """Return True once a failpoint has stopped it, or False if it has ended instead."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if not self.process.is_alive():
                return False
            if _state(self.process) == "T":
                return True
            time.sleep(0.002)
        raise AssertionError("A child process neither stopped nor ended.")

    def resume(self) -> None:
        """Let it go on, if it has not ended."""
        if self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, signal.SIGCONT)


def start(work: Callable[[], object]) -> BaseProcess:
    """Fork a process that does `work`; no database connection is open in either while that happens."""
    connections.close_all()
    process = _FORK.Process(target=work, daemon=True)
    with warnings.catch_warnings():
        # Newer Pythons warn of threads. Those of the MongoDB client hold no lock that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def wait_until_forgotten(stored: Stored) -> None:
    """Wait until the server has done, and closed, what killed processes had sent: a real sweep comes much later."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not _remembers(stored):
            return
        time.sleep(0.002)
    raise AssertionError(f"The server of {stored.kind} still has connections of processes that ended.")


def _remembers(stored: Stored) -> bool:
    if isinstance(stored, StoredInGridFS):
        theirs: list[Any] = [{"$currentOp": {"idleConnections": True}}, {"$match": {"appName": APP_NAME}}]
        return bool(list(_client(stored.uri).admin.aggregate(theirs)))
    if isinstance(stored, StoredInS3):
        port = urlsplit(stored.url).port
        return any(_is_left(socket, port) for socket in psutil.net_connections("tcp"))
    return False


def _is_left(socket: Any, port: int | None) -> bool:
    """Tell whether one end is closed, and the server on `port` is still to read or to do what came from there."""
    if socket.laddr.port == port:
        return bool(socket.status == psutil.CONN_CLOSE_WAIT)
    # The end of what was sent waits behind bytes for which the server has no room yet.
    return bool(socket.raddr and socket.raddr.port == port and socket.status == psutil.CONN_FIN_WAIT1)


@contextmanager
def armed(plan: str, log: Path) -> Iterator[None]:
    """Follow the failpoints' `plan` in this process for as long as the context lasts."""
    arm(Plan(plan, str(log)))
    try:
        yield
    finally:
        arm(None)


def be_recognisable() -> None:
    """Let MongoDB know this process's connections from those of the test."""
    for storage in map(storages.__getitem__, storages.backends):
        if isinstance(storage, GridFSStorage):
            storage.client_options = {"appname": APP_NAME}


def _do(work: Callable[[], object], plan: Plan, error: Path) -> None:
    be_recognisable()
    arm(plan)
    try:
        work()
    except BaseException:  # noqa: BLE001 -- the parent is told
        error.write_text(traceback.format_exc())
        os._exit(1)
    # Without the interpreter's clean-up, which a killed process has not either.
    os._exit(0)


@cache
def _client(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri)


def _state(process: BaseProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
