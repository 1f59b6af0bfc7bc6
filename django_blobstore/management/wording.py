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

    def show(self, label: str, done: int, total: int, *, work: tuple[int, int] | None = None) -> None:
        """Say that `done` of `total` are done, or just how many if the total is not known (0).

        Where some take longer than others the bar shows how much of the `work` is done, and how much there is.
        """
        now = time.monotonic()
        if self._wanted and (now - self._drawn_at >= REDRAW_SECONDS or done == total):
            self._drawn_at = now
            self._write(_bar(label, done, total, work or (done, total))[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._wanted and self._drawn_at:
            self._write("")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}", style_func=str, ending="")
        self._stream.flush()


def _bar(label: str, done: int, total: int, work: tuple[int, int]) -> str:
    if not total:
        return f"{label}: {done:,}" if done else f"{label} …"
    worked, whole = min(work), work[1]
    filled = 30 * worked // whole
    return f"{'█' * filled}{'·' * (30 - filled)} {100 * worked // whole:3}% {label}: {done:,} of {total:,}"


class Pace:
    """How fast something goes since this was made, and for how long it will go on."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()

    def told(self, length: int, done: float, total: float) -> str:
        """Return how many of `length` bytes pass in a second, and what is left when `done` of `total` are done."""
        passed = max(time.monotonic() - self._began_at, 0.001)
        left = f", {lasting(passed * (total - done) / done)} left" if done else ""
        return f"{rounded(int(length / passed))}/s{left}"


def seconds(text: str) -> float:
    """Return `text` as a number of seconds above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError("it must be a number of seconds above 0")
    return value


def above_zero(text: str) -> int:
    """Return `text` as a whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("it must be a number of 1 or more")
    return number


def counted(number: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sized(length: int) -> str:
    """Return `length` bytes in exact and, from 1 KiB on, in human units."""
    exact = counted(length, "byte")
    return f"{rounded(length)} ({exact})" if length >= 1024 else exact


def rounded(length: int) -> str:
    """Return `length` bytes in human units."""
    power = min((length.bit_length() - 1) // 10, len(UNITS))
    return f"{length / 1024**power:.1f} {UNITS[power - 1]}" if power > 0 else counted(length, "byte")


def lasting(duration: float) -> str:
    """Return `duration`, in seconds, in whole seconds, minutes or hours."""
    if duration < 100:
        return f"{duration:.0f} s"
    return f"{duration / 60:.0f} min" if duration < 6000 else f"{duration / 3600:.0f} h"
