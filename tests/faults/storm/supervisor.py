"""Starts the workers, starts another one whenever one is killed, counts, and judges what is left in the end."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from django_blobstore.failpoints import Plan, arm
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, PutRequest
from tests.faults.dying import be_recognisable, start, wait_until_forgotten
from tests.faults.storm import journal
from tests.faults.storm.worker import Worker, check_own, check_shared, journal_file, own_paths
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored

WORKERS = 8
# Short, so that workers sweep what killed ones left while others are at work.
SETTINGS = {"LEASE": 4, "DELETION_GRACE": 0.5}


@dataclass
class Figures:
    """What happened in a storm."""

    seconds: float = 0
    kills: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{sum(self.done.values())} operations in {self.seconds:.0f} s: {_listed(self.done)}"]
        lines += [f"{sum(self.kills.values())} kills at {len(self.kills)} failpoints: {_listed(self.kills)}"]
        return "\n".join([*lines, f"{len(self.violations)} violations", *self.violations])


class Storm:
    """A storm of at least `kills` kills on `stored`, at each failpoint with the chance `rate`, repeated by `seed`."""

    def __init__(self, stored: Stored, directory: Path, *, kills: int, seed: int, rate: float = 0.04) -> None:
        self.stored = stored
        self.directory = directory
        self.kills = kills
        self.seed = seed
        self.rate = rate
        self.figures = Figures()
        self._started = 0
        self._slots: dict[int, tuple[int, BaseProcess]] = {}

    def run(self, on_progress: Callable[[Figures], object] = lambda _figures: None) -> Figures:
        """Let it rage and die down, check what is left, and return the figures, the violations among them."""
        began = time.monotonic()
        for slot in range(WORKERS):
            self._start(slot)
        while self._slots:
            ended = connection.wait([process.sentinel for _, process in self._slots.values()])
            for slot, (_, process) in list(self._slots.items()):
                if process.sentinel in ended:
                    self._ended(slot)
            on_progress(self.figures)
        self.figures.seconds = time.monotonic() - began
        self._judge()
        return self.figures

    def _start(self, slot: int) -> None:
        self._started += 1
        number = self._started
        self._slots[slot] = number, start(lambda: self._work(slot, number))

    def _work(self, slot: int, number: int) -> None:
        """Be a worker. A violation is written down for the supervisor."""
        be_recognisable()
        arm(Plan(f"kill:{self.rate}@{self.seed}-{number}", str(self._log(number))))
        try:
            Worker(slot, f"{self.seed}-{number}", self.directory).run()
        except BaseException:  # noqa: BLE001 -- the supervisor is told
            self._complaint(number).write_text(traceback.format_exc())
        os._exit(0)

    def _ended(self, slot: int) -> None:
        number, process = self._slots.pop(slot)
        process.join()
        self.figures.done += journal.read(journal_file(self.directory, slot)).done
        if process.exitcode == -signal.SIGKILL:
            self.figures.kills[self._log(number).read_text().split()[-1]] += 1
        if self._complaint(number).exists():
            self.figures.violations.append(self._complaint(number).read_text())
        self._log(number).unlink(missing_ok=True)
        process.close()
        if sum(self.figures.kills.values()) >= self.kills or self.figures.violations:
            (self.directory / "stop").touch()
        else:
            self._start(slot)

    def _judge(self) -> None:
        wait_until_forgotten(self.stored)
        self._check(lambda: assert_sound(self.stored))
        for slot in range(WORKERS):
            self._check(lambda slot=slot: check_own(journal_file(self.directory, slot), own_paths(slot)))
        self._check(check_shared)
        self._check(lambda: assert_settled(self.stored))
        PutRequest.objects.all().delete()
        ManagedStorage().remove_all(ManagedResource.objects.all())
        self._check(lambda: assert_settled(self.stored))
        self._check(lambda: assert_empty(self.stored))

    def _check(self, check: Callable[[], object]) -> None:
        try:
            check()
        except AssertionError as violation:
            self.figures.violations.append(str(violation))

    def _log(self, number: int) -> Path:
        return self.directory / f"failpoints-{number}"

    def _complaint(self, number: int) -> Path:
        return self.directory / f"complaint-{number}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
