"""How two ways to do the same work are compared: in turns, by the median of ratios, against a target."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import psutil

from tests.benchmarks.ground import peak_mib

ROUNDS = 11


@dataclass(frozen=True)
class Row:
    """A line of the table: `value`, in `unit`, of `work` `against` another one, and what it should be.

    `ours` and `peer` say what was measured of each.
    """

    work: str
    against: str
    ours: str
    peer: str
    value: float
    unit: str = "\N{MULTIPLICATION SIGN}"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    def __str__(self) -> str:
        cells = self.work, self.against, self.ours, self.peer, f"{self.value:.2f} {self.unit}", self.target
        return f"| {' | '.join(cells)} | {_VERDICTS[self.is_reached]} |"


_VERDICTS = {True: "yes", False: "**no**", None: ""}
_HEAD = "| work | against | ours | peer | value | target | reached |\n|---|---|---:|---:|---:|---:|---|"


@dataclass
class Options:
    """What a group of benchmarks is told, and what memory was seen at work."""

    rounds: int = ROUNDS
    _watched: dict[str, int] = field(default_factory=dict)
    _peaks: dict[str, float] = field(default_factory=dict)

    def watch(self, name: str, pid: int) -> None:
        """Report the memory of a process as that of `name`; children are watched without being asked for."""
        self._watched[name] = pid

    def peaks(self) -> dict[str, float]:
        """Return the peak resident MiB of this process and of each watched one, at its highest so far."""
        own = psutil.Process()
        children = [(child.name(), child.pid) for child in own.children(recursive=True)]
        for name, pid in [("benchmark", own.pid), *children, *self._watched.items()]:
            with suppress(FileNotFoundError, StopIteration):  # it ended meanwhile
                self._peaks[name] = max(self._peaks.get(name, 0), peak_mib(pid))
        return self._peaks


def duel(
    work: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    against: str,
    at_least: float | None = None,
    at_most: float | None = None,
    rounds: int = ROUNDS,
    each: int = 1,
    between: Callable[[], Any] | None = None,
) -> Row:
    """Time both in turns, `each` calls at a time, who is first changing every round; return medians and their ratio.

    The ratio is the median over the rounds of the peer's time divided by ours, so more is better; with `at_most` it is
    ours divided by the peer's, so less is better. `between` is called, untimed, before the first and after every round.
    """
    clean = between or (lambda: None)
    mine: list[float] = []
    others: list[float] = []
    sides = [(ours, mine), (peer, others)]
    clean()
    for _ in range(rounds + 1):
        sides.reverse()
        for do, seconds in sides:
            seconds.append(_seconds(do, each))
        clean()
    del mine[0], others[0]  # they were to warm up
    ratios = [other / own if at_most is None else own / other for own, other in zip(mine, others, strict=True)]
    ratio = statistics.median(ratios)
    return Row(work, against, shown(mine), shown(others), ratio, at_least=at_least, at_most=at_most)


def run_group(name: str, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Run the group `name`, printing its rows as they come; return them and the peaks of memory in MiB."""
    options = Options(rounds)
    found: list[Row] = []
    _progress(f"{name}: starting")
    for row in import_module(f"tests.benchmarks.{name}").rows(options):
        found.append(row)
        print(row, flush=True)
        options.peaks()
        _progress(f"{name}: {len(found)} rows, load {os.getloadavg()[0]:.1f}")
    return found, options.peaks()


def shown(seconds: list[float]) -> str:
    """Return the median of `seconds` in ms, and the interquartile range in per cent of it."""
    median = statistics.median(seconds)
    spread = 0.0
    if len(seconds) > 1:
        first, _, third = statistics.quantiles(seconds, n=4)
        spread = (third - first) / median
    return f"{median * 1000:.4g} ms ±{spread:.0%}"


def table(rows: Iterable[Row]) -> str:
    """Return `rows` as a Markdown table."""
    return "\n".join([_HEAD, *map(str, rows)])


def _seconds(do: Callable[[], Any], each: int) -> float:
    """Return how long one call takes, on average of `each`."""
    began = time.perf_counter()
    for _ in range(each):
        do()
    return (time.perf_counter() - began) / each


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
