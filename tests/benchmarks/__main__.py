"""Run ``python -m tests.benchmarks [GROUP …] [--rounds N]``: all benchmarks, each group in a process of its own.

Linux only. A group is a module of this package with a function ``rows(options: Options) -> Iterator[Row]``, which
starts the servers it needs.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

from tests.benchmarks.duel import ROUNDS, run_group, table

GROUPS = ("storage", "store", "http", "scale", "memory", "transfer")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare with what else there is.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; by default all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each pair is timed (%(default)s)")
    chosen = parser.parse_args(arguments)
    for name in chosen.groups:
        if not find_spec(f"tests.benchmarks.{name}"):
            parser.error(f"There is no group {name!r}; there are {', '.join(GROUPS)}.")
    groups = chosen.groups or [name for name in GROUPS if find_spec(f"tests.benchmarks.{name}")]
    rows, peaks = [], {}
    # Django is set up once per process, and one group's memory is not another's.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        for name in groups:
            found, peaks[name] = fresh.submit(run_group, name, chosen.rounds).result()
            rows += found
    print(f"\n{table(rows)}\n")
    for name, of_group in peaks.items():
        print(f"Peak RSS, {name}: " + ", ".join(f"{who} {mib:.0f} MiB" for who, mib in of_group.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
