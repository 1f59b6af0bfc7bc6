"""The headers under which bytes leave: what is shown, what is saved, and what a browser is never told."""

from __future__ import annotations

import pytest

from django_blobstore.models import ManagedResource
from django_blobstore.serving import headers


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


@pytest.mark.parametrize("content_type", ["text/html", "image/png", "nonsense"])
@pytest.mark.parametrize("inline", [True, False])
def test_every_answer_forbids_sniffing_and_runs_in_a_sandbox(content_type: str, inline: bool) -> None:
    answer = sent(content_type, inline=inline)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_a_media_type_keeps_its_parameters() -> None:
    quoted = 'text/plain; charset="utf-8"; format=flowed'
    assert sent(quoted)["Content-Type"] == quoted
