"""What becomes of each of many objects, of which several are under way at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from django_blobstore.client.problems import ClientError, Refused, Stopped

Done = Literal["proven", "sent", "resumed", "received", "verified", "unchanged", "removed"]
How = Done | Literal["to send", "to remove", "skipped", "failed"]

# Told what is done ("hash", "send", "receive"), how many bytes of it are done, and how many there are.
OnProgress = Callable[[str, int, int], object]

# Given an address, returns what is told how far that object is.
Meter = Callable[[str], OnProgress]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Outcome:
    """What became of the object at `address`: `how`, and how many bytes of content were `carried` for it.

    ``proven``: the store had the content, which was proven to be here too; ``sent`` or ``received``: all of it was
    carried; ``resumed``: only what an earlier attempt had not; ``verified``: its bytes are right; ``unchanged``: it was
    there; ``skipped``: it is nothing to send, for `reason`; ``failed``: see `error`.
    `object` is what the store says of it, empty if it is not there; `file` is where it is here.
    """

    address: str
    how: How
    carried: int = 0
    object: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    error: Exception | None = None
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON can carry it; of an error its message, and the code of a `Refused`."""
        told: dict[str, Any] = {"address": self.address, "how": self.how, "carried": self.carried}
        if self.object:
            told["object"] = self.object
        if self.file:
            told["file"] = str(self.file)
        if self.reason:
            told["reason"] = self.reason
        if self.error:
            told |= {"error": str(self.error), "code": self.error.code if isinstance(self.error, Refused) else ""}
        return told


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def unmetered(_address: str) -> OnProgress:
    """Measure nothing."""
    return no_progress


def attempt(address: str, work: Callable[[], Outcome]) -> Outcome:
    """Return the outcome of `work`, which is a failure if it raises what was foreseen."""
    try:
        return work()
    except Stopped:
        raise
    except (ClientError, OSError) as error:
        return Outcome(address, "failed", error=error)


def in_parallel(
    work: Callable[[Item], Outcome], items: Iterable[Item], *, jobs: int, stop: threading.Event
) -> Generator[Outcome]:
    """Yield the outcomes of `work` on `items`, `jobs` at a time, as they come; only a few items are held at once.

    An error, or Ctrl-C, sets `stop`, waits for what is under way and is raised.
    """
    under_way: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for item in items:
                under_way.add(pool.submit(work, item))
                if len(under_way) >= 2 * jobs:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while under_way:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
