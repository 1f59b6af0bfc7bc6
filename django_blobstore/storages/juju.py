"""How juju's blobstore described, in MongoDB, what its GridFS files are: which content is where, and in which file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from django_blobstore.storages.gridfs import GridFSStorage
from django_blobstore.storages.gridfs_bucket import Document
from django_blobstore.storages.gridfs_errors import told_as_os_errors

BATCH = 1000

# The catalog of places, and that of contents, named by the id that the places have.
PLACES = "managedStoredResources"
CONTENTS = "storedResources"


@dataclass(frozen=True)
class Place:
    """A path of a bucket and/or a user, or of neither, and the GridFS file with its content; a `fault` if none is."""

    bucket: str
    user: str
    path: str
    file: str = ""
    length: int = -1
    sha384: str = ""
    fault: str = ""


def places(storage: GridFSStorage, database: str = "") -> Iterator[Place]:
    """Yield what the catalog in `database`, or else in the storage's own, says is in `storage`, in the order of paths.

    Raises `FileNotFoundError` if no catalog is there.
    """
    own = storage._bucket.database
    catalog = own.client[database] if database else own
    with told_as_os_errors():
        if PLACES not in catalog.list_collection_names(filter={"name": PLACES}):
            raise FileNotFoundError(f"The MongoDB database {catalog.name!r} has no collection {PLACES!r}.")
        found = iter(catalog[PLACES].find(batch_size=BATCH).sort("_id"))
        while batch := list(islice(found, BATCH)):
            ids = [document.get("resourceid") for document in batch]
            contents = {content["_id"]: content for content in catalog[CONTENTS].find({"_id": {"$in": ids}})}
            for document in batch:
                yield _place(document, contents.get(document.get("resourceid")))


def _place(document: Document, content: Document | None) -> Place:
    # Older versions spoke of environments where later ones speak of buckets.
    bucket = document.get("bucketuuid") or document.get("envuuid") or ""
    user = document.get("user") or ""
    prefix = _prefix(document["path"], bucket, user)
    path = document["path"].removeprefix(prefix)
    if content is None or not content.get("path"):
        return Place(bucket, user, path, fault="its content was never uploaded, or is gone from the old catalog")
    # The hash was called otherwise before it was a SHA-384.
    return Place(bucket, user, path, content["path"], int(content["length"]), content.get("sha384hash", ""))


def _prefix(path: str, bucket: str, user: str) -> str:
    """Return the beginning of `path` that says the same as `bucket` and `user` do."""
    of_user = f"users/{user}/" if user else ""
    if bucket:
        return (
            next((start for kind in ("buckets", "environs") if path.startswith(start := f"{kind}/{bucket}/")), "")
            + of_user
        )
    return of_user or "global/"
