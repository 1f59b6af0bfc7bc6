"""What the client's put of a content costs that the store has already, and how much memory a gigabyte takes.

Run ``python -m tests.benchmarks transfer``, or ``python -m tests.benchmarks.transfer [MiB]`` for another length. The
command is run as a user runs it; its start, about a third of a second, is part of every time. Linux only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.duel import Options, Row, table
from tests.benchmarks.ground import MIB, Bytes, deployment

TIMES = 3
# What a parent is told of its child's peak has its own in it.
_TELLING_ITS_PEAK = """
import sys
from django_blobstore.client.cli import blobstore

blobstore(sys.argv[1:], standalone_mode=False)
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Took:
    """What a command took: seconds, and MiB of resident memory at its peak."""

    seconds: float
    peak: float


def rows(options: Options, length: int = 1024 * MIB) -> Iterator[Row]:
    with deployment() as directory:
        from django.contrib.auth import get_user_model
        from rest_framework.authtoken.models import Token

        from tests.servers import GUNICORN, site

        token = Token.objects.create(user=get_user_model().objects.create_superuser("admin")).key
        with site(GUNICORN) as served:
            home = {"BLOBSTORE_URL": f"{served.url}/api/", "BLOBSTORE_TOKEN": token, "XDG_STATE_HOME": str(directory)}
            yield from rows_of_commands(home, directory / "file", length)


def rows_of_commands(home: dict[str, str], file: Path, length: int) -> Iterator[Row]:
    sent, proven, unread = [], [], []
    for number in range(TIMES):
        write(file, length, number)
        sent.append(run(home, "put", file, f"me/{number}"))
        proven.append(run(home, "put", file, f"me/{number} again"))
        forgetful = home | {"XDG_STATE_HOME": str(file.with_name(f"forgetful {number}"))}
        unread.append(run(forgetful, "put", file, f"me/{number} unread"))
        if number < TIMES - 1:
            run(home, "rm", f"me/{number}", f"me/{number} again", f"me/{number} unread")
    name = f"{length // MIB} MiB"
    for work, stored in (("its hash remembered", proven), ("its hash not known", unread)):
        ratios = [before.seconds / after.seconds for before, after in zip(sent, stored, strict=True)]
        cells = seconds(stored), seconds(sent)
        at_least = 20 if stored is proven else None
        yield Row(f"put of stored {name}, {work}", "sending it", *cells, statistics.median(ratios), at_least=at_least)
    file.unlink()
    got = run(home, "get", f"me/{TIMES - 1}", file)
    for work, peak in (("put", max(took.peak for took in sent)), ("get", got.peak)):
        yield Row(f"blobstore {work} {name}, all memory", "", f"{peak:.0f} MiB", "", peak, "MiB", at_most=100)


def run(home: dict[str, str], *arguments: object) -> Took:
    """Run the command and return what it took."""
    command = [sys.executable, "-c", _TELLING_ITS_PEAK, *map(str, arguments)]
    began = time.monotonic()
    done = subprocess.run(command, env=os.environ | home, stdout=subprocess.PIPE, check=True)
    return Took(time.monotonic() - began, float(done.stdout.split()[-1]))


def write(file: Path, length: int, number: int) -> None:
    """Write a content of `length` bytes that no other number gives."""
    with file.open("wb") as stream:
        stream.write(number.to_bytes(8))
        source = Bytes(length - 8)
        while block := source.read(MIB):
            stream.write(block)
    # Of a file that has only just changed no hash is remembered.
    os.utime(file, (number, number))


def seconds(all_took: list[Took]) -> str:
    return f"{statistics.median(took.seconds for took in all_took):.2f} s"


if __name__ == "__main__":
    print(table(list(rows(Options(), (int(sys.argv[1]) if len(sys.argv) > 1 else 1024) * MIB))))
