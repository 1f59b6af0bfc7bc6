"""What an inventory of a bucket says of a server that cannot be asked, and that it then leaves all as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_blobstore.storages import GridFSStorage, gridfs_inventory
from django_blobstore.storages.gridfs_bucket import named_id
from tests.mongo import failing

VERBS: dict[str, Callable[[GridFSStorage], Any]] = {
    "lengths": lambda storage: gridfs_inventory.lengths(storage, ["content"]),
    "fragments": lambda storage: list(gridfs_inventory.fragments(storage)),
    "delete_fragments": lambda storage: gridfs_inventory.delete_fragments(storage, named_id("content")),
}
COMMANDS = ["find", "aggregate", "delete"]


@pytest.fixture
def storage(storage: GridFSStorage) -> GridFSStorage:
    """A storage with nothing but what an upload that died left of "content"."""
    upload = storage._upload("content", named=True)
    upload.write(bytes(20 * 2**20))
    upload._settle()
    return storage


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"closeConnection": True}, ConnectionError),
        ({"errorCode": 10107}, ConnectionError),
        ({"errorCode": 50}, TimeoutError),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_server_that_fails_is_told_as_an_os_error(
    storage: GridFSStorage, mongo_uri: str, verb: str, fault: dict[str, Any], error: type[OSError]
) -> None:
    count = storage._bucket.chunks.count_documents({})
    with failing(mongo_uri, *COMMANDS, **fault), pytest.raises(error):
        VERBS[verb](storage)
    assert storage._bucket.chunks.count_documents({}) == count > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_connection_that_breaks_once_is_not_noticed(storage: GridFSStorage, mongo_uri: str, command: str) -> None:
    with failing(mongo_uri, command, mode={"times": 1}, closeConnection=True) as end:
        [batch] = gridfs_inventory.fragments(storage)
        [fragment] = batch.fragments
        assert gridfs_inventory.delete_fragments(storage, fragment.id)
        assert end() == 1
    assert storage._bucket.chunks.count_documents({}) == 0
