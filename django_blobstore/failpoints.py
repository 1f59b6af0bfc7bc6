"""Named places at which a test can kill, stop or break the process; a call that returns at once unless a plan is set.

The environment variable ``BLOBSTORE_FAILPOINTS`` holds the plan, read once: ``action:where``. The action is ``kill``
(SIGKILL), ``raise`` (`FailpointReached`) or ``pause`` (SIGSTOP). `where` is a name, such as ``upload.written``, for
the first time it is reached; a number n, for the n-th failpoint reached in this process; or a chance with a seed, such
as ``0.02@7``, drawn anew at each. The names reached are appended to the file ``BLOBSTORE_FAILPOINTS_LOG``, if set; the
last line of the log of a killed process says where it died. `arm` sets a plan from within, for a forked process.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from itertools import count

from django_blobstore.errors import BlobstoreError


class FailpointReached(BlobstoreError):
    """The plan said to fail at `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Failpoint {name!r} was reached.")
        self.name = name


class Plan:
    """When to act, and how; see the top of this module for the `text`. `log` is the path of a file, or ""."""

    def __init__(self, text: str, log: str = "") -> None:
        action, _, where = text.partition(":")
        self._act = _ACTIONS[action]
        self._is_time = _rule(where)
        # Unbuffered and opened once: what was written outlives the process, and threads do not mix their lines.
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if log else None
        self._numbers = count(1)

    def reach(self, name: str) -> None:
        """Count the failpoint `name` and act if its time has come."""
        number = next(self._numbers)
        if self._log is not None:
            os.write(self._log, f"{name}\n".encode())
        if self._is_time(number, name):
            self._act(name)


def reach(name: str) -> None:
    """Say that the step "room.step" was just taken."""
    if _plan:
        _plan.reach(name)


def arm(plan: Plan | None) -> None:
    """Act on `plan` from now on in this process, or on none."""
    global _plan
    _plan = plan


def _rule(where: str) -> Callable[[int, str], bool]:
    chance, at, seed = where.partition("@")
    if at:
        drawn = random.Random(seed)
        return lambda _number, _name: drawn.random() < float(chance)
    if where.isdecimal():
        return lambda number, _name: number == int(where)
    # A name fails once, so that what is done about the failure can get through.
    times = count()
    return lambda _number, name: name == where and next(times) == 0


def _raise(name: str) -> None:
    raise FailpointReached(name)


_ACTIONS: dict[str, Callable[[str], object]] = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "pause": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "raise": _raise,
}

_text = os.environ.get("BLOBSTORE_FAILPOINTS", "")
_plan = Plan(_text, os.environ.get("BLOBSTORE_FAILPOINTS_LOG", "")) if _text else None
