"""Which threads work for coroutines, who waits for whom, and what becomes of their database connections.

Threads, not an asynchronous driver: Django's ORM needs them in any case, and they leave the event loop more time than
pymongo's asynchronous client does, which decodes every chunk in it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from django.db import close_old_connections, connections

T = TypeVar("T")

THREADS = 16


async def in_thread(do: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
    """Call `do`, which must not wait for the event loop, in one of 16 threads and return what it returns.

    A cancellation calls `stop`, which may make `do` end soon, and goes on once `do` has ended; a second one at once.
    Database connections are kept from call to call as they are from request to request: for `CONN_MAX_AGE`.
    """
    return await _settled(_submit(_threads, _between_calls, do), stop)


async def in_own_thread(do: Callable[[], T], stop: Callable[[], None]) -> T:
    """Call `do`, which may wait for the event loop until `stop` is called, in a thread of its own; as `in_thread`."""
    own = ThreadPoolExecutor(1, thread_name_prefix="blobstore-own")
    try:
        return await _settled(_submit(own, _closing_connections, do), stop)
    finally:
        stop()
        own.shutdown(wait=False)


def on_own_connections(do: Callable[[], T]) -> T:
    """Call `do` with database connections of its own, closed afterwards, whatever the caller's are in the middle of."""
    with ThreadPoolExecutor(1, thread_name_prefix="blobstore-apart") as own:
        return _submit(own, _closing_connections, do).result()


async def read_ahead(blocks: Iterator[bytes], length: int) -> AsyncIterator[bytes]:
    """Yield `blocks`, each taken from its iterator in a thread while the caller is busy with the one before.

    They end with the iterator, or without asking it again after `length` bytes.
    """
    take = partial(in_thread, partial(next, blocks, b""))
    following = asyncio.create_task(take())
    try:
        while block := await following:
            length -= len(block)
            if length > 0:
                following = asyncio.create_task(take())
            yield block
            if length <= 0:
                return
    finally:
        # Whoever closes the file now must find no thread reading it.
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _submit(threads: Executor, run: Callable[[Callable[[], T]], T], do: Callable[[], T]) -> Future[T]:
    return threads.submit(copy_context().run, run, do)


async def _settled(work: Future[T], stop: Callable[[], None] | None) -> T:
    waiter = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(waiter)
    except asyncio.CancelledError:
        if stop:
            stop()
        if not work.cancel():
            with suppress(Exception):
                await asyncio.shield(waiter)
        raise


def _between_calls(do: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return do()
    finally:
        close_old_connections()


def _closing_connections(do: Callable[[], T]) -> T:
    try:
        return do()
    finally:
        connections.close_all()


def _start_threads() -> None:
    global _threads
    _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobstore-async")


_threads: ThreadPoolExecutor
_start_threads()
# Threads do not survive a fork, and their pool would not notice.
os.register_at_fork(after_in_child=_start_threads)
