"""A wire between client and store that counts what passes, and breaks."""

from __future__ import annotations

import time

from django_blobstore.models import PendingFile, UploadPart
from tests.faults.tcp_proxy import TO_CLIENT, TO_SERVER, TcpProxy, Trap
from tests.invariants import assert_settled
from tests.stored import Stored

NEVER = 2**62
# What a few requests and their answers take, without any content.
HEADERS = 20_000
SECONDS = 20


class Wire:
    """The way to a site through a proxy."""

    def __init__(self, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.url = f"http://127.0.0.1:{proxy.port}/api/"

    def count_sent(self) -> Trap:
        """Return what counts, in `carried`, the bytes that go to the store from now on."""
        return self.proxy.set_trap("cut", TO_SERVER, NEVER)

    def count_received(self) -> Trap:
        """Return what counts the bytes that come from the store from now on."""
        return self.proxy.set_trap("cut", TO_CLIENT, NEVER)

    def break_after_sending(self, length: int) -> Trap:
        """Reset the connection that carries the byte number `length` to the store."""
        return self.proxy.set_trap("reset", TO_SERVER, length)

    def break_after_receiving(self, length: int) -> Trap:
        """Reset the connection that brings the byte number `length` from the store."""
        return self.proxy.set_trap("reset", TO_CLIENT, length)


def assert_settles(stored: Stored) -> None:
    """Fail unless the store is settled once the server has noticed that nobody is there any more."""
    deadline = time.monotonic() + SECONDS
    # Whose lease is ended while it writes leaves what it wrote, so that is waited for.
    while _is_at_work() and time.monotonic() < deadline:
        time.sleep(0.05)
    while True:
        try:
            return assert_settled(stored)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_at_work() -> bool:
    """Whether a file is being written: one that is no part of an upload yet, nor to be deleted."""
    parts = UploadPart.objects.values("file_id")
    return PendingFile.objects.filter(discard=False).exclude(path__in=parts).exists()
