"""The description of the interface: valid, whole, and shown without help from other hosts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from django_blobstore.rest.components import SCHEMAS
from django_blobstore.rest.contract import OPERATIONS
from tests import servers

ROOT = Path(__file__).parent.parent.parent
SETTINGS = "--settings=example_project.settings"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    done = run("manage.py", "spectacular", "--validate", "--fail-on-warn", "--format=openapi-json", SETTINGS)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(path, method): what for path, methods in schema["paths"].items() for method, what in methods.items()}


def test_it_is_openapi_3_1_with_names_that_are_used_once(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    names = [operation["operationId"] for operation in operations(schema).values()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z_]+", name) for name in names)


def test_every_operation_is_described_by_us_and_by_nobody_else(schema: dict[str, Any]) -> None:
    described = {operation["operationId"] for operation in operations(schema).values()}
    for operation in OPERATIONS.values():
        routes = ("", "my_", "global_") if "{}" in operation.name else ("",)
        assert {operation.name.format(route) for route in routes} <= described
    beside = {name for name in described if name.startswith(("head_", "discover_"))} | {"show_upload"}
    # Whatever drf-spectacular would have guessed has another tag.
    assert {operation["tags"][0] for operation in operations(schema).values()} == {
        "Buckets",
        "Objects",
        "Proofs",
        "Uploads",
    }
    assert len(beside) == 8


def test_every_problem_is_a_problem_document_and_says_how_long_to_wait(schema: dict[str, Any]) -> None:
    for operation in operations(schema).values():
        assert {"401", "403", "429", "503"} <= operation["responses"].keys()
    for name, response in schema["components"]["responses"].items():
        assert list(response["content"]) == ["application/problem+json"]
        assert ("Retry-After" in response.get("headers", {})) == (name[-3:] in ("423", "429", "503"))


def test_bytes_go_in_and_out_raw(schema: dict[str, Any]) -> None:
    methods = schema["paths"]["/api/buckets/{bucket}/objects/{path}"]
    assert "application/octet-stream" in methods["put"]["requestBody"]["content"]
    assert {"200", "206", "304", "412", "416"} <= methods["get"]["responses"].keys()
    headers = {parameter["name"] for parameter in methods["get"]["parameters"] if parameter["in"] == "header"}
    assert {"Range", "If-Range", "If-Match", "If-None-Match", "Want-Repr-Digest"} <= headers
    assert "content" not in methods["head"]["responses"]["200"]


def test_whoever_asks_may_be_anybody_the_project_knows(schema: dict[str, Any]) -> None:
    schemes = set(schema["components"]["securitySchemes"])
    for operation in operations(schema).values():
        expected = set() if "signed" in operation["operationId"] else schemes
        assert {name for choice in operation["security"] for name in choice} == expected


def test_every_schema_is_used(schema: dict[str, Any]) -> None:
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert used == set(SCHEMAS) == set(schema["components"]["schemas"])


def test_nothing_needs_drf_spectacular() -> None:
    code = (
        "import sys; sys.modules['drf_spectacular'] = None; import django; django.setup();"
        "import django_blobstore.rest.urls, django_blobstore.rest.contract"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_of_it_loads_everything_from_its_own_site() -> None:
    with (
        servers.site(env={"DJANGO_SETTINGS_MODULE": "example_project.settings"}) as site,
        httpx.Client(base_url=site.url, timeout=240) as client,
    ):
        page = client.get("/api/docs/").raise_for_status().text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(loaded) >= 3
        assert [url for url in loaded if not url.startswith("/static/")] == []
        for url in loaded:
            client.get(url).raise_for_status()
        shown = client.get("/api/schema/", params={"format": "json"}).raise_for_status().json()
        assert shown["openapi"].startswith("3.1")
