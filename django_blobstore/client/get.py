"""How an object gets out of the store: hashed as it comes, beside its file until it is whole, resumed after breaks."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from django_blobstore.client.outcomes import OnProgress, Outcome, no_progress
from django_blobstore.client.places import Place
from django_blobstore.client.problems import ClientError, ContentDiffers, Refused
from django_blobstore.client.put import hash_of
from django_blobstore.client.transport import BLOCK_SIZE, Transport

# How often an object may be replaced, or turn out to be wrong, while it is fetched.
_BEGINNINGS = 3


class Sink:
    """Takes the bytes of an object one after the other and hashes them."""

    def __init__(self) -> None:
        self._forget()

    def begin(self) -> None:
        """Forget all that came."""
        self._forget()

    def write(self, piece: bytes) -> None:
        self._running.update(piece)
        self.length += len(piece)

    @property
    def sha384(self) -> str:
        return self._running.hexdigest()

    def _forget(self) -> None:
        self.length = 0
        self._running = hashlib.sha384(usedforsecurity=False)


class PartialFile(Sink):
    """A `Sink` that keeps the bytes in `file`, which may have some from before."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        while piece := file.read(BLOCK_SIZE):
            super().write(piece)

    def begin(self) -> None:
        super().begin()
        self._file.seek(0)
        self._file.truncate()

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        super().write(piece)


@dataclass(frozen=True)
class Receiver:
    """Gets objects."""

    transport: Transport

    def stat(self, place: Place) -> dict[str, Any]:
        """Return what the store says of the object at `place`. Raises `Refused`."""
        patience = self.transport.patience()
        while True:
            paths = {"paths": [place.require_path().path]}
            result = self.transport.post(f"{place.route}/stat", paths)["results"][0]
            if "object" in result:
                found: dict[str, Any] = result["object"]
                return found
            patience.wait(Refused(result["status"], result["code"], result["detail"], facts=result))

    def get(
        self,
        place: Place,
        file: Path,
        *,
        found: dict[str, Any] | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Outcome:
        """Write the object at `place` to `file` and return it; `found` is what is known of it, if anything is.

        What is there stays until the object is whole and has its SHA-384; bytes that came before a break are kept
        beside it. Raises `ContentDiffers`, `Refused`, `Unreachable` and `OSError`.
        """
        file = _replaceable(file)
        for _ in range(_BEGINNINGS):
            found = found or self.stat(place)
            if _has(file, found, on_progress):
                return Outcome(place.address, "unchanged", 0, found, file)
            try:
                with _partial_file(file, found) as sink:
                    begun = sink.length
                    received = self._receive(place, found, sink, on_progress)
            except Refused as error:
                if error.code == "content-damaged":  # what came before is not to be trusted either
                    _beside(file, found).unlink()
                raise
            if received is not None:
                os.replace(_beside(file, found), file)
                return Outcome(place.address, "resumed" if begun else "received", received, found, file)
            _beside(file, found).unlink()
            found = None
        raise self._unsteady(place)

    def verify(self, place: Place, *, on_progress: OnProgress = no_progress) -> Outcome:
        """Read the object at `place` and see that its bytes have its SHA-384. Raises what `get` does."""
        for _ in range(_BEGINNINGS):
            found = self.stat(place)
            received = self._receive(place, found, Sink(), on_progress)
            if received is not None:
                return Outcome(place.address, "verified", received, found)
        raise self._unsteady(place)

    def _receive(self, place: Place, found: dict[str, Any], sink: Sink, on_progress: OnProgress) -> int | None:
        """Have `sink` hold the object and return how many bytes came; None if it has been replaced or is not right."""
        patience = self.transport.patience()
        received = 0
        if sink.length > found["length"]:
            sink.begin()
        while sink.length < found["length"]:
            before = sink.length
            try:
                self._receive_once(place, found, sink, on_progress)
            except ClientError as error:
                if isinstance(error, Refused) and error.status in (412, 416):
                    return None
                if sink.length > before:
                    patience.renew()
                patience.wait(error)
            finally:
                received += max(0, sink.length - before)
        return received if sink.sha384 == found["sha384"] else None

    def _receive_once(self, place: Place, found: dict[str, Any], sink: Sink, on_progress: OnProgress) -> None:
        tag = f'"{found["sha384"]}"'
        headers = {"If-Match": tag}
        if sink.length:
            headers |= {"Range": f"bytes={sink.length}-", "If-Range": tag}
        with self.transport.download(place.url, headers) as response:
            if not _goes_on(response, sink.length):
                sink.begin()
            for piece in response.iter_raw(BLOCK_SIZE):
                self.transport.check()
                sink.write(piece)
                on_progress("receive", sink.length, found["length"])

    def _unsteady(self, place: Place) -> ContentDiffers:
        reason = f"its bytes did not have its SHA-384 {_BEGINNINGS} times in a row; put a good copy, which heals it"
        return ContentDiffers(place.address, reason)


def _goes_on(response: httpx2.Response, length: int) -> bool:
    told: str = response.headers.get("content-range", "")
    return response.status_code == 206 and told.startswith(f"bytes {length}-")


def _replaceable(file: Path) -> Path:
    """Return `file`, or what it is a link to. Raises `FileExistsError` for a directory, a device and the like."""
    if file.exists() and not file.is_file():
        reason = "It is there and is no regular file; `blobstore verify` reads an object without writing it"
        raise FileExistsError(errno.EEXIST, reason, str(file))
    return file.resolve() if file.is_symlink() else file


def _has(file: Path, found: dict[str, Any], on_progress: OnProgress) -> bool:
    if not file.is_file() or file.stat().st_size != found["length"]:
        return False
    with file.open("rb") as stream:
        return bool(hash_of(stream, on_progress)[0] == found["sha384"])


def _beside(file: Path, found: dict[str, Any]) -> Path:
    """Return where the bytes of the object are until they are whole; other content has another place."""
    # A name has 255 bytes at most.
    name = os.fsdecode(os.fsencode(file.name)[:200])
    return file.with_name(f".{name}.{found['sha384'][:16]}.part")


@contextmanager
def _partial_file(file: Path, found: dict[str, Any]) -> Iterator[PartialFile]:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not "ab+", which would write at the end wherever we are.
    descriptor = os.open(_beside(file, found), os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+b") as stream:
        yield PartialFile(stream)
