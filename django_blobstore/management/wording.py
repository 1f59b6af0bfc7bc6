"""How commands speak: counts, sizes, and a bar that moves on a terminal and nowhere else."""

from __future__ import annotations

import shutil
import time
from argparse import ArgumentTypeError

from django.core.management.base import OutputWrapper

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
REDRAW_SECONDS = 0.1


class Bar:
    """A progress bar on the last line of `stream`, if that is a terminal."""

    def __init__(self, stream: OutputWrapper, *, wanted: bool = True) -> None:
        self._stream = stream
        self._wanted = wanted and stream.isatty()
        self._drawn_at = 0.0

    def show(self, label: str, done: int, total: int) -> None:
        """Say that `done` of `total` are done, or just how many if the total is not known (0)."""
        now = time.monotonic()
        if self._wanted and (now - self._drawn_at >= REDRAW_SECONDS or done == total):
            self._drawn_at = now
            self._write(_bar(label, done, total)[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._wanted and self._drawn_at:
            self._write("")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}", style_func=str, ending="")
        self._stream.flush()


def _bar(label: str, done: int, total: int) -> str:
    if not total:
        return f"{label}: {done:,}" if done else f"{label} …"
    filled = 30 * done // total
    return f"{'█' * filled}{'·' * (30 - filled)} {100 * done // total:3}% {label}: {done:,} of {total:,}"


def seconds(text: str) -> float:
    """Return `text` as a number of seconds above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("it must be a number of seconds above 0")
    return value


def counted(number: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sized(length: int) -> str:
    """Return `length` bytes in exact and, from 1 KiB on, in human units."""
    power = min((length.bit_length() - 1) // 10, len(UNITS))
    exact = counted(length, "byte")
    return f"{length / 1024**power:.1f} {UNITS[power - 1]} ({exact})" if power > 0 else exact
