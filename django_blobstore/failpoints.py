"""Named places at which a test can kill, stop or break the process; an empty call unless a plan is set.

The environment variable ``BLOBSTORE_FAILPOINTS`` holds the plan, read once: ``action:where``. The action is ``kill``
(SIGKILL), ``raise`` (`FailpointReached`) or ``pause`` (SIGSTOP). `where` is a name, such as ``upload.written``, for
the first time it is reached; a number n, for the n-th failpoint reached in this process; or a chance with a seed, such
as ``0.02@7``, drawn anew at each. The names reached are appended to the file ``BLOBSTORE_FAILPOINTS_LOG``, if set.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

from django_blobstore.errors import BlobstoreError


class FailpointReached(BlobstoreError):
    """The plan said to fail at `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Failpoint {name!r} was reached.")
        self.name = name


class Plan:
    """When to act, and how."""

    def __init__(self, text: str, log: str = "") -> None:
        action, _, where = text.partition(":")
        self._act = _ACTIONS[action]
        self._is_time = _rule(where)
        self._log = log
        self._reached = 0

    def reach(self, name: str) -> None:
        """Count the failpoint `name` and act if its time has come."""
        self._reached += 1
        if self._log:
            with open(self._log, "a") as log:
                log.write(f"{name}\n")
        if self._is_time(self._reached, name):
            self._act(name)


def _rule(where: str) -> Callable[[int, str], bool]:
    chance, at, seed = where.partition("@")
    if at:
        drawn = random.Random(seed)
        return lambda _count, _name: drawn.random() < float(chance)
    if where.isdecimal():
        return lambda count, _name: count == int(where)
    return lambda _count, name: name == where


def _raise(name: str) -> None:
    raise FailpointReached(name)


_ACTIONS: dict[str, Callable[[str], object]] = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _raise,
}


def _off(name: str) -> None:
    """Do nothing at the failpoint `name`."""


_text = os.environ.get("BLOBSTORE_FAILPOINTS", "")

# Called as ``reach("room.step")`` right after the step.
reach: Callable[[str], None] = Plan(_text, os.environ.get("BLOBSTORE_FAILPOINTS_LOG", "")).reach if _text else _off
