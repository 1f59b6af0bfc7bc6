"""What refusals mean to a client: which pass, how long it waits, and what it tells."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from django_blobstore.client import Client, ClientError, InvalidAddress, Refused, Stopped, Unreachable, problems
from django_blobstore.client.problems import refused
from django_blobstore.client.transport import Patience
from tests.client.answers import Answers, store

OBJECT = {"results": [{"path": "a", "status": 200, "object": {"path": "a"}}]}


def client_of(server: Answers, state: Path) -> Client:
    return Client(f"http://127.0.0.1:{server.server_port}/api", "token", state=state)


def problem(status: int, code: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, told, {"status": status, "code": code, "detail": "It is so."}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_asked_again_after_as_long_as_the_store_says(status: int, tmp_path: Path) -> None:
    busy = problem(status, "busy", Retry_After="0")
    with store(busy, busy, (200, {}, OBJECT)) as server, client_of(server, tmp_path) as client:
        assert client.stat("me/a") == {"path": "a"}
        assert server.asked == 3


def test_what_takes_too_long_is_told_at_once(tmp_path: Path) -> None:
    busy = problem(429, "throttled", Retry_After="3600")
    with store(busy) as server, client_of(server, tmp_path) as client:
        with pytest.raises(Refused, match=r"It is so\.") as raised:
            client.stat("me/a")
        assert (server.asked, raised.value.retry_after, raised.value.exit_code) == (1, 3600, 6)


def test_what_does_not_pass_is_given_up(tmp_path: Path) -> None:
    with store(problem(503, "busy", Retry_After="0")) as server, client_of(server, tmp_path) as client:
        with pytest.raises(Refused):
            client.stat("me/a")
        assert server.asked > 3


def test_an_answer_of_another_server_tells_what_to_look_at(tmp_path: Path) -> None:
    with store((404, {}, b"<html>")) as server, client_of(server, tmp_path) as client:
        with pytest.raises(Refused, match="blobstore login URL") as raised:
            client.stat("me/a")
        assert (raised.value.status, raised.value.code) == (404, "")


def test_a_token_does_not_follow_a_redirect(tmp_path: Path) -> None:
    with store((200, {}, OBJECT)) as other:
        there = f"http://127.0.0.1:{other.server_port}/"
        with (
            store((302, {"Location": there}, b"")) as server,
            client_of(server, tmp_path) as client,
            pytest.raises(Refused, match="302"),
        ):
            client.stat("me/a")
        assert other.asked == 0


def test_nobody_at_the_url_is_told_with_the_way_out(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_blobstore.client.transport._ATTEMPTS", 2)
    with (
        Client(nobody, "token", state=tmp_path) as client,
        pytest.raises(Unreachable, match="Try again") as raised,
    ):
        client.stat("me/a")
    assert raised.value.exit_code == 6


def test_who_speaks_no_tls_is_not_asked_again(tmp_path: Path) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            while connection.recv(1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with Client(url, "token", state=tmp_path) as client, pytest.raises(InvalidAddress, match="say http://"):
            client.stat("me/a")
        thread.join()


class Impatience(threading.Event):
    """Comes as soon as somebody waits for it, and remembers for how many seconds that would have been."""

    awaited: float | None = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.awaited = timeout
        self.set()
        return super().wait(timeout)


def test_who_waits_can_be_stopped() -> None:
    stop = Impatience()
    with pytest.raises(Stopped):
        Patience(stop).wait(refused("u", 503, {"retry-after": "59"}, b"{}"))
    assert stop.awaited == 59


def test_a_date_to_try_again_at_is_understood() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    assert 80_000 < (refused("u", 503, {"retry-after": later}, b"").retry_after or 0) <= 86_400
    assert refused("u", 503, {"retry-after": "soon"}, b"").retry_after is None


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 4), (403, 4), (404, 3), (413, 7), (422, 5), (500, 6), (503, 6), (507, 7), (400, 1), (409, 1), (429, 6)],
)
def test_each_status_has_an_exit_code(status: int, code: int) -> None:
    assert refused("u", status, {}, b"").exit_code == code


def test_the_tree_in_the_docstring_is_the_one_there_is() -> None:
    names = {cls.__name__ for cls in ClientError.__subclasses__()} | {"ClientError"}
    told = problems.__doc__ or ""
    assert {word for word in names if word in told} == names
