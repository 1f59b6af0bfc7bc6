"""A wire between client and store that counts what passes, and breaks."""

from __future__ import annotations

import time

from django.db.models.functions import Now

from django_blobstore.models import PendingFile, ResumableUpload, UploadPart
from tests.faults.tcp_proxy import TO_CLIENT, TO_SERVER, TcpProxy, Trap
from tests.invariants import assert_swept
from tests.stored import Stored

NEVER = 2**62
# What a few requests and their answers take, without any content.
HEADERS = 20_000
SECONDS = 120


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

    def stall_after_sending(self, length: int) -> Trap:
        """Carry nothing more, either way, on the connection that carries the byte number `length` to the store."""
        return self.proxy.set_trap("stalled", TO_SERVER, length)

    def break_after_receiving(self, length: int) -> Trap:
        """Reset the connection that brings the byte number `length` from the store."""
        return self.proxy.set_trap("reset", TO_CLIENT, length)


def assert_settles(stored: Stored) -> None:
    """Fail unless the store is settled once the server has noticed that nobody is there any more."""
    deadline = time.monotonic() + SECONDS
    while True:
        _end_what_nobody_writes()
        try:
            return assert_swept(stored)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _end_what_nobody_writes() -> None:
    """End uploads, grace periods and the leases of parts, but of no file that arrives: it would leave what it wrote."""
    ResumableUpload.objects.update(expires_at=Now())
    PendingFile.objects.filter(discard=True).update(due_at=Now())
    PendingFile.objects.filter(discard=False, path__in=UploadPart.objects.values("file_id")).update(lease_until=Now())
