"""Django storage classes of this package, and what the catalog needs of any other one."""

from django_blobstore.storages.gridfs import GridFSStorage

__all__ = ["GridFSStorage"]
