"""Storages and sites that stay between the tests of a run: to start a site takes longer than most of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings

from tests import servers
from tests.stored import Stored, used_by_all


@pytest.fixture
def storage_kind(database: str) -> str:
    """Files beside SQLite and GridFS beside PostgreSQL: every kind of either, without every pair of them."""
    return "files" if database == "default" else "gridfs"


@pytest.fixture
def stored(storage_kind: str, request: pytest.FixtureRequest, settings: Settings) -> Iterator[Stored]:
    """The storage of `storage_kind` that all sites share, empty before each test."""
    with used_by_all(request.getfixturevalue(f"kept_{storage_kind}"), settings) as stored:
        yield stored


@pytest.fixture(scope="session")
def kept_site() -> Iterator[Callable[..., servers.Site]]:
    """Return the one site of a deployment, and of a server with its options."""
    with servers.kept(lambda *command: servers.site(command)) as start:
        yield start
