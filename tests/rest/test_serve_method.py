"""Bytes that somebody else sends: nginx, S3 itself, or whoever heeds X-Sendfile; and when nobody else may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from django_blobstore.models import Bucket, Resource
from django_blobstore.upkeep import scrub
from tests.apache import HAS_XSENDFILE, apache
from tests.conftest import need
from tests.nginx import NGINX, TO_SITE, nginx
from tests.rest import api
from tests.servers import GUNICORN, Site, deployment, kept, site
from tests.stored import ALIAS, Stored, StoredInFiles, in_s3, used_by_all

DOCUMENTED = (Path(__file__).parents[2] / "docs/serving.md").read_text()
CONTENT = b"0123456789" * 100_000
METHODS = ["redirect", "x-accel", "x-sendfile"]

# What is asked here is who sends, and not of which database.
pytestmark = pytest.mark.parametrize(
    "database", [pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))], indirect=True
)


@pytest.fixture(scope="session")
def kept_s3(s3_url: str) -> Iterator[Stored]:
    with in_s3(s3_url) as stored:
        yield stored


@pytest.fixture
def stored(
    make_stored: Callable[[str], Stored], storage_kind: str, request: pytest.FixtureRequest, settings: Settings
) -> Iterator[Stored]:
    """A storage that a site shares, or, where there is no site, one of its own."""
    has_site = storage_kind in ("files", "s3")
    chosen = request.getfixturevalue(f"kept_{storage_kind}") if has_site else make_stored(storage_kind)
    with used_by_all(chosen, settings) as stored:
        yield stored


@contextmanager
def behind_nginx(locations: str) -> Iterator[Site]:
    """Serve `locations`, and what else there is from a site of ours."""
    with (
        TemporaryDirectory() as directory,
        site(GUNICORN) as served,
        nginx(Path(directory, "nginx"), locations + TO_SITE, site=served.url) as base,
    ):
        yield replace(served, url=base)


@pytest.fixture(scope="session")
def kept_front() -> Iterator[Callable[[str, str], Site]]:
    """Return the one nginx of a deployment and its locations, which stays."""
    with kept(behind_nginx) as start:
        yield start


@pytest.fixture
def url(database: str, bucket: Bucket, stored: Stored) -> str:
    """The path of an object that is stored."""
    url = f"/api/buckets/{bucket.pk}/objects/folder/na%20me.png"
    administrator = api.administrator()
    assert api.put(api.client(administrator), url, CONTENT, content_type="image/png").status_code == 201
    return url


@pytest.fixture
def front(
    stored: Stored, url: str, settings: Settings, kept_front: Callable[[str, str], Site]
) -> Iterator[httpx.Client]:
    """A client of root's of an nginx, set up as documented, before a site that hands over to it."""
    need(NGINX, "nginx")
    kind = "files" if isinstance(stored, StoredInFiles) else "S3"
    location = {"files": "/kept/", "S3": "/s3/"}[kind]
    settings.BLOBSTORE = {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {ALIAS: location}}
    locations = documented("nginx", f"## nginx, {kind}")
    if isinstance(stored, StoredInFiles):
        assert locations.count("/srv/blobs/") == 1
        locations = locations.replace("/srv/blobs/", f"{stored.directory}/")
    base = kept_front(deployment(), locations).url
    with httpx.Client(base_url=base, auth=("root", api.PASSWORD), timeout=120, limits=api.ONE_BY_ONE) as client:
        yield client


def documented(language: str, heading: str) -> str:
    """Return the first example in `language` under `heading`."""
    example = re.search(rf"{heading}\n.*?```{language}\n(.*?)```", DOCUMENTED, re.DOTALL)
    assert example
    return example[1]


def get(url: str, **headers: str) -> Any:
    """Return the answer to a GET by root, in this process."""
    return api.client(api.User.objects.get(username="root")).get(url, headers=headers)


def content_of(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


@pytest.mark.parametrize("storage_kind", ["files", "s3"])
def test_nginx_sends_what_we_allow_with_every_header_that_we_would_send(front: httpx.Client, url: str) -> None:
    head, got = front.head(url), front.get(url)
    assert got.content == CONTENT
    passed_on = {"content-type", "content-disposition", "content-length", "etag", "last-modified", "cache-control"}
    passed_on |= {
        "x-content-type-options",
        "content-security-policy",
        "x-content-sha384",
        "accept-ranges",
        "repr-digest",
    }
    assert {name: got.headers.get_list(name) for name in passed_on} == {
        name: [head.headers[name]] for name in passed_on
    }
    assert not {"x-accel-redirect", "x-amz-request-id"} & set(got.headers)


@pytest.mark.parametrize("storage_kind", ["files", "s3"])
def test_nginx_sends_ranges(front: httpx.Client, url: str) -> None:
    got = front.get(url, headers={"Range": "bytes=13-999"})
    assert (got.status_code, got.content) == (206, CONTENT[13:1000])
    assert got.headers["content-range"] == f"bytes 13-999/{len(CONTENT)}"
    assert got.headers["content-security-policy"] == "sandbox; default-src 'none'"
    for unless, status in [('"other"', 200), ("Thu, 01 Jan 2026 00:00:00 GMT", 200)]:
        got = front.get(url, headers={"Range": "bytes=13-999", "If-Range": unless})
        assert (got.status_code, got.content) == (status, CONTENT)
    refused = front.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (refused.status_code, refused.json()["code"]) == (416, "range-not-satisfiable")


@pytest.mark.parametrize("storage_kind", ["files"])
def test_nginx_heeds_a_range_on_condition_that_nothing_changed(front: httpx.Client, url: str) -> None:
    for validator in ("etag", "last-modified"):
        unless = front.head(url).headers[validator]
        got = front.get(url, headers={"Range": "bytes=13-999", "If-Range": unless})
        assert (got.status_code, got.content) == (206, CONTENT[13:1000])


@pytest.mark.parametrize("storage_kind", ["files", "s3"])
def test_conditions_are_answered_by_us_before_nginx_hears_of_them(front: httpx.Client, url: str) -> None:
    known = front.head(url).headers
    tag, date = known["etag"], known["last-modified"]
    for condition, status in [
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": '"other"', "If-Modified-Since": date}, 200),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": date}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 412),
    ]:
        got = front.get(url, headers=condition)
        assert (condition, got.status_code) == (condition, status)
        assert status != 200 or got.content == CONTENT


@pytest.mark.parametrize("storage_kind", ["files"])
def test_nginx_sends_nothing_that_we_did_not_allow(front: httpx.Client, url: str, stored: Stored) -> None:
    api.person("stranger")
    assert front.get(url, auth=("stranger", api.PASSWORD)).status_code == 404
    assert front.get(url, auth=("root", "wrong")).status_code == 401
    [name] = stored.names()
    assert front.get(f"/kept/{name}").status_code == 404


@pytest.mark.parametrize("storage_kind", ["files"])
def test_what_scrub_found_damaged_is_not_handed_over(front: httpx.Client, url: str, stored: StoredInFiles) -> None:
    [name] = stored.names()
    wrong = b"X" + CONTENT[1:]
    (stored.directory / name).write_bytes(wrong)
    assert front.get(url).content == wrong, "Nobody verifies what nginx sends."
    scrub()
    assert Resource.objects.get().damaged_at
    refused = front.get(url)
    assert (refused.status_code, refused.json()["code"]) == (500, "content-damaged")


@pytest.mark.parametrize("storage_kind", ["files"])
@pytest.mark.parametrize("wrong", [None, CONTENT[:-1]], ids=["missing", "cut"])
def test_a_file_that_is_missing_or_cut_is_an_error_of_ours(
    front: httpx.Client, url: str, stored: StoredInFiles, wrong: bytes | None
) -> None:
    [name] = stored.names()
    (stored.directory / name).unlink()
    if wrong is not None:
        (stored.directory / name).write_bytes(wrong)
    refused = front.get(url)
    assert (refused.status_code, refused.json()["code"]) == (500, "content-damaged")
    assert Resource.objects.get().damaged_at


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_file_of_any_name_is_found_by_nginx(front: httpx.Client, url: str, stored: StoredInFiles) -> None:
    [name] = stored.names()
    strange = "a b%41+#?é.bin"
    (stored.directory / name).rename(stored.directory / strange)
    Resource.objects.update(path=strange)
    assert front.get(url).content == CONTENT


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_s3_itself_sends_what_we_redirect_to_under_our_headers(url: str, stored: Stored, settings: Settings) -> None:
    signing = stored.options["OPTIONS"] | {"signature_version": "s3v4"}
    settings.STORAGES = {**settings.STORAGES, ALIAS: {**stored.options, "OPTIONS": signing}}
    settings.BLOBSTORE = {"SERVE_METHOD": "redirect"}
    answer = get(url)
    assert (answer.status_code, answer["Cache-Control"]) == (302, "no-store")
    assert "X-Amz-Expires=60" in answer["Location"]
    got = httpx.get(answer["Location"], timeout=120)
    assert got.content == CONTENT
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-disposition"] == 'inline; filename="na me.png"'
    assert got.headers["cache-control"] == "private, no-cache, no-transform"
    part = httpx.get(answer["Location"], headers={"Range": "bytes=13-999"}, timeout=120)
    assert (part.status_code, part.content) == (206, CONTENT[13:1000])


@pytest.mark.parametrize("storage_kind", ["s3"])
def test_a_redirect_comes_after_everything_that_we_decide(url: str, settings: Settings) -> None:
    settings.BLOBSTORE = {"SERVE_METHOD": "redirect"}
    tag = get(url)["X-Content-SHA384"]
    root = api.client(api.User.objects.get(username="root"))
    assert root.head(url).status_code == 200
    assert get(url, if_none_match=f'"{tag}"').status_code == 304
    assert get(url, if_match='"other"').status_code == 412
    assert get(url, range=f"bytes={len(CONTENT)}-").status_code == 416
    assert api.client(api.person("stranger")).get(url).status_code == 404
    Resource.objects.update(damaged_at="2026-01-01T00:00:00Z")
    assert content_of(get(url)) == CONTENT, "It is whole, so the mark is wrong; but only who reads it can tell."


@pytest.mark.parametrize("storage_kind", ["s3"])
@pytest.mark.parametrize(
    "option",
    [
        {"querystring_auth": False},
        {"custom_domain": "cdn.example"},
        {"object_parameters": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0" * 32}},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["redirect", "x-accel"])
def test_s3_that_signs_no_url_which_says_everything_is_streamed(
    url: str, stored: Stored, settings: Settings, option: dict[str, Any], method: str
) -> None:
    changed = {**stored.options, "OPTIONS": stored.options["OPTIONS"] | option}
    settings.STORAGES = {**settings.STORAGES, ALIAS: changed}
    settings.BLOBSTORE = {"SERVE_METHOD": method, "SERVE_LOCATION": {ALIAS: "/s3/"}}
    assert content_of(get(url)) == CONTENT


@pytest.mark.parametrize("storage_kind", ["files"])
def test_x_sendfile_names_the_file_and_keeps_every_header(url: str, stored: StoredInFiles, settings: Settings) -> None:
    streamed = get(url)
    assert content_of(streamed) == CONTENT
    settings.BLOBSTORE = {"SERVE_METHOD": "x-sendfile"}
    answer = get(url)
    [name] = stored.names()
    assert (answer.status_code, answer.content, answer["X-Sendfile"]) == (200, b"", str(stored.directory / name))
    kept = dict(streamed.items()) | {"Content-Length": "0", "X-Sendfile": answer["X-Sendfile"]}
    del kept["Accept-Ranges"], kept["Content-Digest"]  # the server says what it cuts
    assert dict(answer.items()) == kept


@pytest.fixture
def apache_front(database: str, bucket: Bucket, settings: Settings) -> Iterator[httpx.Client]:
    """A client of root's of an Apache, set up as documented, before a site that has it send files."""
    need(HAS_XSENDFILE, "Apache with mod_xsendfile")
    directives = documented("apache", "## Apache and lighttpd, files")
    # Not in tmp_path: no other user can read that, and root is none that Apache runs as.
    with TemporaryDirectory() as directory, ExitStack() as stack:
        Path(directory).chmod(0o755)
        stored = StoredInFiles(Path(directory, "blobs"))
        settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
        settings.BLOBSTORE = {"SERVE_METHOD": "x-sendfile"}
        administrator = api.administrator()
        api.put(api.client(administrator), "/api/me/objects/a%20%25b.png", CONTENT, content_type="image/png")
        served = stack.enter_context(site(GUNICORN))
        directives = directives.replace("http://127.0.0.1:8000", served.url)
        assert directives.count("/srv/blobs") == 1
        directives = directives.replace("/srv/blobs", str(stored.directory))
        base = stack.enter_context(apache(Path(directory, "apache"), directives))
        yield stack.enter_context(
            httpx.Client(base_url=f"{base}/api/", auth=("root", api.PASSWORD), timeout=120, limits=api.ONE_BY_ONE)
        )


def test_apache_sends_files_and_ranges_under_our_headers(apache_front: httpx.Client) -> None:
    url = "me/objects/a%20%25b.png"
    ours = get(f"/api/{url}")
    whole = apache_front.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert "x-sendfile" not in whole.headers
    for name in ("ETag", "Last-Modified", "X-Content-SHA384", "Repr-Digest", "Content-Type", "Content-Disposition"):
        assert whole.headers[name] == ours[name]
    for name in ("X-Content-Type-Options", "Content-Security-Policy", "Cache-Control"):
        assert whole.headers[name] == ours[name]
    part = apache_front.get(url, headers={"Range": "bytes=13-999"})
    assert (part.status_code, part.content) == (206, CONTENT[13:1000])
    assert apache_front.get(url, headers={"If-None-Match": ours["ETag"]}).status_code == 304
    assert apache_front.head(url).headers["Content-Length"] == str(len(CONTENT))
    assert apache_front.get(url, auth=("root", "wrong")).status_code == 401


@pytest.mark.parametrize(
    ("storage_kind", "methods"),
    [("gridfs", METHODS), ("memory", METHODS), ("files", ["redirect"]), ("s3", ["x-sendfile"])],
)
def test_a_storage_that_cannot_be_handed_over_is_streamed(
    url: str, stored: Stored, settings: Settings, methods: list[str]
) -> None:
    for method in methods:
        settings.BLOBSTORE = {"SERVE_METHOD": method, "SERVE_LOCATION": {ALIAS: "/kept/"}}
        assert content_of(get(url)) == CONTENT
        assert content_of(get(url, range="bytes=5-9")) == CONTENT[5:10]


@pytest.mark.parametrize("storage_kind", ["files"])
def test_a_storage_without_a_location_is_streamed(url: str, settings: Settings) -> None:
    settings.BLOBSTORE = {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {"default": "/kept/"}}
    assert content_of(get(url)) == CONTENT


def test_files_in_a_storage_that_is_no_longer_the_first_are_still_handed_over_by_their_alias(
    database: str, bucket: Bucket, make_stored: Callable[[str], Stored], settings: Settings
) -> None:
    old, new = make_stored("files"), make_stored("gridfs")
    settings.STORAGES = {**settings.STORAGES, "old": old.options, "new": new.options}
    root = api.client(api.administrator())
    for alias in ("old", "new"):
        settings.BLOBSTORE = {"STORAGE": alias}
        api.put(root, f"/api/buckets/{bucket.pk}/objects/{alias}", alias.encode())
    settings.BLOBSTORE |= {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {"old": "/old/", "new": "/new/"}}
    [name] = old.names()
    assert get(f"/api/buckets/{bucket.pk}/objects/old")["X-Accel-Redirect"] == f"/old/{name}"
    assert content_of(get(f"/api/buckets/{bucket.pk}/objects/new")) == b"new"
