"""What `check` says of a set-up, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.files.storage import Storage
from django.core.management import CommandError, call_command
from django.db import connections
from pytest_django import Settings

from django_blobstore.conf import KNOWN
from tests.rest import object_permissions
from tests.routers import OneDatabase
from tests.settings import SQLITE
from tests.stored import Stored

UNREACHABLE = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50"
FILES = {"BACKEND": "django.core.files.storage.FileSystemStorage"}


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Return what the checks of this package say, by id, but not that there is no content host."""
    messages = run_checks(tags=["blobstore"], include_deployment_checks=deploy)
    messages = [message for message in messages if message.id != "blobstore.W006"]
    assert all(message.hint for message in messages)
    return {message.id or "": message for message in messages}


@contextmanager
def catalog_in(**database: Any) -> Iterator[None]:
    """Keep the catalog in a database with these settings, which is never opened."""
    connections.settings["strange"] = connections.configure_settings(
        {"default": {}, "strange": {"NAME": "/nowhere/catalog", **database}}
    )["strange"]
    try:
        with OneDatabase.using("strange"):
            yield
    finally:
        del connections["strange"], connections.settings["strange"]


def sqlite(**options: Any) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": options}


SOMETHING = "not callable"


class Complaining(Storage):
    """A storage that finds something wrong with itself."""

    def problems(self) -> list[str]:
        return ["The disk is round."]


class NotAsked(Storage):
    """A storage that must not be asked."""

    def problems(self) -> list[str]:
        raise AssertionError("Only --deploy may connect.")


def test_a_right_set_up_has_no_message() -> None:
    assert found(deploy=True) == {}


@pytest.mark.django_db
@pytest.mark.parametrize(("given", "kind"), [(["STORAGE", "CONTENT_HOST"], "list"), (None, "NoneType")])
def test_blobstore_must_be_a_dict_and_nothing_else_is_looked_at(settings: Settings, given: object, kind: str) -> None:
    settings.BLOBSTORE = given
    assert set(found(deploy=True)) == {"blobstore.E001"}
    assert kind in found()["blobstore.E001"].msg
    # The fields of models are checked too, whose storages ask for settings.
    assert "blobstore.E001" in {message.id for message in run_checks()}


@pytest.mark.parametrize(("written", "meant"), [("STORGE", "STORAGE"), ("dedup_scope", "DEDUP_SCOPE")])
def test_an_unknown_setting_is_named_with_the_one_probably_meant(settings: Settings, written: str, meant: str) -> None:
    settings.BLOBSTORE = {written: "default"}
    message = found()["blobstore.E002"]
    assert written in message.msg
    assert message.hint == f"Did you mean {meant!r}?"


def test_an_unknown_setting_like_no_other_is_answered_with_all_there_are(settings: Settings) -> None:
    settings.BLOBSTORE = {"XYZZY": 1}
    hint = found()["blobstore.E002"].hint or ""
    assert all(name in hint for name in KNOWN)


@pytest.mark.parametrize("name", list(KNOWN))
def test_every_setting_refuses_a_value_of_no_use_and_says_what_it_expects(settings: Settings, name: str) -> None:
    settings.BLOBSTORE = {name: object()}
    messages = found()
    assert name in messages["blobstore.E003"].msg
    assert KNOWN[name].expects in (messages["blobstore.E003"].hint or "")
    assert set(messages) == {"blobstore.E003"}


@pytest.mark.parametrize("dotted", ["no.such.module", "tests.test_checks.missing", "tests.test_checks.SOMETHING"])
@pytest.mark.parametrize("name", ["DEDUP_SCOPE", "GRANTED_BUCKETS"])
def test_what_cannot_be_called_is_an_error(settings: Settings, name: str, dotted: str) -> None:
    settings.BLOBSTORE = {name: dotted}
    assert name in found()["blobstore.E004"].msg
    assert dotted in found()["blobstore.E004"].msg


def test_a_backend_of_object_permissions_without_a_way_to_list_buckets_is_told_of(settings: Settings) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    assert found(deploy=True) == {}
    settings.AUTHENTICATION_BACKENDS = object_permissions.BACKENDS
    assert set(found(deploy=True)) == {"blobstore.W007"}
    settings.BLOBSTORE = {"GRANTED_BUCKETS": "tests.rest.object_permissions.buckets"}
    assert found(deploy=True) == {}


def test_what_can_be_called_is_fine(settings: Settings) -> None:
    settings.BLOBSTORE = dict.fromkeys(("DEDUP_SCOPE", "GRANTED_BUCKETS"), "tests.test_checks.found")
    assert found() == {}


def test_a_storage_alias_that_is_not_in_storages_is_an_error(settings: Settings) -> None:
    settings.BLOBSTORE = {"STORAGE": "blobs"}
    message = found()["blobstore.E005"]
    assert "'blobs'" in message.msg
    assert "'blobstore'" in (message.hint or "")


def test_no_storage_at_all_is_an_error(settings: Settings) -> None:
    settings.STORAGES = {"staticfiles": settings.STORAGES["staticfiles"]}
    assert "'default'" in found()["blobstore.E005"].msg


@pytest.mark.parametrize(
    "broken",
    [
        {"BACKEND": "no.such.Storage"},
        {"BACKEND": "django_blobstore.storages.GridFSStorage", "OPTIONS": {"uri": UNREACHABLE, "chunks": 1}},
        FILES | {"OPTIONS": {"bucket": "b"}},
    ],
    ids=["no such class", "unknown GridFS option", "unknown argument"],
)
def test_a_storage_that_cannot_be_made_is_an_error(settings: Settings, broken: dict[str, Any]) -> None:
    settings.STORAGES = settings.STORAGES | {"blobstore": broken}
    assert set(found(deploy=True)) == {"blobstore.E006"}
    assert "STORAGES['blobstore']" in found()["blobstore.E006"].msg


def test_a_database_of_any_other_vendor_is_refused_as_it_may_lack_real_transactions() -> None:
    with catalog_in(ENGINE="django.db.backends.dummy"):
        messages = found()
    assert set(messages) == {"blobstore.E007"}
    assert "DATABASES['strange']" in messages["blobstore.E007"].msg


def test_sqlite_as_django_sets_it_up_gets_two_warnings() -> None:
    with catalog_in(**sqlite()):
        assert set(found()) == {"blobstore.W001", "blobstore.W002"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"transaction_mode": "EXCLUSIVE", "init_command": "PRAGMA journal_mode=WAL"}, {"blobstore.W001"}),
        ({"transaction_mode": "IMMEDIATE"}, {"blobstore.W002"}),
        ({"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=DELETE"}, {"blobstore.W002"}),
        ({"transaction_mode": "immediate", "init_command": "pragma journal_mode = 'wal'"}, set()),
        ({"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode(WAL)"}, set()),
        (SQLITE["OPTIONS"], set()),
    ],
)
def test_sqlite_must_begin_immediate_and_write_ahead(options: dict[str, Any], expected: set[str]) -> None:
    with catalog_in(**sqlite(**options)):
        assert set(found()) == expected


@pytest.mark.parametrize("name", [":memory:", "file:catalog?mode=memory&cache=shared"])
def test_sqlite_in_memory_needs_no_write_ahead_log(name: str) -> None:
    with catalog_in(**sqlite(transaction_mode="IMMEDIATE") | {"NAME": name}):
        assert found() == {}


def test_postgresql_is_fine_and_not_connected_to() -> None:
    with catalog_in(ENGINE="django.db.backends.postgresql", HOST="/nowhere"):
        assert found(deploy=True) == {}


def test_the_protocol_of_the_seed_is_warned_of(settings: Settings) -> None:
    settings.BLOBSTORE = {"PROOF_PROTOCOL": "seed"}
    assert set(found()) == {"blobstore.W003"}


def test_a_location_of_a_storage_that_is_not_there_is_an_error(settings: Settings) -> None:
    settings.BLOBSTORE = {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {"blobstore": "/kept/", "blobs": "/kept/"}}
    message = found()["blobstore.E008"]
    assert "'blobs'" in message.msg
    assert "'blobstore'" in (message.hint or "")


GRIDFS = {"BACKEND": "django_blobstore.storages.GridFSStorage", "OPTIONS": {"uri": UNREACHABLE}}
S3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket_name": "b"}}
UNSIGNED = {"BACKEND": "storages.backends.s3.S3StaticStorage", "OPTIONS": {"bucket_name": "b"}}
FINE = [("stream", GRIDFS), ("redirect", S3), ("x-accel", S3), ("x-accel", FILES), ("x-sendfile", FILES)]
STREAMED = [
    *(("redirect", storage) for storage in (GRIDFS, FILES, UNSIGNED)),
    *(("x-accel", storage) for storage in (GRIDFS, UNSIGNED)),
    *(("x-sendfile", storage) for storage in (GRIDFS, S3)),
]


@pytest.mark.parametrize(("method", "storage"), FINE + STREAMED, ids=str)
def test_a_serve_method_that_the_storage_cannot_do_is_warned_of(
    settings: Settings, method: str, storage: dict[str, Any]
) -> None:
    settings.STORAGES = settings.STORAGES | {"blobstore": storage}
    settings.BLOBSTORE = {"SERVE_METHOD": method, "SERVE_LOCATION": {"blobstore": "/kept/"}}
    # Of a storage whose URLs are not signed more is said, in tests/test_project_checks.py.
    assert set(found()) - {"blobstore.W023"} == (set() if (method, storage) in FINE else {"blobstore.W005"})


def test_x_accel_without_a_location_of_the_storage_is_warned_of(settings: Settings) -> None:
    settings.BLOBSTORE = {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {"default": "/kept/"}}
    assert "no location for 'blobstore'" in found()["blobstore.W005"].msg


def test_only_deploy_asks_storages_for_their_problems(settings: Settings) -> None:
    settings.STORAGES = settings.STORAGES | {"blobstore": {"BACKEND": "tests.test_checks.NotAsked"}}
    assert found() == {}
    with pytest.raises(AssertionError):
        found(deploy=True)


def test_deploy_tells_the_problems_of_every_storage_that_knows_any(settings: Settings) -> None:
    settings.STORAGES = settings.STORAGES | {"avatars": {"BACKEND": "tests.test_checks.Complaining"}}
    assert found(deploy=True)["blobstore.W004"].msg == "STORAGES['avatars']: The disk is round."


def test_an_unreachable_gridfs_is_seen_by_deploy_only(settings: Settings) -> None:
    gridfs = {"BACKEND": "django_blobstore.storages.GridFSStorage", "OPTIONS": {"uri": UNREACHABLE}}
    settings.STORAGES = settings.STORAGES | {"blobstore": gridfs}
    assert found() == {}
    assert "STORAGES['blobstore']" in found(deploy=True)["blobstore.W004"].msg


CONTENT_HOST_MIDDLEWARE = "django_blobstore.rest.content_host.ContentHostMiddleware"


def test_deploy_wants_a_host_of_its_own_for_what_users_uploaded(settings: Settings) -> None:
    def ids(*, deploy: bool) -> set[str | None]:
        return {message.id for message in run_checks(tags=["blobstore"], include_deployment_checks=deploy)}

    assert (ids(deploy=False), ids(deploy=True)) == (set(), {"blobstore.W006"})
    settings.BLOBSTORE = {"CONTENT_HOST": "https://content.example.net"}
    settings.MIDDLEWARE = [CONTENT_HOST_MIDDLEWARE, *settings.MIDDLEWARE]
    assert ids(deploy=True) == set()


def test_a_content_host_that_would_serve_the_whole_site_is_an_error(settings: Settings) -> None:
    settings.BLOBSTORE = {"CONTENT_HOST": "https://content.example.net"}
    message = found()["blobstore.E009"]
    assert "https://content.example.net" in message.msg
    assert CONTENT_HOST_MIDDLEWARE in (message.hint or "")


@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_a_gridfs_in_use_has_no_problems(stored: Stored) -> None:
    assert found(deploy=True) == {}


@pytest.mark.django_db  # Django 6.1 asks the database about JSON while it checks the models
def test_the_plain_check_command_runs_the_checks(settings: Settings) -> None:
    settings.BLOBSTORE = {"STORGE": "default"}
    with pytest.raises(CommandError, match=r"blobstore\.E002"):
        call_command("check")
