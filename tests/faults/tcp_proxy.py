"""A TCP proxy on the loopback that cuts, resets, half-closes, stalls or slows the connections through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import Any

BLOCK = 64 * 1024
TO_SERVER, TO_CLIENT = "to the server", "to the client"
# "half-closed": the server is told that nothing more comes, and nothing more does; its answers still pass.
WAYS = ("cut", "reset", "half-closed", "stalled", "slow")
SLOW_BLOCK, SLOW_PAUSE = 16 * 1024, 0.002


@dataclass
class Trap:
    """What happens to the connection that carries the byte number `after` in `direction`; to all, if `for_all`."""

    way: str
    direction: str
    after: int
    for_all: bool = False
    carried: int = 0
    is_sprung: bool = False

    def admits(self, direction: str, size: int) -> int:
        """Return how many of `size` bytes pass before the trap springs."""
        if self.is_sprung:
            return 0 if self.for_all else size
        if direction != self.direction:
            return size
        admitted = min(size, self.after - self.carried)
        self.carried += admitted
        return admitted


class TcpProxy:
    """Carries connections from `port` to another port of this machine, as long as the context lasts."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._trap: Trap | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._links: set[_Link] = set()

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set_trap(self, way: str, direction: str, after: int, *, for_all: bool = False) -> Trap:
        """Do `way` once `after` more bytes were carried in `direction`; with `for_all` to every connection from then.

        It lasts for those it befell, or until `heal`.
        """
        assert way in WAYS
        self._trap = Trap(way, direction, after, for_all)
        return self._trap

    def heal(self, following: Trap | None = None) -> None:
        """Let new connections pass, as far as the `following` trap; those that were stalled are reset."""
        self._trap = following
        self._do(self._reset_stalled())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(200)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._carry(link, reader, server_writer, TO_SERVER), self._carry(link, server_reader, writer, TO_CLIENT)
            )
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            link.cut()

    async def _carry(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str
    ) -> None:
        while data := await reader.read(SLOW_BLOCK if link.way == "slow" else BLOCK):
            trap = self._trap
            admitted = trap.admits(direction, len(data)) if trap and not link.way else len(data)
            await _pass_on(link, writer, direction, data[:admitted])
            if trap and admitted < len(data):
                trap.is_sprung = True
                link.befall(trap.way)
                await _pass_on(link, writer, direction, data[admitted:])
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

    async def _reset_stalled(self) -> None:
        for link in [link for link in self._links if link.way == "stalled"]:
            link.reset()

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.reset()
        everyone = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(everyone, timeout=10) if everyone else None


class _Link:
    """One connection: what befell it, and its two ends."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.way = ""

    def befall(self, way: str) -> None:
        self.way = way
        if way == "cut":
            self.cut()
        elif way == "reset":
            self.reset()
        elif way == "half-closed":
            self.server.write_eof()

    def cut(self) -> None:
        for end in (self.client, self.server):
            end.close()

    def reset(self) -> None:
        for end in (self.client, self.server):
            connection = end.get_extra_info("socket")
            if connection is not None and not end.is_closing():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


async def _pass_on(link: _Link, writer: asyncio.StreamWriter, direction: str, data: bytes) -> None:
    """Write `data`, unless what befell the connection swallows it."""
    if not data or link.way in ("cut", "reset", "stalled") or (link.way == "half-closed" and direction == TO_SERVER):
        return
    if link.way == "slow":
        await asyncio.sleep(SLOW_PAUSE)
    writer.write(data)
    await writer.drain()
