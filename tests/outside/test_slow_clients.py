"""Clients that take their time with headers, bodies and answers: behind nginx, as documented, they keep nobody."""

from __future__ import annotations

import base64
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from django_blobstore.models import Bucket, ManagedResource
from tests import servers
from tests.client.wires import assert_settles
from tests.conftest import need
from tests.idleness import open_connections
from tests.nginx import NGINX, nginx
from tests.outside.programs import run
from tests.rest import api
from tests.stored import Stored
from tests.streams import content_of

DOCUMENTED = (Path(__file__).parents[2] / "docs/serving.md").read_text()
LENGTH = 4 * 1024 * 1024  # more than all buffers on the way have room for
CONNECTIONS = 100
# So long they try at a time.
SECONDS = 8
PATIENCE = 240
ANSWERS = 5
# Those of three attacks, and of the fourth as many as may be passed on at a time.
CONNECTED_TO_NGINX, CONNECTED_TO_THE_SITE = 3 * CONNECTIONS, 6

# slowhttptest knows of no authorization, so it goes in with another header.
ACCEPT = "*/*\r\nAuthorization: Basic " + base64.b64encode(f"root:{api.PASSWORD}".encode()).decode()
SLOW_BODY = ("-B", "-s", 100_000, "-x", 10, "-m", ACCEPT)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("storage_kind", ["files"]),
    pytest.mark.parametrize(
        "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
    ),
]


@pytest.fixture
def site(database: str, stored: Stored) -> Iterator[servers.Site]:
    with servers.site(servers.GUNICORN) as site:
        yield site


@pytest.fixture
def front(site: servers.Site, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of root's of the documented nginx before gunicorn."""
    need(NGINX, "nginx")
    need(shutil.which("slowhttptest"), "slowhttptest")
    api.administrator()
    section = DOCUMENTED.partition("## nginx before everything")[2]
    http, locations = re.findall(r"```nginx\n(.*?)```", section, re.DOTALL)[:2]
    with ExitStack() as stack:
        base = stack.enter_context(nginx(tmp_path / "nginx", locations, site=site.url, http=http))
        yield stack.enter_context(httpx.Client(base_url=f"{base}/api/", auth=("root", api.PASSWORD), timeout=PATIENCE))


def test_slow_headers_bodies_and_readers_keep_nobody_else(
    site: servers.Site, front: httpx.Client, stored: Stored, tmp_path: Path
) -> None:
    bucket = Bucket.objects.create()
    objects = f"buckets/{bucket.pk}/objects/"
    front.put(f"{objects}big", content=content_of(LENGTH)).raise_for_status()
    signed = front.post(f"buckets/{bucket.pk}/sign", json={"path": "big"}).json()["url"]
    attacks = {
        "headers": ("-H", "-u", f"{front.base_url}buckets/"),
        "a small body": (*SLOW_BODY, "-t", "POST", "-f", "application/json", "-u", f"{front.base_url}buckets/"),
        "an upload": (*SLOW_BODY, "-t", "PUT", "-u", f"{front.base_url}{objects}slow"),
        "an answer": ("-X", "-w", 8, "-y", 16, "-n", 2, "-z", 4, "-u", signed),
    }
    over = threading.Event()
    with ThreadPoolExecutor(len(attacks)) as attackers:
        under_way = [attackers.submit(partial(attack, over, *how, directory=tmp_path)) for how in attacks.values()]
        try:
            answers = list(islice(answers_under_attack(site, front), ANSWERS))
        finally:
            over.set()
        for attacker in under_way:
            attacker.result()
    assert answers == [200] * ANSWERS
    assert not ManagedResource.objects.filter(path="slow").exists()
    assert front.delete(f"{objects}big").status_code == 204
    assert_settles(stored)


def answers_under_attack(site: servers.Site, front: httpx.Client) -> Iterator[int]:
    """Yield the status of each answer that comes while all the attackers are connected, before and after it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        before = is_under_attack(site, front)
        status = front.get("buckets/").status_code
        if before and is_under_attack(site, front):
            yield status
        else:
            time.sleep(0.1)


def is_under_attack(site: servers.Site, front: httpx.Client) -> bool:
    to_nginx, to_the_site = open_connections(front.base_url.port or 0), open_connections(urlsplit(site.url).port or 0)
    return to_nginx >= CONNECTED_TO_NGINX and to_the_site >= CONNECTED_TO_THE_SITE


def attack(over: threading.Event, *how: object, directory: Path) -> None:
    """Do it again and again until it is `over`: nginx hangs up on whom the system itself keeps for ten seconds."""
    common = ("-c", CONNECTIONS, "-r", CONNECTIONS, "-i", 1, "-l", SECONDS, "-p", SECONDS)
    while not over.is_set():
        run("slowhttptest", *common, *how, directory=directory)
