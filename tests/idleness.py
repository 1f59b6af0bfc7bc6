"""When a running site has done with all its clients, as the system sees it: no test is to meet what another left."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers import Site

SECONDS = 120
NET = Path("/proc/net")
# Behind which there may be a client that waits, or a request that nobody has taken up yet.
OPEN = {"01", "03", "08"}  # established, about to be, and closed by the client


def wait_until_idle(site: Site) -> None:
    """Return once `site` has hung up on everybody; whoever was connected must be gone.

    A request that its client gave up is worked on until the server notices: what it does then belongs to the test that
    sent it. Where there is no /proc nobody is waited for.
    """
    port = urlsplit(site.url).port or 0
    deadline = time.monotonic() + SECONDS
    while NET.exists() and (open_connections(port) or _has_broken_connections(site)):
        assert time.monotonic() < deadline, f"{site.url} is still at work for clients that are gone."
        time.sleep(0.02)


def open_connections(port: int) -> int:
    """Return how many connections whoever listens on `port` has, or is about to have."""
    columns = (line.split() for line in (NET / "tcp").read_text().splitlines()[1:])
    return sum(local.endswith(f":{port:04X}") and state in OPEN for _, local, _, state, *_ in columns)


def _has_broken_connections(site: Site) -> bool:
    """Whether a process of `site` holds a connection that was reset, which is in no table any more."""
    held = set(_sockets_held(site))
    tables = " ".join((NET / name).read_text() for name in ("tcp", "tcp6", "udp", "udp6", "unix", "netlink"))
    return not held <= set(tables.split())


def _sockets_held(site: Site) -> Iterator[str]:
    """Yield the number of each socket that the processes of `site` have open."""
    # One that is ending has none any more.
    with suppress(OSError):
        parent = site.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        for file in (file for pid in (parent, *children.split()) for file in Path(f"/proc/{pid}/fd").iterdir()):
            with suppress(OSError):
                yield from re.findall(r"socket:\[(\d+)\]", str(file.readlink()))
