"""How requests reach the store: who asks, how long to wait for an answer, and when to ask again."""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.request import getproxies

import httpx2

from django_blobstore.client.problems import (
    ClientError,
    InvalidAddress,
    NotLoggedIn,
    Refused,
    Stopped,
    Unreachable,
    refused,
)

BLOCK_SIZE = 1024 * 1024

# A last part is answered once the store has put all parts together: a second for some 100 MiB.
_TIMEOUT = httpx2.Timeout(connect=10, read=300, write=60, pool=None)
_ATTEMPTS = 7
_LONGEST_WAIT = 60.0

Body = Callable[[], Iterable[bytes]]

# Told of an error after which something is tried again, and in how many seconds.
OnWait = Callable[[ClientError, float], object]


def wait_silently(error: ClientError, seconds: float) -> None:
    """Tell nobody."""


def _trusted(url: str) -> ssl.SSLContext | bool:
    """Return which certificates to trust: none where none are used, since to load them takes longer than a request."""
    is_plain = url.startswith("http://") and not getproxies()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True


def _will_not_pass(reason: str) -> bool:
    """Whether two ends that cannot agree on TLS told so; one that hangs up may only be about to start."""
    return reason.startswith("[SSL: ") and "UNEXPECTED_EOF" not in reason


class Patience:
    """Waits after each failure for as long as the store asks, or ever longer, and gives up after several in a row."""

    def __init__(self, stop: threading.Event, on_wait: OnWait = wait_silently) -> None:
        self._stop = stop
        self._on_wait = on_wait
        self._failures = 0

    def renew(self) -> None:
        """Begin to count anew: something went well."""
        self._failures = 0

    def wait(self, error: ClientError) -> None:
        """Return when it is time to try again after `error`, or raise it if there is no sense in that."""
        self._failures += 1
        seconds = error.retry_after
        if not error.may_pass or self._failures >= _ATTEMPTS or (seconds or 0) > _LONGEST_WAIT:
            raise error
        if seconds is None:
            seconds = min(0.25 * 2**self._failures, 15) * random.uniform(0.7, 1.3)  # not a secret
        self._on_wait(error, seconds)
        if self._stop.wait(seconds):
            raise Stopped from error


class Transport:
    """Asks the store at `url`, as whoever `token` belongs to; may be used by many threads.

    A `token` with a space in it is the whole value of Authorization, as in ``Bearer abc``; else it is one of Django
    REST framework's. `stop` ends whatever waits.
    """

    def __init__(self, url: str, token: str, *, connections: int, on_wait: OnWait = wait_silently) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidAddress(url, "the URL of a store begins with http:// or https://")
        if not (token.isascii() and (token or "-").isprintable()):
            raise NotLoggedIn("The token has characters that no token has.")
        self.url = url.rstrip("/") + "/"
        self._on_wait = on_wait
        self.token = token
        self.stop = threading.Event()
        # Bytes are counted and hashed as they come, so nobody may compress them on the way.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "django-blobstore"}
        if token:
            headers["Authorization"] = token if " " in token else f"Token {token}"
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._make = partial(httpx2.Client, headers=headers, timeout=_TIMEOUT, limits=limits)
        self._http = self._make(verify=_trusted(url))
        self._redirected: httpx2.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        self._http.close()
        if self._redirected:
            self._redirected.close()

    def patience(self) -> Patience:
        return Patience(self.stop, self._on_wait)

    def check(self) -> None:
        """Raise `Stopped` if everything is to end."""
        if self.stop.is_set():
            raise Stopped

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        repeatable: bool = True,
        final: Collection[str] = (),
        **options: Any,
    ) -> httpx2.Response:
        """Return a good answer to a request for `path`, below the store's URL.

        `body` makes the content anew for each attempt. After a lost answer a request is sent again only if it is
        `repeatable`; codes in `final` are raised at once. Raises `Refused` and `Unreachable`.
        """
        patience = self.patience()
        while True:
            self.check()
            try:
                return self._request_once(method, path, body, options)
            except Refused as error:
                if error.code in final:
                    raise
                patience.wait(error)
            except Unreachable as error:
                if not repeatable and not isinstance(error.__cause__, httpx2.ConnectError):
                    raise
                patience.wait(error)

    def request_once(self, method: str, path: str, *, body: Body | None = None, **options: Any) -> httpx2.Response:
        """Do the same without trying again: the caller knows where to go on."""
        self.check()
        return self._request_once(method, path, body, options)

    def post(self, path: str, document: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Return the JSON that is answered to `document`."""
        answer: dict[str, Any] = self.request("POST", path, json=document, **options).json()
        return answer

    @contextmanager
    def download(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """Yield the answer to a GET whose body is still to come; it is asked for once."""
        # A store may send bytes from another host; credentials do not go there.
        with (
            self._translated(path),
            self._followed.stream("GET", self.url + path, headers=headers, follow_redirects=True) as response,
        ):
            if not response.is_success:
                raise refused(self.url + path, response.status_code, response.headers, response.read())
            yield response

    @property
    def _followed(self) -> httpx2.Client:
        """A client for what may be redirected to another host."""
        with self._lock:
            self._redirected = self._redirected or self._make()
            return self._redirected

    def _request_once(self, method: str, path: str, body: Body | None, options: dict[str, Any]) -> httpx2.Response:
        with self._translated(path):
            content = body() if body else None
            response = self._http.request(method, self.url + path, content=content, **options)
        if not response.is_success:
            raise refused(self.url + path, response.status_code, response.headers, response.content)
        return response

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise InvalidAddress(self.url, str(error).rstrip(".")) from error
        except httpx2.RequestError as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, httpx2.ConnectError) and _will_not_pass(reason):
                way_out = "say http:// if it has no certificate, or name its authority in SSL_CERT_FILE"
                raise InvalidAddress(self.url, f"{reason}; {way_out}") from error
            raise Unreachable(self.url + path, reason) from error
