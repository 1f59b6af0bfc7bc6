"""The bytes of one object as a Django File that checks them as they pass."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Protocol

from django.core.files.base import File

from django_blobstore.errors import BlobstoreError
from django_blobstore.models import ManagedResource
from django_blobstore.resource_storage import BLOCK_SIZE, BytesFile
from django_blobstore.storages.hooks import DamagedFile


class OnDamage(Protocol):
    """Notes that the bytes are wrong, or `missing`, and returns the error to raise."""

    def __call__(self, reason: str, *, missing: bool = False) -> BlobstoreError: ...


class BlobFile(BytesFile):
    """An object's bytes: readable, seekable, a context manager.

    `size` is in bytes, `sha384` in hex; `managed` is the object's row. A read from the start to the end is checked
    against the SHA-384: if it differs, the last block is not handed out and `ContentDamaged` is raised.
    """

    def __init__(self, managed: ManagedResource, file: File[bytes], *, on_damage: OnDamage) -> None:
        super().__init__(file, managed.path)
        self._file = file
        self.managed = managed
        self.size = managed.resource.length
        self.sha384 = managed.resource.sha384
        self.content_type = managed.content_type
        self._on_damage = on_damage
        # `_ahead` are the bytes between `_position`, where the caller is, and `_fetched`, where the file is.
        self._position = self._fetched = self._hashed = 0
        self._ahead = b""
        self._hash = hashlib.sha384(usedforsecurity=False)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, or all that are left; fewer only at the end."""
        left = max(self.size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        block = self._ahead[:wanted]
        if len(block) < wanted:
            block += self._fetch(wanted - len(block))
        self._ahead = self._ahead[wanted:]
        self._position += len(block)
        return block

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
            self._ahead += self._fetch(min(more, self.size - self._fetched))
        end = self._ahead.find(b"\n") + 1 or len(self._ahead)
        return self.read(min(end, limit))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from the start in blocks of `chunk_size` (1 MiB by default)."""
        self.seek(0)
        while block := self.read(chunk_size or BLOCK_SIZE):
            yield block

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

    def _move(self, position: int) -> None:
        self._file.seek(position)
        self._position = self._fetched = position
        self._ahead = b""
        if position == 0:
            self._hash, self._hashed = hashlib.sha384(usedforsecurity=False), 0

    def _fetch(self, size: int) -> bytes:
        """Return the next `size` bytes of the file, hashed if all before them were; the last ones only if sound."""
        try:
            block = self._read_filled(size)
        except OSError:
            # Whoever tries again must not miss what came before the failure.
            self._file.seek(self._fetched)
            raise
        if self._fetched == self._hashed:
            self._hash.update(block)
            self._hashed += len(block)
            if self._hashed == self.size and self._hash.hexdigest() != self.sha384:
                raise self._on_damage("its bytes have another hash")
        self._fetched += len(block)
        return block

    def _read_filled(self, size: int) -> bytes:
        parts = []
        missing = size
        while missing:
            try:
                part = self._file.read(missing)
            except FileNotFoundError as error:
                raise self._on_damage("its file is missing", missing=True) from error
            except DamagedFile as error:
                raise self._on_damage("its file is not whole") from error
            if not part:
                raise self._on_damage(f"its file ends {missing} bytes early")
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
