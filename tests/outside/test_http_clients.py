"""curl, wget, wget2, aria2 and Node's fetch against a site: downloads in parts and verified, and uploads."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import json
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource
from tests import servers
from tests.idleness import wait_until_idle
from tests.invariants import assert_settled, assert_sound
from tests.outside.programs import USER, curl, run
from tests.rest import api
from tests.stored import Stored
from tests.streams import MIB, content_of, sha384

CONTENT = content_of(6 * MIB + 345)

FETCH = """
const [url, user, integrity] = process.argv.slice(1);
const headers = {Authorization: "Basic " + Buffer.from(user).toString("base64")};
const bytes = Buffer.from(await (await fetch(url, {headers, integrity})).arrayBuffer());
const hash = await crypto.subtle.digest("SHA-384", bytes);
console.log(JSON.stringify({length: bytes.length, sha384: Buffer.from(hash).toString("hex")}));
"""


@pytest.fixture
def site(stored: Stored, database: str, kept_site: Callable[..., servers.Site]) -> Iterator[servers.Site]:
    """uvicorn before SQLite and files, gunicorn before PostgreSQL and GridFS."""
    api.administrator()
    site = kept_site(servers.deployment(), *(servers.UVICORN if database == "default" else servers.GUNICORN))
    yield site
    wait_until_idle(site)
    assert_sound(stored)
    assert_settled(stored)


@pytest.fixture
def bucket(database: str) -> Bucket:
    return Bucket.objects.create()


@pytest.fixture
def folder(site: servers.Site, bucket: Bucket) -> str:
    """The URL under which the objects of the bucket are."""
    return f"{site.url}/api/buckets/{bucket.pk}/objects/"


@pytest.fixture
def url(folder: str, bucket: Bucket) -> str:
    """The URL of an object with `CONTENT`."""
    ManagedStorage().put(Namespace(bucket=bucket.pk), "big.bin", CONTENT)
    return f"{folder}big.bin"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A file with what came of `CONTENT` before a download broke off."""
    path = tmp_path / "big.bin"
    path.write_bytes(CONTENT[: 2 * MIB + 7])
    return path


def test_curl_goes_on_with_a_download(url: str, begun: Path, tmp_path: Path) -> None:
    told = curl("--continue-at", "-", "--remote-name", "--dump-header", "-", url, directory=tmp_path)
    assert f"content-range: bytes {2 * MIB + 7}-{len(CONTENT) - 1}/{len(CONTENT)}" in told.lower()
    assert begun.read_bytes() == CONTENT


def test_curl_fetches_one_range_and_several(url: str, tmp_path: Path) -> None:
    curl("--range", "-1000", "--output", "end", url, directory=tmp_path)
    assert (tmp_path / "end").read_bytes() == CONTENT[-1000:]
    several = f"0-99,{3 * MIB}-{5 * MIB},-10"
    curl("--range", several, "--dump-header", "head", "--output", "parts", url, directory=tmp_path)
    assert parts_of((tmp_path / "head").read_bytes(), (tmp_path / "parts").read_bytes()) == [
        CONTENT[:100],
        CONTENT[3 * MIB : 5 * MIB + 1],
        CONTENT[-10:],
    ]


def parts_of(head: bytes, body: bytes) -> list[bytes]:
    _, _, headers = head.partition(b"\r\n")
    message = email.message_from_bytes(headers + body, policy=email.policy.HTTP)
    return [part.get_payload(decode=True) for part in message.iter_parts() if isinstance(part, EmailMessage)]


def test_curl_fetches_only_what_it_has_not(url: str, bucket: Bucket, tmp_path: Path) -> None:
    def fetch(name: str) -> str:
        tags = ("--etag-save", "tag", "--etag-compare", "tag", "--write-out", "%{http_code}")
        return curl(*tags, "--output", name, url, directory=tmp_path)[-3:]

    assert (fetch("first"), fetch("second")) == ("200", "304")
    assert (tmp_path / "first").read_bytes() == CONTENT
    ManagedStorage().put(Namespace(bucket=bucket.pk), "big.bin", b"other")
    assert fetch("third") == "200"
    assert (tmp_path / "third").read_bytes() == b"other"


@pytest.mark.parametrize("header", ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"])
def test_curl_uploads_a_file(folder: str, begun: Path, tmp_path: Path, header: str) -> None:
    told = json.loads(curl("--header", header, "--upload-file", begun, f"{folder}up", directory=tmp_path))
    assert told["sha384"] == sha384(begun.read_bytes()) == ManagedResource.objects.get().resource.sha384


def test_curl_is_told_that_a_path_is_taken_before_it_sends_everything(url: str, begun: Path, tmp_path: Path) -> None:
    once = ("--header", "If-None-Match: *", "--upload-file", begun, "--write-out", "%{http_code}")
    # By default it waits for a second only, and then sends what nobody reads.
    patient = ("--header", "Expect: 100-continue", "--expect100-timeout", 240)
    assert curl(*once, *patient, url, directory=tmp_path).endswith("412")
    assert ManagedResource.objects.get().resource.sha384 == sha384(CONTENT)


def test_wget_goes_on_with_a_download(url: str, begun: Path, tmp_path: Path) -> None:
    user, _, password = USER.partition(":")
    credentials = (f"--user={user}", f"--password={password}", "--auth-no-challenge")
    assert "206 Partial Content" in run(
        "wget", "--continue", "--server-response", *credentials, url, directory=tmp_path
    )
    assert begun.read_bytes() == CONTENT
    again = run("wget", "--continue", "--server-response", *credentials, url, directory=tmp_path)
    assert "416" in again
    assert begun.read_bytes() == CONTENT


def test_wget2_fetches_chunks_at_the_same_time(url: str, tmp_path: Path) -> None:
    user, _, password = USER.partition(":")
    credentials = (f"--http-user={user}", f"--http-password={password}", "--auth-no-challenge")
    run("wget2", "--chunk-size=1M", "--max-threads=4", *credentials, url, directory=tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


def test_aria2_fetches_ranges_at_the_same_time_and_verifies_the_whole(url: str, tmp_path: Path) -> None:
    user, _, password = USER.partition(":")
    options = (f"--http-user={user}", f"--http-passwd={password}", "--http-auth-challenge=false")
    options += ("--max-connection-per-server=8", "--split=8", "--min-split-size=1M")
    run("aria2c", *options, f"--checksum=sha-384={sha384(CONTENT)}", url, directory=tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == CONTENT
    wrong = (f"--checksum=sha-384={'0' * 96}", "--out=wrong")
    assert "hecksum" in run("aria2c", *options, *wrong, url, directory=tmp_path, fails=True)


def test_node_fetches_what_the_integrity_says_and_nothing_else(url: str, tmp_path: Path) -> None:
    fetch = ("--input-type=module", "--eval", FETCH, url, USER)
    integrity = "sha384-" + base64.b64encode(hashlib.sha384(CONTENT).digest()).decode()
    told = json.loads(run("node", *fetch, integrity, directory=tmp_path))
    assert told == {"length": len(CONTENT), "sha384": sha384(CONTENT)}
    run("node", *fetch, "sha384-" + base64.b64encode(bytes(48)).decode(), directory=tmp_path, fails=True)
