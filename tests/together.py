"""Run functions at the same time, each in a thread with database connections of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

from django.db import connections

SECONDS = 120


def outcomes(*works: Callable[[], Any]) -> list[Any]:
    """Start all `works` at once and return, for each, what it returned or the error it raised."""
    barrier = Barrier(len(works))
    with ThreadPoolExecutor(len(works)) as threads:
        futures = [threads.submit(_one_of_many, barrier, work) for work in works]
        return [future.exception() or future.result() for future in futures]


def results(*works: Callable[[], Any]) -> list[Any]:
    """Start all `works` at once and return what they returned, or raise the first error."""
    done = outcomes(*works)
    for error in done:
        if isinstance(error, BaseException):
            raise error
    return done


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Run `work` in a thread while the context lasts; it must come to an end before the context can."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(_with_own_connections, work)


def _one_of_many(barrier: Barrier, work: Callable[[], Any]) -> Any:
    barrier.wait(SECONDS)
    return _with_own_connections(work)


def _with_own_connections(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()
