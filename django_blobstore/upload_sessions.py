"""Which uploads in parts there are, whose they are, and how long they live, with the files of their parts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any

from django.db import router
from django.db.models.functions import Now
from django.utils import timezone

from django_blobstore.catalog import ResourceCatalog, StoredFile
from django_blobstore.conf import conf
from django_blobstore.descriptions import check_content_type, clean_metadata
from django_blobstore.digests import clean_hash
from django_blobstore.errors import ContentTooLarge, UploadExpired, UploadLocked, UploadNotFound
from django_blobstore.failpoints import reach
from django_blobstore.managed import ManagedStorage
from django_blobstore.models import ResumableUpload, ResumableUploadQuerySet, UploadPart, UploadPartQuerySet
from django_blobstore.namespaces import Namespace, check_key, clean_path
from django_blobstore.parts import Part
from django_blobstore.upkeep import expunge_quietly

# How long who asks is kept waiting for parts to be put together, in seconds: less than proxies wait.
PATIENCE = 45


def begin(
    requester: str,
    *,
    namespace: Namespace | None = None,
    path: str = "",
    length: int | None = None,
    sha384: str = "",
    content_type: str = "",
    metadata: Mapping[str, Any] | None = None,
    said: dict[str, str] | None = None,
) -> ResumableUpload:
    """Write down an upload of `length` bytes, None if that is not known yet, to become the object at `path`.

    Without a `path` it is to be part of another upload; see `concatenate`. `sha384` is in hex. Raises
    `ContentTooLarge`, `InvalidPath`, `InvalidHash`, `InvalidContentType` and `InvalidMetadata`.
    """
    check_length(length)
    namespace = namespace or Namespace()
    upload = known_uploads().create(
        id=token_urlsafe(16),
        requester=check_key(requester, "requester"),
        bucket_id=namespace.bucket_id,
        user=namespace.user,
        path=clean_path(path) if path else "",
        partial=not path,
        length=length,
        scope=ManagedStorage().scope_of(namespace) if path else "",
        sha384=clean_hash(sha384) if sha384 else "",
        content_type=check_content_type(content_type),
        metadata=clean_metadata(metadata),
        said=said or {},
        lease_until=Now() + timedelta(seconds=conf.LEASE),
        expires_at=Now() + _lifetime(),
    )
    reach("resumable.begun")
    upload.refresh_from_db()
    return upload


def find(id: str, requester: str) -> ResumableUpload:
    """Return the upload `id`; while its parts are put together, wait for the outcome.

    Raises `UploadNotFound`, `UploadExpired`, and `UploadLocked` if the outcome takes too long.
    """
    deadline = time.monotonic() + PATIENCE
    while (upload := look_up(id, requester)).is_being_finished:
        if time.monotonic() > deadline:
            raise UploadLocked(id)
        time.sleep(0.25)
    return upload


def end(upload: ResumableUpload) -> None:
    """Forget `upload` and delete its parts; the object that it became stays."""
    files = [part.file for part in stored_parts([upload])]
    ResourceCatalog().transact(known_uploads().filter(pk=upload.pk).end)
    reach("resumable.ended")
    expunge_quietly(files)


def look_up(id: str, requester: str) -> ResumableUpload:
    """Return the upload `id` as it is now. Raises `UploadNotFound` and `UploadExpired`."""
    upload = known_uploads().filter(pk=id, requester=requester).first()
    if upload is None:
        raise UploadNotFound(id)
    if upload.expires_at <= timezone.now():
        raise UploadExpired(id)
    return upload


def extend_half_way(upload: ResumableUpload) -> None:
    """Let `upload` live on, with its parts, once half of its life is over."""
    if upload.expires_at - timezone.now() < _lifetime() / 2:
        extend(known_uploads().filter(pk=upload.pk))
        upload.refresh_from_db(fields=["expires_at"])


def extend(uploads: ResumableUploadQuerySet) -> None:
    """Let `uploads` live on, with their parts."""
    uploads.update(expires_at=Now() + _lifetime())
    known_parts().filter(upload__in=uploads.values("pk")).files().renew(lease_of_parts())


def lease_of_parts() -> timedelta:
    """Return how long the file of a part is kept: longer than the upload, which gives it up when it ends."""
    return timedelta(seconds=conf.UPLOAD_LIFETIME + conf.LEASE)


def known_uploads() -> ResumableUploadQuerySet:
    """Return all uploads, from the database they are written to: a replica may not know the newest yet."""
    return ResumableUpload.objects.using(router.db_for_write(ResumableUpload))


def known_parts() -> UploadPartQuerySet:
    """Return all parts, from where `known_uploads` are."""
    return UploadPart.objects.using(router.db_for_write(UploadPart))


def stored_parts(uploads: Sequence[ResumableUpload]) -> list[Part]:
    """Return the parts of `uploads`, one upload after the other."""
    contents: list[Part] = []
    for upload in uploads:
        files = known_parts().filter(upload=upload.pk).order_by("offset")
        rows = files.values_list("file__storage", "file__path", "file__length")
        contents += [Part(StoredFile(storage, path), length or 0) for storage, path, length in rows]
    return contents


def check_length(length: int | None) -> None:
    """Raise `ContentTooLarge` for more than ``MAX_LENGTH``."""
    if length is not None and conf.MAX_LENGTH is not None and length > conf.MAX_LENGTH:
        raise ContentTooLarge(conf.MAX_LENGTH)


def _lifetime() -> timedelta:
    return timedelta(seconds=conf.UPLOAD_LIFETIME)
