"""Django storage classes of this package, and what the catalog needs of any other one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django_blobstore.storages.gridfs import GridFSStorage

if TYPE_CHECKING:
    from django_blobstore.blob_storage import BlobStorage

__all__ = ["BlobStorage", "GridFSStorage"]


def __getattr__(name: str) -> Any:
    # It stands on the catalog, which stands on this package; whoever names it has both.
    if name == "BlobStorage":
        return import_module("django_blobstore.blob_storage").BlobStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
