"""The bytes of one object as a Django File that checks them as they pass."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Protocol, Self

from django.core.files.base import File
from django.db import router

from django_blobstore.digests import STORED_ALGORITHMS
from django_blobstore.errors import BlobstoreError
from django_blobstore.models import ManagedResource, Resource
from django_blobstore.offload import in_thread, read_ahead
from django_blobstore.resource_storage import BLOCK_SIZE, BytesFile, ResourceStorage
from django_blobstore.storages.hooks import DamagedFile
from django_blobstore.verification import Verification


class OnDamage(Protocol):
    """Notes that the bytes are wrong, or `missing`, and returns the error to raise."""

    def __call__(self, reason: str, *, missing: bool = False) -> BlobstoreError: ...


class BlobFile(BytesFile):
    """An object's bytes: readable, seekable, a context manager.

    `size` is in bytes, `sha384` in hex; `managed` is the object's row. A read from the start to the end is checked
    against the SHA-384, or where that takes less time the SHA-256 of the same bytes (see `Verification`): if it
    differs, the last block is not handed out and `ContentDamaged` is raised. Reading goes on when the content is moved
    to another storage meanwhile.
    """

    def __init__(self, managed: ManagedResource, file: File[bytes], *, on_damage: OnDamage) -> None:
        super().__init__(file, managed.path)
        self._file = file
        self.managed = managed
        self.size = managed.resource.length
        self.sha384 = managed.resource.sha384
        self.content_type = managed.content_type
        self._on_damage = on_damage
        self._hashes = {name: value for name in STORED_ALGORITHMS if (value := getattr(managed.resource, name))}
        self._check = Verification(self._hashes)
        # `_ahead` are the bytes between `_position`, where the caller is, and `_fetched`, where the file is.
        self._position = self._fetched = 0
        self._ahead = b""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, or all that are left; fewer only at the end."""
        wanted = self._available(size)
        self._fill(wanted)
        block, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
        self._position += len(block)
        return block

    def read1(self, size: int | None = -1) -> bytes:
        """Return some of the next bytes, at most `size`: as many as there are without copying; none only at the end."""
        wanted = self._available(size)
        if wanted and not self._ahead:
            self._ahead = self._fetch_piece(wanted)
        return self.read(min(wanted, len(self._ahead)))

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` with the next bytes and return how many they are; less than its length only at the end."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def readline(self, size: int | None = -1) -> bytes:
        """Return the rest of the line with its ``b"\\n"``, or its next `size` bytes if those are fewer."""
        limit = self.size if size is None or size < 0 else size
        while b"\n" not in self._ahead and len(self._ahead) < limit and self._fetched < self.size:
            more = max(len(self._ahead), io.DEFAULT_BUFFER_SIZE)
            self._fill(len(self._ahead) + min(more, self.size - self._fetched))
        end = self._ahead.find(b"\n") + 1 or len(self._ahead)
        return self.read(min(end, limit))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from the start in blocks of `chunk_size`, or of up to 1 MiB as the storage gives them."""
        self.seek(0)
        following = partial(self.read, chunk_size) if chunk_size else partial(self.read1, BLOCK_SIZE)
        yield from iter(following, b"")

    async def aread(self, size: int | None = -1) -> bytes:
        """`read` for coroutines; one at a time."""
        return await in_thread(partial(self.read, size))

    def achunks(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """`chunks` for coroutines, in blocks of 1 MiB by default; each is read while the one before is made use of."""
        return read_ahead(self.chunks(chunk_size or BLOCK_SIZE), self.size)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.achunks()

    async def aclose(self) -> None:
        """`close` for coroutines. It may take a round trip if not everything was fetched."""
        if self._fetched < self.size:
            await in_thread(self.close)
        else:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"Cannot seek to {start + offset}, before the start.")
        if start + offset != self._position:
            self._move(start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return not self.closed

    def writable(self) -> bool:
        return False

    def write(self, *_: object) -> int:
        raise io.UnsupportedOperation("Stored bytes never change; put others.")

    def writelines(self, *_: object) -> None:
        self.write()

    def truncate(self, *_: object) -> int:
        return self.write()

    def seekable(self) -> bool:
        return not self.closed

    def _available(self, size: int | None) -> int:
        left = max(self.size - self._position, 0)
        return left if size is None or size < 0 else min(size, left)

    def _move(self, position: int) -> None:
        self._file.seek(position)
        self._position = self._fetched = position
        self._ahead = b""
        if position == 0:
            self._check = Verification(self._hashes)

    def _fill(self, length: int) -> None:
        """Have the next `length` bytes of the file ahead, or as many of them as there are before an error."""
        if length and not self._ahead:
            self._ahead = self._fetch_piece(length)
        if len(self._ahead) >= length:
            return
        joined = io.BytesIO()
        joined.write(self._ahead)
        try:
            while missing := length - joined.tell():
                joined.write(self._fetch_piece(missing))
        finally:
            # Whoever tries again after a broken connection must not miss what came before.
            self._ahead = joined.getvalue()

    def _fetch_piece(self, size: int) -> bytes:
        """Return up to `size` of the file's next bytes, checked if all before them were; the last only if sound."""
        piece = self._read_piece(min(size, BLOCK_SIZE))
        end = self._fetched + len(piece)
        if self._check.length == self._fetched:
            self._check.update(piece)
        if self._check.length == end == self.size and not self._check.succeeds():
            self._file.seek(self._fetched)
            raise self._on_damage("its bytes have another hash")
        self._fetched = end
        return piece

    def _read_piece(self, size: int) -> bytes:
        cause: Exception | None = None
        try:
            # Storages of ours can spare a copy. Others may decode in `read`, and know nothing of `read1`.
            piece: bytes = getattr(self._file, "read1", self._file.read)(size)
            if piece:
                return piece
            problem = f"its file ends {self.size - self._fetched} bytes early"
        except FileNotFoundError as error:
            cause, problem = error, "its file is missing"
        except DamagedFile as error:
            cause, problem = error, "its file is not whole"
        except OSError:
            # It may be anywhere now.
            self._file.seek(self._fetched)
            raise
        if self._follow():
            return self._read_piece(size)
        raise self._on_damage(problem, missing=isinstance(cause, FileNotFoundError)) from cause

    def _follow(self) -> bool:
        """Go on in another file if the content has one by now: it was moved, and the old file deleted."""
        known = self.managed.resource
        resources = Resource.objects.using(router.db_for_write(Resource)).sound()
        resource = resources.filter(pk=known.pk).exclude(path=known.path).first()
        if resource is None:
            return False
        self.managed.resource = resource
        try:
            moved = ResourceStorage(resource.storage).get(resource.path, resource.length, start=self._fetched)
        except FileNotFoundError:
            return self._follow()
        moved.seek(self._fetched)
        self._file.close()
        self.file = self._file = moved
        return True
