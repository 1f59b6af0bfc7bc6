"""A MongoDB replica set of three on this machine, whose members can be killed, stopped and brought back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, TypeVar

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from example_project.mongod import REPLICA_SET, Mongod

T = TypeVar("T")

SECONDS = 200
PRIMARY, SECONDARY = 1, 2


class ReplicaSet:
    """Three mongods for as long as the context lasts; `election_timeout` is in milliseconds."""

    def __init__(self, *, election_timeout: int = 2000) -> None:
        self.members = [Mongod() for _ in range(3)]
        self.hosts = [f"127.0.0.1:{member.port}" for member in self.members]
        self.uri = f"mongodb://{','.join(self.hosts)}/?replicaSet={REPLICA_SET}"
        self._election_timeout = election_timeout
        self._stack = ExitStack()

    def __enter__(self) -> ReplicaSet:
        with ExitStack() as stack:
            for member in self.members:
                stack.callback(member.stop)
                member.start()
            self._initiate()
            self.wait_until_whole()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def primary(self) -> Mongod:
        """Return the member that takes writes at present."""
        return self.members[_sooner_or_later(lambda: self.hosts.index(self._ask("hello")["me"]))]

    def strike(self, member: Mongod, number: signal.Signals) -> None:
        """Send `member` the signal, and wait for its end if that ends it."""
        assert member.process
        member.process.send_signal(number)
        if number != signal.SIGSTOP:
            member.process.wait(SECONDS)

    def bring_back(self, member: Mongod) -> None:
        """Let `member` go on, or start it again, and wait until it has caught up."""
        assert member.process
        if member.process.poll() is None:
            member.process.send_signal(signal.SIGCONT)
        else:
            member.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until there is one primary and two secondaries."""
        _sooner_or_later(lambda: sorted(self._states()) == [PRIMARY, SECONDARY, SECONDARY] or None)

    def _states(self) -> list[int]:
        return [member["state"] for member in self._ask("replSetGetStatus")["members"]]

    def _ask(self, command: str) -> dict[str, Any]:
        options = {"serverSelectionTimeoutMS": 1000 * SECONDS, "socketTimeoutMS": 5000}
        with MongoClient[dict[str, Any]](self.uri, **options) as client:
            return client.admin.command(command)

    def _initiate(self) -> None:
        members = [{"_id": number, "host": host} for number, host in enumerate(self.hosts)]
        config = {
            "_id": REPLICA_SET,
            "members": members,
            "settings": {"electionTimeoutMillis": self._election_timeout},
        }
        with MongoClient[dict[str, Any]](self.hosts[0], directConnection=True) as client:
            client.admin.command("replSetInitiate", config)


def _sooner_or_later(ask: Callable[[], T | None]) -> T:
    """Return the first answer that is not None."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(PyMongoError):  # it is between two primaries
            if (answer := ask()) is not None:
                return answer
        time.sleep(0.1)
    raise AssertionError(f"The replica set was not whole after {SECONDS} s.")
