"""How threads share one piece of work, and that all of them end when one fails or somebody has had enough."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from django.db import connections

from django_blobstore.errors import BlobstoreError


class Interrupted(BlobstoreError):
    """The work is to end now."""


class Crew:
    """Threads that all call the same function, with database connections of their own."""

    def __init__(self) -> None:
        self._over = Event()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def end(self) -> None:
        """Have everybody end soon."""
        self._over.set()

    def go_on(self) -> None:
        """Raise `Interrupted` if the work is to end; call it within whatever takes long."""
        if self.is_over:
            raise Interrupted

    def run(self, work: Callable[[], object], number: int, *, name: str) -> None:
        """Call `work` in `number` threads by that `name`, and return when all are done; raise what the first raised."""
        with ThreadPoolExecutor(number, thread_name_prefix=name) as threads:
            running = [threads.submit(self._take_part, work) for _ in range(number)]
            try:
                for part in running:
                    part.result()
            finally:
                # Somebody at the terminal may have had enough.
                self.end()

    def _take_part(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Interrupted:
            pass
        except BaseException:
            self.end()
            raise
        finally:
            connections.close_all()
