"""One of many actors that put, overwrite, copy, prove and remove the same few objects, and sweep, all at once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress

from django_blobstore import proof
from django_blobstore.errors import ResourceDeleted, ResourceNotFound, UploadPending
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.upkeep import sweep
from tests.streams import MIB, Stream, content_of, sha384

BUCKET = Namespace("storm")
PATHS = ["a", "b", "c"]
# Two of them are too long to be held in memory, and arrive as files of their own.
CONTENTS = [b"", b"1", content_of(4096), content_of(300_000), content_of(MIB + 1), content_of(MIB + 70_000)]


class Actor:
    """Does `steps` things that `seed` alone decides on; `own_content` is what its own path holds after them."""

    def __init__(self, seed: int, steps: int) -> None:
        self.random = random.Random(seed)
        self.steps = steps
        self.own_path = f"own/{seed}"
        self.own_content: bytes | None = None
        self.store = ManagedStorage()

    def run(self) -> tuple[str, str | None]:
        """Return the own path and the SHA-384 it must have, or None if nothing may be there."""
        for _ in range(self.steps):
            # What another actor removed or is just putting is no error.
            with suppress(ResourceNotFound, UploadPending):
                self._choose()()
        return self.own_path, None if self.own_content is None else sha384(self.own_content)

    def _choose(self) -> Callable[[], object]:
        deeds = {self._put: 6, self._put_own: 3, self._remove: 3, self._remove_own: 1, self._prove: 4}
        deeds |= {self._copy: 2, self._read: 2, sweep: 1}
        return self.random.choices(list(deeds), list(deeds.values()))[0]

    def _put(self) -> None:
        content = self.random.choice(CONTENTS)
        stream = self.random.choice([content, Stream(content, at_most=100_000)])
        check_hash = self.random.choice(["", sha384(content)])
        self.store.put(BUCKET, self._any_path(), stream, check_hash=check_hash)

    def _put_own(self) -> None:
        content = self.random.choice(CONTENTS)
        self.store.put(BUCKET, self.own_path, content)
        self.own_content = content

    def _remove(self) -> None:
        self.store.remove(BUCKET, self._any_path())

    def _remove_own(self) -> None:
        if self.own_content is not None:
            self.own_content = None
            self._surely(lambda: self.store.remove(BUCKET, self.own_path))

    def _prove(self) -> None:
        content = self.random.choice(CONTENTS)
        asked = self.store.put_request(BUCKET, self._any_path(), sha384(content))
        with suppress(ResourceDeleted):
            self.store.proof_of_access_response(proof.answer(content, asked, sha384(content)))

    def _copy(self) -> None:
        self.store.copy(self.store.stat(BUCKET, self._any_path()), BUCKET, self._any_path())

    def _read(self) -> None:
        if self.own_content is not None:
            assert self._surely(lambda: self.store.get(BUCKET, self.own_path).read()) == self.own_content
        self.store.get(BUCKET, self._any_path()).read()

    def _any_path(self) -> str:
        return self.random.choice(PATHS)

    def _surely(self, work: Callable[[], object]) -> object:
        """Do what nobody else can be in the way of: the own path's business."""
        try:
            return work()
        except (ResourceNotFound, UploadPending) as error:
            raise AssertionError(f"{self.own_path!r} was stored and is lost: {error}") from error


def act(seed: str, steps: str) -> None:
    """Be an actor in a process of its own, and print what its own path must hold."""
    print(json.dumps(Actor(int(seed), int(steps)).run()))
