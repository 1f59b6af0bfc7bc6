"""Ways to watch and to disturb a MongoDB server under test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

APP_NAME = "django-blobstore"


class Commands(CommandListener):
    """Every command a client sent, as "name collection"."""

    def __init__(self) -> None:
        self.events: list[CommandStartedEvent] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.events.append(event)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing is asked of answers."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing is asked of answers."""

    def clear(self) -> None:
        self.events.clear()

    @property
    def sent(self) -> list[str]:
        return [f"{event.command_name} {_collection(event)}" for event in self.events]


def _collection(event: CommandStartedEvent) -> str:
    collection = event.command.get("collection", event.command[event.command_name])
    return str(collection).rpartition(".")[2]


@contextmanager
def failing(uri: str, *commands: str, mode: Any = "alwaysOn", **data: Any) -> Iterator[Callable[[], int]]:
    """Make the server fail `commands` of our clients, as `data` says for the failpoint "failCommand".

    What is yielded ends that and tells how many commands failed.
    """
    with MongoClient[dict[str, Any]](uri) as client:
        data = {"failCommands": list(commands), "appName": APP_NAME, **data}
        before = client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)["count"]
        try:
            yield lambda: client.admin.command("configureFailPoint", "failCommand", mode="off")["count"] - before
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")
