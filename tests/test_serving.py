"""The headers under which bytes leave: what is shown, what is saved, and what a browser is never told."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from django.http import HttpRequest, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.errors import ContentDamaged
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.serving import body, headers
from tests.stored import Stored
from tests.streams import MIB, content_of

HERE = Namespace(bucket="photos")
CONTENT = content_of(3 * MIB + 12_345)


def sent(content_type: str, *, inline: bool = True, path: str = "folder/name") -> dict[str, str]:
    return headers(ManagedResource(path=path, content_type=content_type), inline=inline)


@pytest.mark.parametrize(
    "content_type", ["image/png", "IMAGE/JPEG", "audio/ogg", "video/mp4", "text/plain", "text/plain; charset=utf-8"]
)
def test_what_cannot_run_a_script_is_shown_where_that_is_asked_for(content_type: str) -> None:
    assert sent(content_type)["Content-Disposition"] == 'inline; filename="name"'
    assert sent(content_type, inline=False)["Content-Disposition"] == 'attachment; filename="name"'


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/xml",
        "application/pdf",
        "text/css",
        "text/javascript",
        "text/plainer",
        "image/*",
        "multipart/x-mixed-replace; boundary=image/png",
        "",
    ],
)
def test_whatever_might_run_a_script_is_saved_even_where_showing_is_asked_for(content_type: str) -> None:
    assert sent(content_type)["Content-Disposition"] == 'attachment; filename="name"'


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "png",
        "image/",
        "/png",
        "image/png\r\nX-Evil: 1",
        "image/png\n",
        "image/png, text/html",
        "imagé/png",
        "a b/c",
    ],
)
def test_what_is_no_media_type_is_sent_as_unknown_bytes(content_type: str) -> None:
    assert sent(content_type)["Content-Type"] == "application/octet-stream"
    assert sent(content_type)["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "content_type",
    ["text/javascript", "Application/X-JavaScript; charset=utf-8", "text/ecmascript", "text/jscript"],
)
def test_scripts_are_sent_as_text_that_no_page_can_load(content_type: str) -> None:
    assert sent(content_type)["Content-Type"] == "text/plain"
    assert sent(content_type)["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("content_type", ["text/html", "image/png", "nonsense"])
@pytest.mark.parametrize("inline", [True, False])
def test_every_answer_forbids_sniffing_and_runs_in_a_sandbox(content_type: str, inline: bool) -> None:
    answer = sent(content_type, inline=inline)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_a_media_type_keeps_its_parameters() -> None:
    quoted = 'text/plain; charset="utf-8"; format=flowed'
    assert sent(quoted)["Content-Type"] == quoted


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=63))
def test_every_name_of_a_file_is_told_as_it_is(name: str) -> None:
    told = sent("image/png", path=f"folder/{name}")["Content-Disposition"]
    parsed = re.fullmatch(r"""inline; filename="([^"%\\]+)"(?:; filename\*=UTF-8''([A-Za-z0-9_.~%-]+))?""", told)
    assert parsed
    plain, exact = parsed.groups()
    assert plain.isascii()
    assert (plain if exact is None else unquote(exact)) == name


@pytest.mark.parametrize(
    "name", ['say "hi".txt', "back\\slash", "100%25.txt", "été.txt", "a; filename=evil.exe", "日本"]
)
def test_names_that_clients_read_in_two_ways_are_told_in_two(name: str) -> None:
    assert ("filename*=" in sent("image/png", path=name)["Content-Disposition"]) == (name != "a; filename=evil.exe")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * 255, "x" * 255),
        ("x" * 300 + ".html", "x" * 250 + ".html"),
        ("é" * 500 + ".txt", "é" * 125 + ".txt"),
        ("x." + "y" * 300, "x." + "y" * 253),
        ("." + "y" * 300, "." + "y" * 254),
    ],
    ids=["that fits", "plain", "of other characters", "with no ending that is one", "hidden"],
)
def test_a_name_that_fits_in_no_directory_is_cut_before_its_ending(name: str, told: str) -> None:
    disposition = sent("image/png", path=f"folder/{name}")["Content-Disposition"]
    encoded = f"filename*=UTF-8''{quote(told)}" if not told.isascii() else f'filename="{told}"'
    assert disposition.endswith(f"; {encoded}")


def answer(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(body(request, ManagedStorage().get(HERE, "a")))


async def bytes_of(response: Any, at_most: int = 100) -> list[bytes]:
    """Return the first blocks that a server under ASGI would send, and end as it does."""
    blocks: list[bytes] = []
    parts = aiter(response)
    try:
        while len(blocks) < at_most and (block := await anext(parts, b"")):
            blocks.append(block)
    finally:
        await parts.aclose()
    return blocks


def test_bytes_leave_in_blocks_by_the_iterator_that_the_server_needs(database: str, stored: Stored) -> None:
    ManagedStorage().put(HERE, "a", CONTENT)
    sync, under_asgi = answer(RequestFactory().get("/")), answer(AsyncRequestFactory().get("/"))
    assert (sync.is_async, under_asgi.is_async) == (False, True)
    for blocks in (list(sync), asyncio.run(bytes_of(under_asgi))):  # type: ignore[call-overload]
        assert b"".join(blocks) == CONTENT
        assert [len(block) for block in blocks[:-1]] == [MIB] * 3
    for response in (sync, under_asgi):
        response.close()


def test_a_client_under_asgi_may_go_away_before_the_end(database: str, stored: Stored) -> None:
    ManagedStorage().put(HERE, "a", CONTENT)
    response = answer(AsyncRequestFactory().get("/"))
    file = response._resource_closers[0].__self__._file  # type: ignore[attr-defined]
    assert asyncio.run(bytes_of(response, 1)) == [CONTENT[:MIB]]
    response.close()
    assert file.closed
    assert Resource.objects.get().damaged_at is None


def test_the_last_block_of_damaged_content_is_not_sent_under_asgi(database: str, stored: Stored) -> None:
    ManagedStorage().put(HERE, "a", CONTENT)
    path = Resource.objects.get().path
    stored.storage.delete(path)
    ManagedStorage().resource_storage.put(path, b"x" + CONTENT[1:])
    response = answer(AsyncRequestFactory().get("/"))
    assert len(asyncio.run(bytes_of(response, 3))) == 3
    response.close()
    with pytest.raises(ContentDamaged):
        asyncio.run(bytes_of(answer(AsyncRequestFactory().get("/"))))
    assert Resource.objects.get().damaged_at is not None
