"""What is stored, where it lies and how often it is referred to: changed here and nowhere else."""

from django_blobstore.catalog.changes import Change, Condition, Content, Recount, Removed, Returned, StoredFile
from django_blobstore.catalog.resource_catalog import ResourceCatalog

__all__ = ["Change", "Condition", "Content", "Recount", "Removed", "ResourceCatalog", "Returned", "StoredFile"]
