"""The same for coroutines: each call is one of `Client` in a thread, since files and hashes would block the loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from anyio import CancelScope, to_thread

from django_blobstore.client.operations import Client
from django_blobstore.client.outcomes import Meter, OnProgress, Outcome, no_progress, unmetered
from django_blobstore.client.problems import Stopped

Result = TypeVar("Result")
_END: Any = object()


class AsyncClient:
    """A `Client` whose methods are coroutines and asynchronous iterators, under asyncio or trio.

    A cancelled call ends at the next mebibyte. Everything else is as there.
    """

    def __init__(self, url: str = "", token: str = "", **options: Any) -> None:
        self._client = Client(url, token, **options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await to_thread.run_sync(self._client.close)

    async def buckets(self) -> list[dict[str, Any]]:
        return await _run(self._client.buckets)

    async def create_bucket(self, name: str) -> dict[str, Any]:
        return await _run(self._client.create_bucket, name)

    def objects(self, address: str) -> AsyncIterator[dict[str, Any]]:
        return _iterate(lambda: self._client.objects(address))

    def folder(self, address: str) -> AsyncIterator[dict[str, Any]]:
        return _iterate(lambda: self._client.folder(address))

    async def stat(self, address: str) -> dict[str, Any]:
        return await _run(self._client.stat, address)

    async def put(
        self, file: str | Path, address: str, *, content_type: str = "", on_progress: OnProgress = no_progress
    ) -> Outcome:
        return await _carry(partial(self._client.put, file, address, content_type=content_type), on_progress)

    def put_all(
        self, files: Iterable[str | Path], address: str, *, content_type: str = "", meter: Meter = unmetered
    ) -> AsyncIterator[Outcome]:
        return _iterate(lambda: self._client.put_all(files, address, content_type=content_type, meter=meter))

    async def get(self, address: str, file: str | Path = ".", *, on_progress: OnProgress = no_progress) -> Outcome:
        return await _carry(partial(self._client.get, address, file), on_progress)

    def get_all(self, address: str, directory: str | Path, *, meter: Meter = unmetered) -> AsyncIterator[Outcome]:
        return _iterate(lambda: self._client.get_all(address, directory, meter=meter))

    async def verify(self, address: str, *, on_progress: OnProgress = no_progress) -> Outcome:
        return await _carry(partial(self._client.verify, address), on_progress)

    def verify_all(self, address: str, *, meter: Meter = unmetered) -> AsyncIterator[Outcome]:
        return _iterate(lambda: self._client.verify_all(address, meter=meter))

    async def copy(self, source: str, target: str) -> dict[str, Any]:
        return await _run(self._client.copy, source, target)

    async def move(self, source: str, target: str) -> dict[str, Any]:
        return await _run(self._client.move, source, target)

    async def remove(self, address: str) -> Outcome:
        return await _run(self._client.remove, address)

    def remove_all(self, address: str) -> AsyncIterator[Outcome]:
        return _iterate(lambda: self._client.remove_all(address))

    def sync(
        self,
        directory: str | Path,
        address: str,
        *,
        delete: bool = False,
        dry_run: bool = False,
        meter: Meter = unmetered,
    ) -> AsyncIterator[Outcome]:
        return _iterate(lambda: self._client.sync(directory, address, delete=delete, dry_run=dry_run, meter=meter))


async def _run(call: Callable[..., Result], *arguments: Any) -> Result:
    return await to_thread.run_sync(call, *arguments, abandon_on_cancel=True)


async def _carry(call: Callable[..., Outcome], on_progress: OnProgress) -> Outcome:
    """Run `call`, and have its progress end it when the caller does not wait any more."""
    abandoned = threading.Event()

    def tell(stage: str, done: int, total: int) -> None:
        if abandoned.is_set():
            raise Stopped
        on_progress(stage, done, total)

    try:
        return await to_thread.run_sync(partial(call, on_progress=tell), abandon_on_cancel=True)
    except BaseException:
        abandoned.set()
        raise


async def _iterate(begin: Callable[[], Generator[Result]]) -> AsyncIterator[Result]:
    """Yield what an iterator does that is only ever used in threads."""
    iterator = await to_thread.run_sync(begin)
    try:
        while (item := await to_thread.run_sync(next, iterator, _END)) is not _END:
            yield item
    finally:
        # Still at work in a thread that nobody waits for any more, it is closed when that is done.
        with CancelScope(shield=True), suppress(ValueError):
            await to_thread.run_sync(iterator.close)
