"""An HTTP client that costs next to nothing: requests made beforehand, bodies read into one buffer and forgotten."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import urlsplit

from tests.benchmarks.ground import MIB

_END = re.compile(rb"\r\n\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *([^\r]+)", re.IGNORECASE)


def request(method: str, url: str, *, token: str = "", length: int | None = None) -> bytes:
    """Return the head of a request with a body of `length` bytes, or with none."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    if token:
        lines.append(f"Authorization: Token {token}")
    if length is not None:
        lines += [f"Content-Length: {length}", "Content-Type: application/octet-stream"]
    return "\r\n".join([*lines, "", ""]).encode()


class Connection:
    """A connection to the server of `url` that stays open between requests."""

    def __init__(self, url: str, buffer: int = MIB) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._buffer = memoryview(bytearray(buffer))
        self._socket = self._connected()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, head: bytes, body: bytes | memoryview = b"") -> Answer:
        """Send a request and return the answer, whose body was read and dropped. Raises for a status of 400 or more."""
        answer = self.begin(head, body)
        self._drop(answer.length - answer.received)
        return answer

    def reopen(self) -> None:
        """Hang up, whatever is still to come, and connect anew."""
        self._socket.close()
        self._socket = self._connected()

    def begin(self, head: bytes, body: bytes | memoryview = b"") -> Answer:
        """Send a request and return its answer once anything of the body is there."""
        if len(body) > MIB:
            self._socket.sendall(head)
            self._socket.sendall(body)
        else:
            self._socket.sendall(head + body)
        answer = self._head()
        if answer.status >= 400:
            self._drop(answer.length - answer.received)
            raise RuntimeError(f"{head!r} was answered by {answer.head!r}")
        if answer.length and not answer.received:
            answer.received = self._receive()
        return answer

    def _head(self) -> Answer:
        received = self._receive()
        while not (end := _END.search(self._buffer[:received])):
            received += self._receive(received)
        return Answer(bytes(self._buffer[: end.end()]), received - end.end())

    def _receive(self, start: int = 0) -> int:
        got = self._socket.recv_into(self._buffer[start:])
        if not got:
            raise ConnectionError(f"The server hung up after {bytes(self._buffer[:start])!r}.")
        return got

    def _drop(self, left: int) -> None:
        while left:
            left -= self._receive()

    def _connected(self) -> socket.socket:
        connected = socket.create_connection(self._address, timeout=120)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected


class Answer:
    """The head of an answer, and how many bytes of its body came with it."""

    def __init__(self, head: bytes, received: int = 0) -> None:
        self.head = head
        self.received = received
        self.status = int(head[9:12])
        length = _LENGTH.search(head)
        if length is None and self.status != 204:
            raise RuntimeError(f"The answer does not say its length: {head!r}")
        self.length = int(length[1]) if length else 0

    @property
    def location(self) -> str:
        found = _LOCATION.search(self.head)
        return found[1].decode() if found else ""


class Crowd:
    """Several connections to the server of `url`, each used by a thread of its own."""

    def __init__(self, url: str, size: int) -> None:
        self._connections = [Connection(url, 64 * 1024) for _ in range(size)]
        self._threads = ThreadPoolExecutor(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for connection in self._connections:
            connection.__exit__()

    def share(self, work: Sequence[Any], do: Callable[[Connection, Any], Any]) -> None:
        """Have `do` done with every piece of `work`, by all connections at once."""
        shares = [work[start :: len(self._connections)] for start in range(len(self._connections))]
        list(self._threads.map(_do_all, self._connections, shares, [do] * len(shares)))


def _do_all(connection: Connection, share: Iterable[Any], do: Callable[[Connection, Any], Any]) -> None:
    for piece in share:
        do(connection, piece)
