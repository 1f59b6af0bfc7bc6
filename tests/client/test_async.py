"""The client of coroutines."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from django_blobstore.client import AsyncClient, Client, Refused
from django_blobstore.models import Bucket, ManagedResource
from tests.client.wires import Wire, assert_settles
from tests.stored import Stored
from tests.streams import MIB, content_of

CONTENT = content_of(3 * MIB)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def aclient(wire: Wire, token: str, tmp_path: Path) -> AsyncClient:
    return AsyncClient(wire.url, token, state=tmp_path / "state")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [entry.get("prefix") or entry["path"] for entry in found]


async def listed(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def test_everything_can_be_awaited(aclient: AsyncClient, bucket: Bucket, file: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with aclient as client:
            assert (await client.put(file, "papers/a")).how == "sent"
            assert (await client.copy("papers/a", "papers/b"))["path"] == "b"
            assert (await client.move("papers/b", "papers/c/d"))["path"] == "c/d"
            assert (await client.stat("papers/a"))["length"] == len(CONTENT)
            assert names(await listed(client.folder("papers/"))) == ["c/", "a"]
            assert names(await listed(client.objects("papers/"))) == ["a", "c/d"]
            assert (await client.get("papers/a", tmp_path / "back")).how == "received"
            assert (await client.verify("papers/a")).carried == len(CONTENT)
            assert len(await listed(client.get_all("papers/", tmp_path / "all"))) == 2
            assert len(await listed(client.verify_all("papers/"))) == 2
            assert len(await listed(client.put_all([file], "me/"))) == 1
            assert len(await listed(client.sync(tmp_path / "all", "me/all"))) == 2
            assert (await client.remove("papers/a")).how == "removed"
            assert len(await listed(client.remove_all("me/"))) == 3
            assert (await client.create_bucket("letters"))["name"] == "letters"
            assert {found["name"] for found in await client.buckets()} == {"papers", "letters"}
            with pytest.raises(Refused):
                await client.stat("papers/a")

    run(work())
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_several_calls_are_under_way_at_once(aclient: AsyncClient, bucket: Bucket, file: Path) -> None:
    async def work() -> list[Any]:
        async with aclient as client:
            return await asyncio.gather(*(client.put(file, f"papers/{number}") for number in range(4)))

    assert sorted(outcome.how for outcome in run(work())) == ["proven", "proven", "proven", "sent"]


def test_a_cancelled_call_ends_in_its_thread_too(
    aclient: AsyncClient, bucket: Bucket, file: Path, stored: Stored
) -> None:
    sending, calls = threading.Event(), []

    def tell(stage: str, done: int, total: int) -> None:
        calls.append(stage)
        if stage == "send":
            sending.set()
            cancelled.wait(120)

    cancelled = threading.Event()

    async def work() -> None:
        task = asyncio.create_task(aclient.put(file, "papers/a", on_progress=tell))
        while not sending.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        await aclient.aclose()

    run(work())
    assert_settles(stored)
    assert calls.count("send") == 1
    assert not ManagedResource.objects.exists()


def test_an_iteration_that_is_left_ends(aclient: AsyncClient, bucket: Bucket, file: Path, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_bytes(b"%d" % number)

    async def work() -> None:
        outcomes = aclient.put_all(sorted(tmp_path.glob("*.txt")), "papers/x/")
        async for _ in outcomes:
            break
        await outcomes.aclose()
        assert (await aclient.put(file, "papers/after")).how == "sent"
        await aclient.aclose()

    run(work())
    assert 1 <= ManagedResource.objects.filter(path__startswith="x/").count() < 20


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        found = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if name[0] != "_"}

    mine, theirs = methods(Client), methods(AsyncClient)
    theirs["close"] = theirs.pop("aclose")
    del mine["stop"]
    assert mine == theirs
