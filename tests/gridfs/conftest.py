"""A GridFS bucket of its own for each test, seen by our storage and by the stock driver."""

from __future__ import annotations

from collections.abc import Callable

import gridfs
import pytest

from django_blobstore.storages import GridFSStorage
from tests.mongo import Commands
from tests.stored import Stored, StoredInGridFS


@pytest.fixture
def bucket(make_stored: Callable[[str], Stored]) -> StoredInGridFS:
    stored = make_stored("gridfs")
    assert isinstance(stored, StoredInGridFS)
    return stored


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def storage(bucket: StoredInGridFS, commands: Commands) -> GridFSStorage:
    return GridFSStorage(**bucket.options["OPTIONS"], client_options={"event_listeners": [commands]})


@pytest.fixture
def stock(storage: GridFSStorage, bucket: StoredInGridFS) -> gridfs.GridFSBucket:
    return gridfs.GridFSBucket(storage._bucket.database, bucket.namespace)
