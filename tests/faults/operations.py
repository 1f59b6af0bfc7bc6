"""Everything the store does in several steps, each with what is stored before and after it."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Now
from django.test import override_settings

from django_blobstore import proof, resumable
from django_blobstore.errors import HashMismatch, ResourceNotFound
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest, Resource
from django_blobstore.moving import move_contents
from django_blobstore.resource_storage import ResourceStorage, fresh_path
from django_blobstore.upkeep import audit, scrub, sweep
from tests import damage
from tests.faults.dying import Doomed
from tests.invariants import end_leases_and_graces
from tests.stored import ALIAS, ELSEWHERE
from tests.streams import Stream, content_of, sha384

HOME = Namespace(bucket="faults")

SMALL = content_of(1000, 1)
OTHER = content_of(2000, 2)
LARGE = content_of(1_300_000, 3)
# With it the GridFS writer takes three batches for `LARGE`, so that one waits for another.
BATCH_BYTES = 512 * 1024

State = dict[str, bytes]


@dataclass(frozen=True)
class Operation:
    """`run` turns a store that holds `before` into one that holds `after`, with nothing in between.

    `prepare` does what else must be there first; with it the store need not be `sound` before `run` has ended. `run`
    may be repeated. With `keeps_parts` it leaves uploads that one may go on with for a while.
    """

    name: str
    before: State
    after: State
    run: Callable[[ManagedStorage], object]
    prepare: Callable[[Any], object] = lambda _faults: None
    sound: bool = True
    keeps_parts: bool = False


def state() -> State:
    """Return what is stored, by path."""
    store = ManagedStorage()
    return {managed.path: store.open(managed).read() for managed in ManagedResource.objects.select_related("resource")}


def put(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    """Put from a stream that cannot go back, as an upload is."""
    return lambda store: store.put(HOME, path, Stream(content))


def put_slowly(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    """Put with a lease so short that it is renewed whenever bytes arrive."""

    def run(store: ManagedStorage) -> None:
        with override_settings(BLOBSTORE={"DELETION_GRACE": 0, "LEASE": 1e-9}):
            put(path, content)(store)

    return run


def put_of_known_hash(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    return lambda store: store.put(HOME, path, io.BytesIO(content), check_hash=sha384(content))


def put_in_transaction(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    def run(store: ManagedStorage) -> None:
        with transaction.atomic(using=store.catalog.using):
            store.put(HOME, path, Stream(content), durable=False)

    return run


def refused_put(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    def run(store: ManagedStorage) -> None:
        with suppress(HashMismatch):
            store.put(HOME, path, Stream(content), check_hash=sha384(b"something else"))

    return run


def broken_put(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    """Put from a stream that breaks just before its end."""

    def hang_up() -> None:
        raise ConnectionResetError

    def run(store: ManagedStorage) -> None:
        with suppress(ConnectionResetError):
            store.put(HOME, path, Stream(content, {len(content) - 1: hang_up}))

    return run


def upload_in_parts(path: str, content: bytes, expected: str = "") -> Callable[[ManagedStorage], object]:
    """Send the first half and the second as requests of their own; `expected` is what the SHA-384 is said to be."""

    def run(_store: ManagedStorage) -> None:
        upload = resumable.begin("", namespace=HOME, path=path, length=len(content), sha384=expected)
        half = len(content) // 2
        resumable.append(upload, 0, Stream(content[:half]))
        with suppress(HashMismatch):
            resumable.append(resumable.find(upload.pk, ""), half, Stream(content[half:]))

    return run


def put_together(path: str, *contents: bytes) -> Callable[[ManagedStorage], object]:
    """Upload `contents` as partial uploads, which stay for a while, and make one object of them."""

    def run(_store: ManagedStorage) -> None:
        partials = [resumable.begin("", length=len(content)) for content in contents]
        for partial, content in zip(partials, contents, strict=True):
            resumable.append(partial, 0, Stream(content))
        resumable.concatenate("", [partial.pk for partial in partials], namespace=HOME, path=path)

    return run


def remove(path: str) -> Callable[[ManagedStorage], object]:
    def run(store: ManagedStorage) -> None:
        with suppress(ResourceNotFound):
            store.remove(HOME, path)

    return run


def copy(source: str, path: str) -> Callable[[ManagedStorage], object]:
    return lambda store: store.copy(store.stat(HOME, source), HOME, path)


def move(source: str, path: str) -> Callable[[ManagedStorage], object]:
    def run(store: ManagedStorage) -> None:
        with suppress(ResourceNotFound):  # it was moved before this was begun again
            store.move(store.stat(HOME, source), HOME, path)

    return run


def move_there_and_back(_store: ManagedStorage) -> None:
    """Move every content to the storage beside that of new files, and back."""
    for source, target in ((ALIAS, ELSEWHERE), (ELSEWHERE, ALIAS)):
        move_contents(source, target, workers=1)


def prove(path: str, content: bytes) -> Callable[[ManagedStorage], object]:
    def run(store: ManagedStorage) -> None:
        request = store.put_request(HOME, path, sha384(content))
        store.proof_of_access_response(proof.answer(content, request, sha384(content)))

    return run


def remove_bucket(store: ManagedStorage) -> None:
    for bucket in Bucket.objects.all():
        store.remove_bucket(bucket)


def scrub_and_heal(store: ManagedStorage) -> None:
    scrub()
    store.put(HOME, "b", Stream(LARGE))


def mark(_faults: Any) -> None:
    """Let sound bytes seem damaged."""
    Resource.objects.update(damaged_at=Now())


def flip_a_bit(faults: Any) -> None:
    damage.flip(faults.stored, Resource.objects.get(sha384=sha384(LARGE)).path, 5)


def let_drift(faults: Any) -> None:
    """Leave all that an audit mends: wrong counts, a content without object, and bytes that no row names."""
    damage.set_count(Resource.objects.get(), 7)
    damage.delete_row(ManagedStorage().put(HOME, "c", OTHER))
    strangers = [fresh_path(), fresh_path()]
    for path in strangers:
        ResourceStorage().put(path, LARGE)
    if faults.stored.kind == "gridfs":
        damage.drop_files_document(faults.stored, strangers[0])
    damage.make_old(faults.stored)
    Resource.objects.update(created_at=damage.LONG_AGO)


def leave_leftovers(faults: Any) -> None:
    """Leave all that a sweep finds: files past their grace, uploads that died early and late, old put requests."""
    store = ManagedStorage()
    with override_settings(BLOBSTORE={}):
        for path in ("one", "two"):
            store.put(HOME, path, path.encode())
            store.remove(HOME, path)
    for content, where in ((OTHER, "upload.written"), (LARGE, "upload.announced"), (LARGE, "refer.saved")):
        Doomed(
            lambda content=content: store.put(HOME, "dead", Stream(content)), f"kill:{where}", faults.directory
        ).fate(faults.stored)
    store.put_request(HOME, "late", sha384(SMALL))
    PutRequest.objects.update(created_at=Now() - timedelta(days=2), expires_at=Now() - timedelta(days=2))
    end_leases_and_graces()
    assert PendingFile.objects.overdue().count() == 5


_A = {"a": SMALL}

OPERATIONS = [
    Operation("put a small content", {}, _A, put("a", SMALL)),
    Operation("put a large content", _A, _A | {"b": LARGE}, put("b", LARGE)),
    Operation("put slowly", _A, _A | {"b": LARGE}, put_slowly("b", LARGE)),
    Operation("overwrite", _A, {"a": OTHER}, put("a", OTHER)),
    Operation("overwrite one of two that share", _A | {"b": SMALL}, {"a": OTHER, "b": SMALL}, put("a", OTHER)),
    Operation("overwrite with a content stored before", _A | {"b": OTHER}, {"a": OTHER, "b": OTHER}, put("a", OTHER)),
    Operation("overwrite with one stored later", {"b": OTHER, "a": SMALL}, {"a": OTHER, "b": OTHER}, put("a", OTHER)),
    Operation("put a small duplicate", _A, _A | {"b": SMALL}, put("b", SMALL)),
    Operation("put a large duplicate", {"a": LARGE}, {"a": LARGE, "b": LARGE}, put("b", LARGE)),
    Operation(
        "put a large duplicate of known hash", {"a": LARGE}, {"a": LARGE, "b": LARGE}, put_of_known_hash("b", LARGE)
    ),
    Operation("put the same small content again", _A, _A, put("a", SMALL)),
    Operation("put the same large content again", {"a": LARGE}, {"a": LARGE}, put("a", LARGE)),
    Operation("put in place of damaged bytes", _A, _A | {"b": SMALL}, put("b", SMALL), prepare=mark),
    Operation(
        "put in a transaction",
        _A,
        _A | {"b": LARGE},
        put_in_transaction("b", LARGE),
        sound=False,  # until a sweep, if the transaction comes to nothing
        keeps_parts=True,
    ),
    Operation("put with a wrong hash", _A, _A, refused_put("b", LARGE)),
    Operation("put from a stream that breaks", _A, _A, broken_put("b", LARGE)),
    Operation("upload in parts", _A, _A | {"b": LARGE}, upload_in_parts("b", LARGE), keeps_parts=True),
    Operation("upload in parts with a wrong hash", _A, _A, upload_in_parts("b", LARGE, "0" * 96), keeps_parts=True),
    Operation(
        "put partial uploads together",
        _A,
        _A | {"b": SMALL + OTHER},
        put_together("b", SMALL, OTHER),
        keeps_parts=True,
    ),
    Operation("remove the last reference", {"a": LARGE, "b": SMALL}, {"b": SMALL}, remove("a")),
    Operation("remove one of two references", _A | {"b": SMALL}, {"b": SMALL}, remove("a")),
    Operation("remove a bucket", _A | {"b": SMALL, "c": OTHER}, {}, remove_bucket),
    Operation("copy", _A, _A | {"b": SMALL}, copy("a", "b")),
    Operation("move over another", _A | {"b": OTHER}, {"b": SMALL}, move("a", "b")),
    Operation("move contents to another storage and back", _A, _A, move_there_and_back),
    Operation("prove access", _A, _A | {"b": SMALL}, prove("b", SMALL)),
    Operation("prove access in place of another content", _A | {"b": OTHER}, _A | {"b": SMALL}, prove("b", SMALL)),
    Operation("sweep", _A, _A, lambda _store: sweep(), prepare=leave_leftovers),
    Operation(
        "scrub",
        _A | {"b": LARGE},
        _A | {"b": LARGE},
        scrub_and_heal,
        prepare=flip_a_bit,
        sound=False,
    ),
    Operation("audit", _A, _A, lambda _store: audit(fix=True), prepare=let_drift, sound=False),
]

PUTS = [operation for operation in OPERATIONS if operation.name in ("put a small content", "put a large content")]
