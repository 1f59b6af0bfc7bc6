"""REDbot, which asks a URL in many ways and notes what is against HTTP, on the URLs of objects."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket
from tests import servers
from tests.conftest import EVERY_PAIR, need
from tests.nginx import NGINX, TO_SITE, nginx
from tests.outside.programs import USER, run
from tests.rest import api
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

# Of fewer than 100 bytes, the part that REDbot asks for would be the whole, of which it warns.
CONTENTS = {"text.txt": b"text\n" * 100, "big.bin": content_of(2 * MIB), "empty": b"", "page.html": b"<p>" * 100}
# Of an answer that took five seconds to come it says that the clock is wrong, which is the same for both here.
LATE = "DATE_INCORRECT"


@pytest.fixture
def storage_kind() -> str:
    return "files"


@pytest.fixture
def addresses(database: str) -> list[str]:
    """What is asked: by path before uvicorn, by hash before gunicorn. Both come to the same view."""
    ways = ["objects/{path}", "by-sha384/{sha384}"]
    return ways if EVERY_PAIR else ways[:1] if database == "default" else ways[1:]


@pytest.fixture
def base(database: str, stored: Stored, tmp_path: Path) -> Iterator[str]:
    """The URL of a site where everybody is root: REDbot cannot tell who it is, so nginx does."""
    need(NGINX, "nginx")
    api.administrator()
    credentials = b64encode(USER.encode()).decode()
    locations = TO_SITE.replace("location / {", f'location / {{ proxy_set_header Authorization "Basic {credentials}";')
    with (
        servers.site(servers.UVICORN if database == "default" else servers.GUNICORN) as site,
        nginx(tmp_path / "nginx", locations, site=site.url) as url,
    ):
        yield url


def test_redbot_finds_nothing_bad_and_nothing_to_warn_of(base: str, addresses: list[str], tmp_path: Path) -> None:
    bucket = Bucket.objects.create()
    found = {}
    for path, content in CONTENTS.items():
        ManagedStorage().put(Namespace(bucket=bucket.pk), path, content)
        for url in (address.format(path=path, sha384=sha384(content)) for address in addresses):
            notes = noted(run("redbot", "-o", "har", f"{base}/api/buckets/{bucket.pk}/{url}", directory=tmp_path))
            assert {"GOOD", "INFO"} & {note["level"] for note in notes}
            found[url] = [note for note in notes if note["level"] in ("BAD", "WARN") and note["note_id"] != LATE]
    assert {url: notes for url, notes in found.items() if notes} == {}


def noted(har: str) -> list[dict[str, Any]]:
    """Return all notes of REDbot, on the answer and on those to further requests."""
    entries = json.loads(har)["log"]["entries"]
    assert {entry["response"]["status"] for entry in entries} <= {200, 206, 304}
    notes = [note for entry in entries for note in entry["_red_messages"]]
    return notes + [further for note in notes for further in note.get("subnotes", [])]
