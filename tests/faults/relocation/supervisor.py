"""Moves a store from each of its storages to the next, killing movers on the way, and judges what is left."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from django_blobstore.failpoints import Plan, arm
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource, PutRequest, Resource
from django_blobstore.upkeep import sweep
from tests.faults.dying import be_recognisable, start, wait_until_forgotten
from tests.faults.relocation.visitors import HOME, Visitor, content, read_figures
from tests.faults.storm import journal
from tests.faults.storm.worker import Worker, check_own, check_shared, journal_file, own_paths
from tests.invariants import assert_empty, assert_settled, end_leases_and_graces
from tests.settings import STORAGES
from tests.stored import Stored
from tests.streams import Stream, sha384

SLOT = 0
# The S3 server may take seconds for what killed movers had sent; their files must not be swept before it comes.
SETTINGS = {"LEASE": 60, "DELETION_GRACE": 0.5}
# A process that takes longer hangs.
SECONDS = 600
# How many failpoints a content's move reaches, about; a little less, so that all kills come before the end.
FAILPOINTS = 8
ATTEMPTS = 10


def storages_of(stations: Sequence[Stored]) -> dict[str, Any]:
    """Give each station the name of its kind as its alias, and return STORAGES with them."""
    for station in stations:
        station.alias = station.kind
    stations[0].beside = tuple(stations[1:])
    return STORAGES | {station.alias: station.options for station in stations}


@dataclass
class Figures:
    """What happened on the way."""

    legs: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [*self.legs, f"{self.kills.total()} kills at {len(self.kills)} failpoints: {_listed(self.kills)}"]
        lines += [f"meanwhile {self.done.total()} operations: {_listed(self.done)}"]
        return "\n".join([*lines, f"{len(self.violations)} violations", *self.violations])


class Relocation:
    """Moves `resources` contents through `stations` and back to the first, with at least `kills` kills."""

    def __init__(self, stations: Sequence[Stored], directory: Path, *, resources: int, kills: int, seed: int) -> None:
        self.stations = stations
        self.directory = directory
        self.resources = resources
        self.kills = kills
        self.random = random.Random(seed)
        self.seed = seed
        self.figures = Figures()
        self._numbers = count(1)

    def run(self, on_progress: Callable[[str], object] = lambda _text: None) -> Figures:
        """Fill the first station, move, check what is left in the end, and return the figures."""
        with override_settings(BLOBSTORE=SETTINGS | {"STORAGE": self.stations[0].alias}):
            began = time.monotonic()
            self._fill()
            on_progress(f"filled in {time.monotonic() - began:.0f} s")
            legs = list(zip(self.stations, [*self.stations[1:], self.stations[0]], strict=True))
            for number, (source, target) in enumerate(legs, 1):
                if not self.figures.violations:
                    self._check(lambda s=source, t=target, n=number: self._leg(s, t, self.kills * n // len(legs)))
                    on_progress(self.figures.legs[-1] if self.figures.legs else "")
            self._judge()
        return self.figures

    def _fill(self) -> None:
        with ThreadPoolExecutor(4) as threads:
            for _ in threads.map(self._fill_part, range(4)):
                pass

    def _fill_part(self, part: int) -> None:
        store = ManagedStorage()
        for number in range(part, self.resources, 4):
            store.put(HOME, f"{number}", Stream(content(number)))
        connections.close_all()

    def _leg(self, source: Stored, target: Stored, kills: int) -> None:
        """Move from `source` to `target` until there were so many `kills` in all, and then to the end."""
        began, stop = time.monotonic(), self.directory / "stop"
        before = self.figures.kills.total()
        site = self._open_site(source.alias, target.alias)
        while (to_come := kills - self.figures.kills.total()) > 0:
            left = Resource.objects.filter(storage=source.alias).count()
            if not self._move(source, target, f"kill:{self.random.randint(1, max(left * FAILPOINTS // to_come, 1))}"):
                break
        stop.touch()
        for process in site:
            process.join()
            process.close()
        self._collect()
        stop.unlink()
        moved = time.monotonic() - began
        for _ in range(ATTEMPTS):
            if not self._move(source, target, "kill:999999999"):
                break
        self._require_left_behind(source)
        self.figures.legs.append(
            f"{source.alias} → {target.alias}: {self.figures.kills.total() - before} kills in {moved:.0f} s, "
            f"at the end after {time.monotonic() - began:.0f} s"
        )

    def _open_site(self, old: str, new: str) -> list[BaseProcess]:
        """Start a process of each of two deployments: one puts new files in `old` still, the other in `new`."""
        seed = f"{self.seed}-{next(self._numbers)}"
        # Made in their processes, since a store takes its storage from the settings there.
        worker = lambda: Worker(SLOT, seed, self.directory, moves=False).run()  # noqa: E731
        visitor = lambda: Visitor(self.directory, self.resources, seed).run()  # noqa: E731
        return [self._start(worker, old), self._start(visitor, new)]

    def _start(self, work: Callable[[], object], alias: str, plan: str = "", log: str = "") -> BaseProcess:
        def run() -> None:
            complaint = self.directory / f"complaint-{os.getpid()}"
            hanging = complaint.with_name(f"hanging-{os.getpid()}")
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=hanging.open("w"))
            # New storages: those of the parent may have connections, which two processes must not share.
            with override_settings(STORAGES={**settings.STORAGES}, BLOBSTORE=SETTINGS | {"STORAGE": alias}):
                be_recognisable()
                arm(Plan(plan, log) if plan else None)
                try:
                    work()
                except CommandError:
                    hanging.unlink()
                    os._exit(1)
                except BaseException:  # noqa: BLE001 -- the supervisor is told
                    complaint.write_text(traceback.format_exc())
            hanging.unlink()
            os._exit(0)

        return start(run)

    def _move(self, source: Stored, target: Stored, plan: str) -> bool:
        """Have a process move under `plan`; say whether anything is left to be done: it was killed, or failed."""
        log = self.directory / f"failpoints-{next(self._numbers)}"
        options = ["blobstore_move", source.alias, target.alias, "--verbosity=0"]
        process = self._start(lambda: call_command(*options), target.alias, plan, str(log))
        process.join()
        if process.exitcode == -signal.SIGKILL:
            self.figures.kills[_last_line(log)] += 1
        log.unlink(missing_ok=True)
        return process.exitcode != 0

    def _require_left_behind(self, source: Stored) -> None:
        for station in self.stations:
            wait_until_forgotten(station)
        end_leases_and_graces()
        sweep()
        assert not Resource.objects.filter(storage=source.alias).exists()
        assert source.names() == set()

    def _collect(self) -> None:
        for complaint in (*self.directory.glob("complaint-*"), *self.directory.glob("hanging-*")):
            # Killed processes leave an empty one.
            self.figures.violations += filter(None, [complaint.read_text()])
            complaint.unlink()
        for figures in self.directory.glob("figures-*"):
            self.figures.done += read_figures(figures)
            figures.unlink()
        self.figures.done += journal.read(journal_file(self.directory, SLOT)).done

    def _judge(self) -> None:
        main = self.stations[0]
        self._check(lambda: assert_settled(main))
        self._check(self._require_everything)
        self._check(lambda: check_own(journal_file(self.directory, SLOT), own_paths(SLOT)))
        self._check(check_shared)
        PutRequest.objects.all().delete()
        ManagedStorage().remove_all(ManagedResource.objects.all())
        self._check(lambda: assert_settled(main))
        self._check(lambda: assert_empty(main))

    def _require_everything(self) -> None:
        # That they read back with their hash is among the invariants.
        objects = ManagedResource.objects.filter(bucket=HOME.bucket_id)
        found = dict(objects.values_list("path", "resource__sha384"))
        assert found == {f"{number}": sha384(content(number)) for number in range(self.resources)}

    def _check(self, check: Callable[[], object]) -> None:
        try:
            check()
        except AssertionError as violation:
            self.figures.violations.append(str(violation) or traceback.format_exc())


def _last_line(log: Path) -> str:
    """Return the failpoint reached last."""
    return log.read_text().split()[-1]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common())
