"""How far each object is, in bars on a terminal."""

from __future__ import annotations

import sys
import threading

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from django_blobstore.client.outcomes import OnProgress

_STAGES = {"hash": "hashing", "send": "sending", "receive": "receiving"}


class ShownBars:
    """A bar for each object under way, on a terminal."""

    def __init__(self) -> None:
        self._bars: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._progress = Progress(
            # Brackets in an address are no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
            # What goes elsewhere must not end up among the bars.
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> ShownBars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def of(self, address: str) -> OnProgress:
        """Return what moves the bar of `address`."""

        def move(stage: str, done: int, total: int) -> None:
            with self._lock:
                if address not in self._bars:
                    self._bars[address] = self._progress.add_task(address)
                description = f"{_STAGES[stage]} {address}"
                self._progress.update(self._bars[address], description=description, completed=done, total=total)

        return move

    def end(self, address: str) -> None:
        """Take the bar of `address` away."""
        with self._lock:
            if address in self._bars:
                self._progress.remove_task(self._bars.pop(address))
