"""Clients that take their time with headers, bodies and answers: behind nginx, as documented, they keep nobody."""

from __future__ import annotations

import base64
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

from django_blobstore.models import Bucket, ManagedResource
from tests import servers
from tests.conftest import need
from tests.invariants import assert_settled
from tests.nginx import NGINX, nginx
from tests.outside.programs import run
from tests.rest import api
from tests.stored import Stored
from tests.streams import content_of

DOCUMENTED = (Path(__file__).parents[2] / "docs/serving.md").read_text()
LENGTH = 4 * 1024 * 1024  # more than all buffers on the way have room for
CONNECTIONS = 100
SECONDS = 8
PATIENCE = 5

# slowhttptest knows of no authorization, so it goes in with another header.
ACCEPT = "*/*\r\nAuthorization: Basic " + base64.b64encode(f"root:{api.PASSWORD}".encode()).decode()
SLOW_BODY = ("-B", "-s", 100_000, "-x", 10, "-m", ACCEPT)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("storage_kind", ["files"]),
    pytest.mark.parametrize(
        "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
    ),
]


@pytest.fixture
def front(database: str, stored: Stored, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of root's of the documented nginx before gunicorn."""
    need(NGINX, "nginx")
    need(shutil.which("slowhttptest"), "slowhttptest")
    api.administrator()
    section = DOCUMENTED.partition("## nginx before everything")[2]
    http, locations = re.findall(r"```nginx\n(.*?)```", section, re.DOTALL)[:2]
    with ExitStack() as stack:
        site = stack.enter_context(servers.site(servers.GUNICORN))
        base = stack.enter_context(nginx(tmp_path / "nginx", locations, site=site.url, http=http))
        yield stack.enter_context(httpx.Client(base_url=f"{base}/api/", auth=("root", api.PASSWORD), timeout=PATIENCE))


def test_slow_headers_bodies_and_readers_keep_nobody_else(front: httpx.Client, stored: Stored, tmp_path: Path) -> None:
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
    with ThreadPoolExecutor(len(attacks)) as attackers:
        under_way = [attackers.submit(partial(attack, *how, directory=tmp_path)) for how in attacks.values()]
        answers = []
        while not all(attack.done() for attack in under_way):
            answers.append(front.get("buckets/").status_code)
            time.sleep(0.1)
        said = [attack.result() for attack in under_way]
    assert all("Hit test time limit" in end for end in said), said
    assert set(answers) == {200}
    assert not ManagedResource.objects.filter(path="slow").exists()
    assert front.delete(f"{objects}big").status_code == 204
    assert_settled(stored)


def attack(*how: object, directory: Path) -> str:
    common = ("-c", CONNECTIONS, "-r", CONNECTIONS, "-i", 1, "-l", SECONDS, "-p", PATIENCE)
    return run("slowhttptest", *common, *how, directory=directory)
