"""How a file gets into the store: a proof where the store has the content, else its bytes, in parts if it is long."""

from __future__ import annotations

import base64
import errno
import hashlib
import mimetypes
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from django_blobstore.client.memory import Hashes, Look, Uploads
from django_blobstore.client.outcomes import OnProgress, Outcome, no_progress
from django_blobstore.client.places import Place
from django_blobstore.client.problems import ClientError, ContentDiffers, Refused
from django_blobstore.client.transport import BLOCK_SIZE, Patience, Transport
from django_blobstore.proof import RequestResponse, answer

# From this length on a content is sent in parts, and goes on after a break.
LARGE = 64 * 1024 * 1024
PART = 32 * 1024 * 1024

# Answers to a put request, or to a proof, that mean: send the bytes.
_SEND_IT = {
    "resource-not-found",
    "upload-pending",
    "too-many-failures",
    "throttled",
    "request-not-found",
    "request-expired",
    "response-mismatch",
    "resource-deleted",
}
_PART_TYPE = "application/offset+octet-stream"
_TUS = {"Tus-Resumable": "1.0.0"}


class Turns:
    """Has files of the same content wait for the first of them, whose bytes then are those of all."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def at(self, sha384: str) -> Iterator[None]:
        with self._lock:
            turn, waiting = self._taken.get(sha384, (threading.Lock(), 0))
            self._taken[sha384] = turn, waiting + 1
        try:
            with turn:
                yield
        finally:
            self._leave(sha384)

    def _leave(self, sha384: str) -> None:
        with self._lock:
            turn, waiting = self._taken.pop(sha384)
            if waiting > 1:
                self._taken[sha384] = turn, waiting - 1


@dataclass(frozen=True)
class Sender:
    """Puts files: `large` is the length in bytes from which on they are sent in parts of `part` bytes."""

    transport: Transport
    uploads: Uploads
    hashes: Hashes
    turns: Turns
    large: int = LARGE
    part: int = PART

    def put(
        self, file: Path, place: Place, *, content_type: str = "", on_progress: OnProgress = no_progress
    ) -> Outcome:
        """Put `file` at `place` and return what is there then.

        Raises `OSError` for a file that cannot be read, `ContentDiffers` if it changed meanwhile, `Refused` and
        `Unreachable`.
        """
        content_type = content_type or guess_type(place.path)
        _require_regular(file)
        with file.open("rb") as stream:
            look = Look.at(file, os.fstat(stream.fileno()))
            return _Put(self, place.require_path(), look, stream, content_type, on_progress).run()


class _Put:
    """One file on its way."""

    def __init__(
        self, sender: Sender, place: Place, look: Look, stream: BinaryIO, content_type: str, on_progress: OnProgress
    ) -> None:
        self.sender = sender
        self.transport = sender.transport
        self.place = place
        self.look = look
        self.stream = stream
        self.content_type = content_type
        self.on_progress = on_progress
        self.sent = 0

    def run(self) -> Outcome:
        self.sha384, self.length = self._hashed()
        with self.sender.turns.at(self.sha384):
            found = self._proven()
            if found:
                return Outcome(self.place.address, "proven", 0, found)
            return self._sent_in_parts() if self.length >= self.sender.large else self._sent()

    def _hashed(self) -> tuple[str, int]:
        """Return the SHA-384 and the length of the file; to read a large one takes longer than to prove it."""
        if self.look.size < self.sender.large:
            return hash_of(self.stream, self._tell)
        known = self.sender.hashes.find(self.look)
        if known:
            return known, self.look.size
        sha384, length = hash_of(self.stream, self._tell)
        self.sender.hashes.keep(self.look, sha384)
        return sha384, length

    def _proven(self) -> dict[str, Any] | None:
        """Return the object once the store has seen that we hold the content; None if it wants the bytes."""
        wanted = {"path": self.place.path, "sha384": self.sha384, "content_type": self.content_type}
        try:
            asked = self.transport.post(f"{self.place.route}/put-requests/", wanted, final=_SEND_IT)
            request = _request_of(asked)
            proof = answer(self.stream, request, self.sha384).sha384
            # Sent twice, the second is refused, and then the bytes are sent.
            document = {"proof": proof}
            return self.transport.post(f"put-requests/{request.request_id}/", document, final=_SEND_IT)
        except Refused as error:
            if error.code in _SEND_IT:
                return None
            raise
        except EOFError as error:
            raise self._changed() from error

    def _sent(self) -> Outcome:
        headers = {"Content-Length": str(self.length), "X-Content-SHA384": self.sha384}
        if self.content_type:
            headers["Content-Type"] = self.content_type
        answered = self.transport.request("PUT", self.place.url, headers=headers, body=lambda: self._pieces(0))
        return self._stored("sent", answered.json())

    def _sent_in_parts(self) -> Outcome:
        uploads, facts = self.sender.uploads, (self.transport.url, self.transport.token, self.place.route)
        memory = uploads.file(*facts, self.place.path, self.sha384)
        upload = uploads.find(memory)
        resumed = self._go_on(upload, memory)
        uploads.forget(memory)
        result = self.transport.post(f"{self.place.route}/stat", {"paths": [self.place.path]})["results"][0]
        if "object" not in result:
            raise Refused(result["status"], result["code"], result["detail"])
        return self._stored("resumed" if resumed else "sent", result["object"])

    def _go_on(self, upload: str, memory: Path) -> bool:
        """Send what the store has not, in the `upload` begun before if it still knows it; return whether it did."""
        offset: int | None = None
        resumed = False
        patience = self.transport.patience()
        while offset != self.length:
            if not upload:
                upload, offset = self._begin(memory), 0
            try:
                if offset is None:
                    offset = self._offset(upload)
                    resumed = resumed or (offset > 0 and not self.sent)
                else:
                    offset = self._send_part(upload, offset)
                    patience.renew()
            except ClientError as error:
                if _is_gone(error) and not self.sent:
                    upload = ""
                else:
                    self._forgive(error, patience, memory)
                offset = None
        return resumed

    def _forgive(self, error: ClientError, patience: Patience, memory: Path) -> None:
        """Wait until it is time to go on after `error`, or raise it; what cannot go on is not remembered."""
        if _is_gone(error) or (isinstance(error, Refused) and error.code == "hash-mismatch"):
            self.sender.uploads.forget(memory)
            self.sender.hashes.forget(self.look)
        patience.wait(error)

    def _begin(self, memory: Path) -> str:
        said = {"path": self.place.path, "sha384": self.sha384, "content_type": self.content_type}
        said["namespace" if "/" not in self.place.route else "bucket"] = self.place.bucket
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())
        headers = {**_TUS, "Upload-Length": str(self.length), "Upload-Metadata": metadata}
        location = self.transport.request("POST", "uploads/", headers=headers).headers["location"]
        upload = location.rstrip("/").rpartition("/")[2]
        self.sender.uploads.remember(memory, upload)
        return str(upload)

    def _offset(self, upload: str) -> int:
        return int(self.transport.request_once("HEAD", f"uploads/{upload}/", headers=_TUS).headers["upload-offset"])

    def _send_part(self, upload: str, offset: int) -> int:
        """Send the next part and return how many bytes the store has then."""
        end = min(offset + self.sender.part, self.length)
        headers = {
            **_TUS,
            "Upload-Offset": str(offset),
            "Content-Type": _PART_TYPE,
            "Content-Length": str(end - offset),
        }
        answered = self.transport.request_once(
            "PATCH", f"uploads/{upload}/", headers=headers, body=lambda: self._pieces(offset, end)
        )
        return int(answered.headers["upload-offset"])

    def _pieces(self, start: int, end: int | None = None) -> Iterator[bytes]:
        self.stream.seek(start)
        end = self.length if end is None else end
        while start < end:
            self._tell("send", start, self.length)
            piece = self.stream.read(min(BLOCK_SIZE, end - start))
            if not piece:
                raise self._changed()
            start += len(piece)
            self.sent += len(piece)
            yield piece
        self._tell("send", end, self.length)

    def _stored(self, how: Literal["sent", "resumed"], found: dict[str, Any]) -> Outcome:
        if found["sha384"] != self.sha384:
            raise ContentDiffers(self.place.address, "it has another content than was sent; somebody else put it")
        return Outcome(self.place.address, how, self.sent, found)

    def _tell(self, stage: str, done: int, total: int) -> None:
        self.transport.check()
        self.on_progress(stage, done, total)

    def _changed(self) -> ContentDiffers:
        return ContentDiffers(self.place.address, "the file became shorter while it was read; put it again")


def hash_of(stream: BinaryIO, on_progress: OnProgress = no_progress) -> tuple[str, int]:
    """Return the SHA-384 of `stream` in hex and its length, read from its beginning."""
    total = stream.seek(0, 2)
    stream.seek(0)
    running, length = hashlib.sha384(usedforsecurity=False), 0
    on_progress("hash", 0, total)
    while piece := stream.read(BLOCK_SIZE):
        running.update(piece)
        length += len(piece)
        on_progress("hash", length, total)
    return running.hexdigest(), length


def _require_regular(file: Path) -> None:
    """Raise `OSError` for a pipe and the like, which can be read only once; a directory says so itself."""
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "It is no regular file; put a file with what comes from it", str(file))


def guess_type(path: str) -> str:
    """Return the media type that the ending of `path` tells, or ""."""
    guessed, encoding = mimetypes.guess_type(path)
    return "" if encoding else guessed or ""


def _is_gone(error: ClientError) -> bool:
    """Whether `error` says that there is no such upload any more."""
    return isinstance(error, Refused) and error.status in (404, 410)


def _request_of(asked: dict[str, Any]) -> RequestResponse:
    return RequestResponse(
        request_id=asked["request_id"],
        range_start=asked["range_start"],
        range_length=asked["range_length"],
        nonce=base64.b64decode(asked["nonce"]),
        ranges=tuple((start, length) for start, length in asked["ranges"]),
        algorithm=asked["algorithm"],
    )
