"""Run functions at the same time, in threads with database connections of their own or in processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

from django.db import connections

from tests.servers import deployment
from tests.settings import DEPLOYMENT_VARIABLE

SECONDS = 240
CHILD = """
import sys, django
from django.utils.module_loading import import_string
django.setup()
import_string(sys.argv[1])(*sys.argv[2:])
"""


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


@contextmanager
def child(function: Callable[..., None], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Call `function` in a new process, on the current database and storage; it is killed when the context ends.

    The function and its arguments, which reach it as text, must be what another process can import and read.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, name, *map(str, arguments)],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", DEPLOYMENT_VARIABLE: deployment()},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def printed(process: subprocess.Popen[str]) -> str:
    """Wait until `process` ended well and return what it printed."""
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, f"{process.args[3:]} ended with {process.returncode}"
    return output


def _one_of_many(barrier: Barrier, work: Callable[[], Any]) -> Any:
    barrier.wait(SECONDS)
    return _with_own_connections(work)


def _with_own_connections(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()
