"""What Django's ``check`` command can tell of a wrong set-up before it loses or leaks anything.

Ids are never used again for something else: E001 BLOBSTORE is no dict, E002 unknown setting, E003 value refused,
E004 a callable cannot be called, E005 storage alias missing, E006 storage cannot be made, E007 unsuitable database,
E008 SERVE_LOCATION of no storage, E009 CONTENT_HOST without its middleware; W001 SQLite without IMMEDIATE, W002 SQLite
without WAL, W003 weak proofs, W004 a storage's own complaint (``--deploy``), W005 SERVE_METHOD of no use for the
storage, W006 no CONTENT_HOST (``--deploy``), W007 no GRANTED_BUCKETS (``--deploy``). From E020 and W020 on they are
those of `project_checks`.

None is tagged ``database``: Django runs those only on request, and nothing here connects to a database. Only the
check of ``--deploy`` connects to a storage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import storages
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from django_blobstore.access import may_grant_on_buckets
from django_blobstore.conf import KNOWN, conf, given_settings
from django_blobstore.models import Resource
from django_blobstore.project_checks import check_project, made
from django_blobstore.storages import hooks

TAG = "blobstore"

DATABASES = {"sqlite", "postgresql"}
CONTENT_HOST_MIDDLEWARE = "django_blobstore.rest.content_host.ContentHostMiddleware"

_WAL = re.compile(r"journal_mode\s*[=(]\s*['\"]?wal", re.IGNORECASE)


def register_checks() -> None:
    """Have ``check`` run everything here, and ``check --tag blobstore`` nothing else."""
    register(check_settings, TAG)
    register(check_database, TAG)
    register(check_project, TAG)
    register(check_storages, TAG, deploy=True)
    register(check_content_host, TAG, deploy=True)
    register(check_granted_buckets, TAG, deploy=True)


def check_settings(**_: Any) -> list[CheckMessage]:
    """Find settings that are unknown, refused or of no use."""
    given = given_settings()
    if not isinstance(given, dict):
        hint = "Write BLOBSTORE = {'STORAGE': …}, or leave it out for the defaults."
        return [Error(f"BLOBSTORE is a {type(given).__name__}, not a dict.", hint=hint, id="blobstore.E001")]
    unknown = [_unknown(name) for name in given if name not in KNOWN]
    refused = {name for name, setting in KNOWN.items() if name in given and not setting.accepts(given[name])}
    return [*unknown, *map(_refused, sorted(refused)), *_check_meanings(refused)]


def check_database(**_: Any) -> list[CheckMessage]:
    """Find a catalog database that cannot keep counts right, or not under load."""
    alias = router.db_for_write(Resource)
    connection = connections[alias]
    if connection.vendor not in DATABASES:
        message = f"The catalog cannot be kept in DATABASES[{alias!r}], whose vendor is {connection.vendor!r}."
        hint = (
            "Counts need transactions that roll back, CHECK constraints and INSERT … ON CONFLICT … RETURNING. "
            "Send the app 'django_blobstore' to PostgreSQL or SQLite with a database router."
        )
        return [Error(message, hint=hint, id="blobstore.E007")]
    return list(_check_sqlite(connection)) if connection.vendor == "sqlite" else []


def check_storages(**_: Any) -> list[CheckMessage]:
    """Ask each storage that can tell, which may connect to its server, what is wrong with it."""
    return [
        Warning(f"STORAGES[{alias!r}]: {problem}", hint="Correct its OPTIONS or its server.", id="blobstore.W004")
        for alias in settings.STORAGES
        for problem in _problems(alias)
    ]


def check_content_host(**_: Any) -> list[CheckMessage]:
    """Find that what users uploaded comes from the host that knows them."""
    if conf.CONTENT_HOST:
        return []
    message = "What users upload is sent from the host of the site: only headers keep it from acting as the site."
    hint = (
        "Set BLOBSTORE['CONTENT_HOST'] to another name of this site (docs/rest.md), or silence this check if you trust "
        "your users or the headers."
    )
    return [Warning(message, hint=hint, id="blobstore.W006")]


def check_granted_buckets(**_: Any) -> list[CheckMessage]:
    """Find a backend of object permissions that must be asked about each bucket."""
    if conf.GRANTED_BUCKETS or not may_grant_on_buckets():
        return []
    message = "To list the buckets that somebody may see, the admin asks AUTHENTICATION_BACKENDS about each of 100."
    hint = (
        "Set BLOBSTORE['GRANTED_BUCKETS'] to what finds them at once (docs/admin.md), or silence this check if there "
        "are fewer and asking takes no query."
    )
    return [Warning(message, hint=hint, id="blobstore.W007")]


def _unknown(name: object) -> Error:
    close = get_close_matches(str(name).upper(), KNOWN, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(KNOWN)}."
    return Error(f"BLOBSTORE has the unknown setting {name!r}.", hint=hint, id="blobstore.E002")


def _refused(name: str) -> Error:
    message = f"BLOBSTORE[{name!r}] cannot be {given_settings()[name]!r}."
    return Error(message, hint=f"It must be {KNOWN[name].expects}.", id="blobstore.E003")


def _check_meanings(refused: Set[str]) -> Iterator[CheckMessage]:
    if "DEDUP_SCOPE" not in refused and "." in conf.DEDUP_SCOPE:
        yield from _check_callable("DEDUP_SCOPE", "takes a Namespace and returns a string")
    if "GRANTED_BUCKETS" not in refused and conf.GRANTED_BUCKETS:
        yield from _check_callable("GRANTED_BUCKETS", "takes a user and a permission and returns UUIDs")
    if "STORAGE" not in refused:
        yield from _check_storage(conf.STORAGE)
    if conf.PROOF_PROTOCOL == "seed":
        message = "BLOBSTORE['PROOF_PROTOCOL'] is 'seed': an answer carries no nonce and proves one range only."
        hint = "Use 'hmac' as soon as no client needs the old protocol."
        yield Warning(message, hint=hint, id="blobstore.W003")
    if "CONTENT_HOST" not in refused and conf.CONTENT_HOST and CONTENT_HOST_MIDDLEWARE not in settings.MIDDLEWARE:
        message = f"{conf.CONTENT_HOST} would serve the whole site: BLOBSTORE['CONTENT_HOST'] has no middleware."
        hint = f"Put {CONTENT_HOST_MIDDLEWARE!r} first in MIDDLEWARE."
        yield Error(message, hint=hint, id="blobstore.E009")
    if not refused & {"SERVE_METHOD", "SERVE_LOCATION", "STORAGE"}:
        yield from _check_serving(conf.STORAGE, conf.SERVE_METHOD)


def _check_serving(alias: str, method: str) -> Iterator[CheckMessage]:
    for unknown in sorted(conf.SERVE_LOCATION.keys() - settings.STORAGES.keys()):
        hint = f"Its keys are aliases in STORAGES: {', '.join(map(repr, settings.STORAGES))}."
        yield Error(f"BLOBSTORE['SERVE_LOCATION'] speaks of {unknown!r}.", hint=hint, id="blobstore.E008")
    obstacle = _obstacle(alias, method)
    if obstacle:
        message = f"BLOBSTORE['SERVE_METHOD'] is {method!r}, but {obstacle}: all is streamed."
        hint = "Use a storage and a method that go together (docs/serving.md), or 'stream'."
        yield Warning(message, hint=hint, id="blobstore.W005")


def _obstacle(alias: str, method: str) -> str:
    """Say why nothing new in the storage `alias` can be handed over by `method`; "" if it can, or other checks say."""
    storage = made(alias)
    if storage is None or method == "stream":
        return ""
    if method == "x-accel" and alias not in conf.SERVE_LOCATION:
        return f"SERVE_LOCATION has no location for {alias!r}"
    signs, keeps = hooks.signs_urls(storage), hooks.keeps_files(storage)
    can = {"redirect": signs, "x-sendfile": keeps, "x-accel": signs or keeps}
    lacks = {"redirect": "signed URLs", "x-sendfile": "files", "x-accel": "files and no signed URLs"}
    return "" if can[method] else f"the storage {alias!r} has no {lacks[method]}"


def _check_callable(name: str, does: str) -> Iterator[CheckMessage]:
    dotted = getattr(conf, name)
    hint = f"It must be the dotted path of a callable that {does}."
    try:
        if callable(import_string(dotted)):
            return
        fault = "it cannot be called"
    except ImportError as error:
        fault = str(error)
    yield Error(f"BLOBSTORE[{name!r}] is {dotted!r}: {fault}.", hint=hint, id="blobstore.E004")


def _check_storage(alias: str) -> Iterator[CheckMessage]:
    if alias not in settings.STORAGES:
        hint = f"Define it, or set BLOBSTORE['STORAGE'] to one of {', '.join(map(repr, settings.STORAGES))}."
        yield Error(f"STORAGES has no alias {alias!r} to keep the bytes in.", hint=hint, id="blobstore.E005")
        return
    try:
        storages[alias]
    except (ImproperlyConfigured, TypeError) as error:
        hint = f"Correct BACKEND and OPTIONS of STORAGES[{alias!r}]."
        yield Error(f"STORAGES[{alias!r}] cannot be used: {error}", hint=hint, id="blobstore.E006")


def _check_sqlite(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    options = connection.settings_dict.get("OPTIONS", {})
    if str(options.get("transaction_mode")).upper() != "IMMEDIATE":
        yield Warning(
            f"DATABASES[{connection.alias!r}] begins transactions deferred: two writers at once fail with "
            "'database is locked', whatever the timeout.",
            hint="Set OPTIONS['transaction_mode'] to 'IMMEDIATE'.",
            id="blobstore.W001",
        )
    if not _WAL.search(options.get("init_command") or "") and not _is_in_memory(connection):
        yield Warning(
            f"DATABASES[{connection.alias!r}] asks for no write-ahead log: readers and writers block each other.",
            hint="Set OPTIONS['init_command'] to 'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'.",
            id="blobstore.W002",
        )


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    name = str(connection.settings_dict["NAME"])
    return name == ":memory:" or "mode=memory" in name


def _problems(alias: str) -> list[str]:
    ask = getattr(made(alias), "problems", None)
    return ask() if ask else []
