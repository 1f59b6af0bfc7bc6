"""When the store counts as healthy, for django-health-check 4 (extra `health`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import Error
from django.db.models.functions import Now
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from django_blobstore.conf import conf
from django_blobstore.models import PendingFile, PendingFileQuerySet, Resource
from django_blobstore.offload import in_thread
from django_blobstore.resource_storage import ResourceStorage, fresh_path


@dataclass
class BlobStore(HealthCheck):  # type: ignore[misc]
    """Asks the catalog and storages for something, and warns of damaged contents and of a sweep that does not come.

    It does not come if a file has been due for `overdue_seconds`. The storage of new files is asked, and those with the
    further `aliases`, which a store that lies in several has: no index says where contents lie.
    """

    overdue_seconds: int = 3600
    aliases: Sequence[str] = ()

    async def run(self) -> None:
        await in_thread(self._ask)

    def _ask(self) -> None:
        damaged, overdue = self._ask_catalog()
        for alias in dict.fromkeys([conf.STORAGE, *self.aliases]):
            _ask_storage(alias)
        if damaged:
            raise ServiceWarning(f"{damaged} contents are damaged: put them again.")
        if overdue:
            raise ServiceWarning(f"{overdue} files should have been deleted: have blobstore_sweep run.")

    def _ask_catalog(self) -> tuple[int, int]:
        try:
            return Resource.objects.damaged().count(), self._overdue().count()
        except Error as error:
            raise ServiceUnavailable("The catalog does not answer.") from error

    def _overdue(self) -> PendingFileQuerySet:
        long_ago = Now() - timedelta(seconds=self.overdue_seconds)
        files = PendingFile.objects
        return files.filter(discard=True, due_at__lt=long_ago) | files.filter(discard=False, lease_until__lt=long_ago)


def _ask_storage(alias: str) -> None:
    try:
        ResourceStorage(alias).storage.exists(fresh_path())
    except Exception as error:
        # A storage may raise anything.
        raise ServiceUnavailable(f"The storage {alias!r} does not answer.") from error
