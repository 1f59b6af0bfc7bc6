"""How Django's storage verbs map onto objects, so that a project's FileFields share content and lose none."""

from __future__ import annotations

import io
import mimetypes
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import IO, Any, cast
from urllib.parse import urljoin
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import Storage, storages
from django.db import IntegrityError, connections, transaction
from django.urls import NoReverseMatch, reverse
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri

from django_blobstore import listing, rows
from django_blobstore.blob_file import BlobFile
from django_blobstore.catalog import ResourceCatalog
from django_blobstore.conf import conf
from django_blobstore.descriptions import MAX_TYPE_LENGTH
from django_blobstore.errors import InvalidPath, ResourceNotFound, UploadPending
from django_blobstore.grants import Grant
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace, check_prefix, clean_path
from django_blobstore.resource_storage import BLOCK_SIZE
from django_blobstore.serving import is_media_type
from django_blobstore.storages.stored_file import StoredFile

URL_LIFETIME = 3600
PAGE = 1000
ATTEMPTS = 5


@deconstructible(path="django_blobstore.storages.BlobStorage")
class BlobStorage(Storage):
    """Keeps each file as an object, whose content is shared with every other that is equal.

    Options: `bucket`, a name or UUID, and `user` say in which namespace; `url_lifetime` for how many seconds a signed
    URL is good at least, and for twice as many at most, or None for URLs that only those may read who may read the
    object; `base_url` for URLs of something else that serves the bucket; `allow_overwrite` as FileSystemStorage has it.
    The bytes lie in the storage that ``BLOBSTORE["STORAGE"]`` names, which must be another one.

    Inside a transaction of the catalog's database, what is saved and deleted comes and goes with the transaction. An
    absent file is a FileNotFoundError, and a name that no object can have a SuspiciousFileOperation.
    """

    def __init__(
        self,
        *,
        bucket: str | UUID = "media",
        user: str = "",
        url_lifetime: int | None = URL_LIFETIME,
        base_url: str | None = None,
        allow_overwrite: bool = False,
    ) -> None:
        self.namespace = Namespace(bucket=bucket, user=user)
        self.url_lifetime = url_lifetime
        self.base_url = base_url
        self.allow_overwrite = allow_overwrite

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlobStorage) and other._place == self._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def using(self) -> str:
        """Alias of the database whose transactions saves and deletions come and go with."""
        return ResourceCatalog().using

    def exists(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            return bool(self._stat(name))
        return False

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        if self.allow_overwrite:
            return not (max_length and len(name) > max_length)
        return super().is_name_available(name, max_length=max_length)

    def size(self, name: str) -> int:
        return self._stat(name).resource.length

    def sha384(self, name: str) -> str:
        """Return the SHA-384 of the file in hex, without reading it."""
        return self._stat(name).resource.sha384

    def get_created_time(self, name: str) -> datetime:
        return self._stat(name).created_at

    def get_modified_time(self, name: str) -> datetime:
        return self._stat(name).modified_at

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the folders and the files in `path`, sorted; a folder that nothing is in has none of both."""
        prefix = _folder(path)
        folders, files = [], []
        for page in self._pages(prefix):
            folders += [folder[len(prefix) : -1] for folder in page.prefixes]
            files += [managed.path[len(prefix) :] for managed in page.objects]
        return folders, files

    def delete(self, name: str) -> None:
        """Drop the file's reference to its content; others may have theirs. An absent file is fine."""
        if not name:
            raise ValueError("The name must be given to delete().")
        with suppress(ResourceNotFound):
            self._store.remove(self.namespace, _path(name))

    def release(self, name: str, is_used: Callable[[], bool]) -> None:
        """Delete the file unless it `is_used`; whoever else asks that at the same time waits for our transaction."""
        path, using = _path(name), self.using
        with transaction.atomic(using=using):
            if rows.lock_object(using, self.namespace, path) and not is_used():
                self._store.remove(self.namespace, path)

    def url(self, name: str | None) -> str:
        """Return where the file is served: by `base_url`, or by the REST interface, signed unless told otherwise."""
        path = _path(name or "")
        if self.base_url is not None:
            return urljoin(self.base_url.rstrip("/") + "/", filepath_to_uri(path))
        try:
            return self._signed_url(path) if self.url_lifetime else self._url_of_object(path)
        except NoReverseMatch as error:
            raise ValueError(
                "This file is not accessible via a URL: include 'django_blobstore.rest.urls' in the URLconf, or give "
                "its BlobStorage a 'base_url'."
            ) from error

    @property
    def _place(self) -> tuple[UUID | None, str]:
        return self.namespace.bucket_id, self.namespace.user

    @property
    def _store(self) -> ManagedStorage:
        if isinstance(storages[conf.STORAGE], BlobStorage):
            raise ImproperlyConfigured(
                f"STORAGES[{conf.STORAGE!r}] is a BlobStorage, which keeps no bytes: define STORAGES['blobstore'], or "
                "set BLOBSTORE['STORAGE'] to the alias of a storage that does."
            )
        return ManagedStorage()

    def _stat(self, name: str) -> ManagedResource:
        try:
            return self._store.stat(self.namespace, _path(name))
        except (ResourceNotFound, UploadPending) as error:
            raise _not_found(name) from error

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        kind = mode.replace("t", "")
        if kind in ("w", "wb"):
            return NewBlob(name, self._replace)
        if kind not in ("r", "rb"):
            raise ValueError(f"BlobStorage opens files to read or to write them anew, not with {mode!r}.")
        blob = self._read(name)
        return StoredFile(name, partial(self._read, name), blob) if kind == "rb" else _as_text(name, blob)

    def _read(self, name: str) -> io.BufferedIOBase:
        try:
            return cast("io.BufferedIOBase", self._store.get(self.namespace, _path(name)))
        except (ResourceNotFound, UploadPending) as error:
            raise _not_found(name) from error

    def _save(self, name: str, content: File[Any]) -> str:
        for attempt in range(1, ATTEMPTS + 1):
            path = _path(name)
            try:
                self._put(path, content, None if self.allow_overwrite else _require_free)
            except (FileExistsError, IntegrityError):
                # Somebody else took the name after Django looked.
                if attempt == ATTEMPTS:
                    raise
                name = self.get_available_name(path)
            else:
                return path
        raise AssertionError("unreachable")

    def _replace(self, name: str, content: File[Any]) -> None:
        self._put(_path(name), content, None)

    def _put(self, path: str, content: File[Any], condition: Callable[[ManagedResource | None], object] | None) -> None:
        store = self._store
        store.put(
            self.namespace,
            path,
            ChunksReader(content),
            content_type=_content_type(path, content),
            condition=condition,
            durable=not connections[store.catalog.using].in_atomic_block,
        )

    def _pages(self, prefix: str) -> Iterator[listing.Page]:
        after = ""
        while True:
            page = listing.list_page(self.namespace, prefix=prefix, after=after, limit=PAGE, folders=True)
            yield page
            after = page.next_after
            if not after:
                return

    def _signed_url(self, path: str) -> str:
        lifetime = int(self.url_lifetime or 0)
        # The same for a while, so that browsers can make use of what they have.
        expires = (int(time.time()) // lifetime + 2) * lifetime
        grant = Grant(str(self.namespace.bucket_id or ""), self.namespace.user, expires)
        return conf.CONTENT_HOST + reverse("blobstore:signed-object", kwargs=grant.sign(path))

    def _url_of_object(self, path: str) -> str:
        if self.namespace.bucket_id:
            return reverse("blobstore:bucket-object", kwargs={"bucket": self.namespace.bucket_id, "path": path})
        return reverse(f"blobstore:{'me' if self.namespace.user else 'global'}-object", kwargs={"path": path})


class ChunksReader:
    """What the chunks of a Django `File` give, from its start, as a stream."""

    def __init__(self, content: File[Any]) -> None:
        with suppress(AttributeError, io.UnsupportedOperation):
            content.seek(0)
        self._chunks = iter(content.chunks())
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        """Return some of the next bytes, at most `size`; none only at the end."""
        while not self._ahead:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._ahead = chunk.encode() if isinstance(chunk, str) else chunk
        block, self._ahead = self._ahead[:size], self._ahead[size:]
        return block


class NewBlob(ContentFile):  # type: ignore[type-arg]
    """A file opened for writing, kept aside until `close` has it saved; an error inside its context discards it."""

    def __init__(self, name: str, save: Callable[[str, File[Any]], None]) -> None:
        File.__init__(self, cast("IO[bytes]", tempfile.SpooledTemporaryFile(BLOCK_SIZE)), name)  # noqa: SIM115 - closed by close
        self._save = save
        self.mode = "wb"

    @property
    def size(self) -> int:
        position = self.file.tell()
        try:
            return self.file.seek(0, io.SEEK_END)
        finally:
            self.file.seek(position)

    def write(self, content: Any, /) -> int:
        return self.file.write(content.encode() if isinstance(content, str) else content)

    def close(self) -> None:
        if self.file.closed:
            return
        try:
            self._save(cast("str", self.name), File(self.file))
        finally:
            self.file.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error:
            self.file.close()
        self.close()


def _content_type(path: str, content: File[Any]) -> str:
    said = getattr(content, "content_type", None) or ""
    return said if len(said) <= MAX_TYPE_LENGTH and is_media_type(said) else mimetypes.guess_type(path)[0] or ""


def _as_text(name: str, blob: io.BufferedIOBase) -> File[Any]:
    file = File(cast("IO[Any]", io.TextIOWrapper(blob, encoding="utf-8")), name)
    file.size = cast("BlobFile", blob).size
    return file


def _path(name: str) -> str:
    try:
        return clean_path(str(name).replace("\\", "/"))
    except InvalidPath as error:
        raise SuspiciousFileOperation(str(error)) from error


def _folder(path: str) -> str:
    folder = path.replace("\\", "/").strip("/")
    try:
        return check_prefix(f"{folder}/" if folder not in ("", ".") else "")
    except InvalidPath as error:
        raise SuspiciousFileOperation(str(error)) from error


def _require_free(found: ManagedResource | None) -> None:
    if found:
        raise FileExistsError(found.path)


def _not_found(name: str) -> FileNotFoundError:
    return FileNotFoundError(f"No file {name!r} is stored.")
