"""The small sister of the 5 GiB upload in `tests.outside.big_upload`: the same path, the same kills, less of it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import PendingFile
from tests import servers
from tests.conftest import EVERY_PAIR, ON_EVERY_DATABASE, ON_ONE_DATABASE
from tests.invariants import assert_settled, assert_sound
from tests.outside import big_upload
from tests.stored import Stored

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

MEBIBYTES = 192
WORKER_MEBIBYTES = 150


@pytest.mark.parametrize("database", ON_EVERY_DATABASE if EVERY_PAIR else ON_ONE_DATABASE, indirect=True)
@pytest.mark.parametrize("storage_kind", ["gridfs"])
def test_a_long_upload_survives_two_killed_workers_in_little_memory(database: str, stored: Stored) -> None:
    user = User.objects.create_superuser(big_upload.USER, password=big_upload.PASSWORD)
    file = big_upload.Numbered(MEBIBYTES)
    with servers.site(servers.GUNICORN) as site:
        figures = big_upload.upload(site, file, "big")
    managed = ManagedStorage().stat(Namespace(user=str(user.pk)), "big")
    assert (managed.resource.sha384, managed.resource.length) == (file.sha384(), file.length)
    assert len(figures.killed) == 2
    assert figures.peak < WORKER_MEBIBYTES
    assert_sound(stored)
    assert_settled(stored)
    assert not PendingFile.objects.exists()
