"""HTTP by hand: exact bytes on a socket, as broken clients send them, and whatever comes back."""

from __future__ import annotations

import json
import socket
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """The status (0 if the server hung up without one), the headers by lower-case name, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


def send(url: str, request: bytes, *, hang_up: bool = False) -> Answer:
    """Send `request` to the server of `url`, then nothing more; with `hang_up`, say that nothing more will come."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=SECONDS) as connection:
        with suppress(ConnectionError):  # the server may answer, and hang up, before it has read it all
            connection.sendall(request)
        if hang_up:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        return _read(connection, request.partition(b" ")[0].decode("latin-1"))


def head(method: str, url: str, path: str, *headers: str, user: str = "root", password: str = "x") -> bytes:
    """Return the head of a request for `path`, sent as it stands after the path of `url`."""
    address = urlsplit(url)
    credentials = b64encode(f"{user}:{password}".encode()).decode()
    lines = [
        f"{method} {address.path}{path} HTTP/1.1",
        f"Host: {address.netloc}",
        f"Authorization: Basic {credentials}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(*blocks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return `blocks` as a chunked body; without `end` it is cut."""
    return b"".join(f"{len(block):x}\r\n".encode() + block + b"\r\n" for block in blocks) + end


def _read(connection: socket.socket, method: str) -> Answer:
    response = HTTPResponse(connection, method=method)
    try:
        response.begin()
        body = response.read()
    except ConnectionError:
        return Answer(0, {}, b"")
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
