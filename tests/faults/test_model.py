"""Whatever is done in whatever order, with crashes in between, the store is what a dict of bytes would be.

After each step four things must hold: each count is that of its references, each object reads back with its hash, each
stored file has exactly one row, and a sweep after all leases would leave nothing pending.
`BLOBSTORE_EXAMPLES=1000 pytest tests/faults/test_model.py` looks longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pytest
from django.db import connections
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from pytest_django import Settings

from django_blobstore import proof
from django_blobstore.errors import (
    BlobstoreError,
    HashMismatch,
    RequestExpired,
    RequestNotFound,
    ResourceDeleted,
    ResourceNotFound,
    ResponseMismatch,
    TooManyFailures,
    UploadPending,
)
from django_blobstore.failpoints import FailpointReached
from django_blobstore.managed import ManagedStorage, Namespace, PutResponse, RequestResponse
from django_blobstore.models import Bucket, ManagedResource, PendingFile, PutRequest
from django_blobstore.storages import gridfs_writer
from django_blobstore.upkeep import sweep
from tests.faults.dying import Doomed, armed
from tests.faults.operations import BATCH_BYTES, state
from tests.invariants import assert_empty, assert_settled, assert_sound
from tests.stored import Stored
from tests.streams import Stream, content_of, sha384

HOME = Namespace(bucket="model")
EXAMPLES = int(os.environ.get("BLOBSTORE_EXAMPLES", "4"))
STEPS = 25

# Time passes for the store only when the model says so: an example must end long before any of these.
GRACE = 300_000
LEASE = 600_000
PROOF_LIFETIME = 60_000

contents = st.sampled_from([b"", b"1", content_of(5000), content_of(300_000), content_of(1_200_000)])
paths = st.sampled_from(["a", "b", "c/d"])
requesters = st.sampled_from(["ann", "bob"])


@dataclass(frozen=True)
class Asked:
    """A put request, and what the model knows of it."""

    response: RequestResponse
    path: str
    content: bytes
    requester: str
    at: int


class StoreMachine(RuleBasedStateMachine):
    """`objects` is what the store must hold, `clock` the seconds that have passed for the store."""

    stored: ClassVar[Stored]
    directory: ClassVar[Path]

    requests: Bundle[Asked] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.store = ManagedStorage()
        self.objects: dict[str, bytes] = {}
        self.answered: set[str] = set()
        self.clock = 0

    @rule(path=paths, content=contents, at_once=st.booleans())
    def put(self, path: str, content: bytes, at_once: bool) -> None:
        self.store.put(HOME, path, content if at_once else Stream(content, at_most=100_000))
        self.objects[path] = content

    @rule(path=paths, content=contents)
    def put_with_a_wrong_hash(self, path: str, content: bytes) -> None:
        with pytest.raises(HashMismatch):
            self.store.put(HOME, path, Stream(content), check_hash=sha384(b"another"))

    @rule(path=paths)
    def get(self, path: str) -> None:
        if path in self.objects:
            assert self.store.get(HOME, path).read() == self.objects[path]
            return
        # Until its lease ends, a crashed upload seems to be under way.
        with pytest.raises((ResourceNotFound, UploadPending)):
            self.store.get(HOME, path)

    @rule(path=paths, start=st.integers(0, 1_300_000), length=st.integers(0, 600_000))
    def get_a_range(self, path: str, start: int, length: int) -> None:
        if path in self.objects:
            with self.store.get(HOME, path) as file:
                file.seek(start)
                assert file.read(length) == self.objects[path][start : start + length]

    @rule(path=paths)
    def remove(self, path: str) -> None:
        if self.objects.pop(path, None) is not None:
            self.store.remove(HOME, path)
            return
        with pytest.raises(ResourceNotFound):
            self.store.remove(HOME, path)

    @rule(source=paths, path=paths)
    def copy(self, source: str, path: str) -> None:
        if source in self.objects:
            self.store.copy(self.store.stat(HOME, source), HOME, path)
            self.objects[path] = self.objects[source]

    @rule(target=requests, path=paths, content=contents, requester=requesters)
    def ask(self, path: str, content: bytes, requester: str) -> Any:
        try:
            response = self.store.put_request(HOME, path, sha384(content), requester=requester)
        except ResourceNotFound:
            assert content not in self.objects.values()
            return multiple()
        except TooManyFailures:
            return multiple()
        assert content in self.objects.values()
        return Asked(response, path, content, requester, self.clock)

    @rule(asked=requests)
    def answer(self, asked: Asked) -> None:
        right = proof.answer(asked.content, asked.response, sha384(asked.content))
        self._answer(asked, right, asked.requester)

    @rule(asked=requests)
    def answer_wrongly(self, asked: Asked) -> None:
        self._answer(asked, PutResponse(asked.response.request_id, "0" * 96), asked.requester)

    @rule(asked=requests)
    def answer_as_a_stranger(self, asked: Asked) -> None:
        right = proof.answer(asked.content, asked.response, sha384(asked.content))
        with pytest.raises(RequestNotFound):
            self.store.proof_of_access_response(right, requester="a stranger")

    @rule(seconds=st.sampled_from([PROOF_LIFETIME + 1, GRACE + 1, LEASE + 1]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock += seconds
        passed = timedelta(seconds=seconds)
        PendingFile.objects.filter(discard=False).update(lease_until=F("lease_until") - passed)
        PendingFile.objects.filter(discard=True).update(due_at=F("due_at") - passed)
        PutRequest.objects.update(expires_at=F("expires_at") - passed)

    @rule()
    def sweep(self) -> None:
        sweep()

    @rule()
    def restart(self) -> None:
        connections.close_all()
        self.store = ManagedStorage()

    @rule(path=paths, content=contents, number=st.integers(1, 14), killed=st.booleans())
    def crash_while_putting(self, path: str, content: bytes, number: int, killed: bool) -> None:
        self._crash(path, content, number, killed, lambda: self.store.put(HOME, path, Stream(content)))

    @rule(path=paths, number=st.integers(1, 6), killed=st.booleans())
    def crash_while_removing(self, path: str, number: int, killed: bool) -> None:
        if path in self.objects:
            self._crash(path, None, number, killed, lambda: self.store.remove(HOME, path))

    @rule(number=st.integers(1, 6), killed=st.booleans())
    def crash_while_sweeping(self, number: int, killed: bool) -> None:
        self._doomed(number, killed, sweep)

    @rule(asked=requests, number=st.integers(1, 8), killed=st.booleans())
    def crash_while_answering(self, asked: Asked, number: int, killed: bool) -> None:
        right = proof.answer(asked.content, asked.response, sha384(asked.content))
        self.answered.add(asked.response.request_id)

        def answer() -> None:
            try:
                self.store.proof_of_access_response(right, requester=asked.requester)
            except FailpointReached:
                raise
            except BlobstoreError:
                return

        self._crash(asked.path, asked.content, number, killed, answer, may_fail=True)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert state() == self.objects

    @invariant()
    def counts_hashes_and_names_are_right(self) -> None:
        assert_sound(self.stored)

    @invariant()
    def a_sweep_after_all_leases_would_leave_nothing_pending(self) -> None:
        pending = list(PendingFile.objects.values("path", "lease_until", "due_at"))
        PendingFile.objects.filter(discard=False).update(lease_until=Now())
        PendingFile.objects.filter(discard=True).update(due_at=Now())
        assert sweep(dry_run=True).total_files == len(pending)
        for row in pending:
            PendingFile.objects.filter(path=row.pop("path")).update(**row)

    def teardown(self) -> None:
        assert_settled(self.stored)
        PutRequest.objects.all().delete()
        self.store.remove_all(ManagedResource.objects.all())
        assert_settled(self.stored)
        Bucket.objects.all().delete()
        assert_empty(self.stored)

    def _answer(self, asked: Asked, response: PutResponse, requester: str) -> None:
        """Answer, and expect what the model says; a request that a crash left half answered stays answered."""
        id = asked.response.request_id
        right = response.sha384 != "0" * 96
        try:
            self.store.proof_of_access_response(response, requester=requester)
        except RequestExpired:
            assert id in self.answered or self.clock - asked.at >= PROOF_LIFETIME
            return
        except ResourceDeleted:
            assert asked.content not in self.objects.values()
        except ResponseMismatch:
            assert not right
        except TooManyFailures:
            pass
        else:
            assert right
            assert id not in self.answered
            assert asked.content in self.objects.values()
            self.objects[asked.path] = asked.content
        self.answered.add(id)

    def _crash(
        self,
        path: str,
        content: bytes | None,
        number: int,
        killed: bool,
        work: Callable[[], object],
        *,
        may_fail: bool = False,
    ) -> None:
        """Do `work` in a way that may crash; then there is at `path` what was there before or `content`."""
        crashed = self._doomed(number, killed, work)
        after = {known: bytes_ for known, bytes_ in self.objects.items() if known != path}
        if content is not None:
            after[path] = content
        now = state()
        assert now == after or ((crashed or may_fail) and now == self.objects)
        self.objects = now

    def _doomed(self, number: int, killed: bool, work: Callable[[], object]) -> bool:
        if killed:
            return bool(Doomed(work, f"kill:{number}", self.directory).fate(self.stored).killed_at)
        with armed(f"raise:{number}", self.directory / "failpoints"):
            try:
                work()
            except FailpointReached:
                return True
        return False


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_store_is_what_a_dict_would_be(
    database: str, stored: Stored, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BLOBSTORE = {"DELETION_GRACE": GRACE, "LEASE": LEASE, "PROOF_LIFETIME": PROOF_LIFETIME}
    monkeypatch.setattr(gridfs_writer, "BATCH_BYTES", BATCH_BYTES)
    machine = type("Machine", (StoreMachine,), {"stored": stored, "directory": tmp_path})
    run_state_machine_as_test(machine, settings=_effort())


def _effort() -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
