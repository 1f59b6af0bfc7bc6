"""What a sharded cluster needs of each command, read off those that a replica set is sent: no mongos is at hand."""

from __future__ import annotations

import os
from typing import Any

from django.core.files.base import ContentFile

from django_blobstore.storages import GridFSStorage, gridfs_inventory
from tests.mongo import Commands

SHARD_KEY = [("files_id", 1), ("n", 1)]
LARGE = 3 * 2**20


def use(storage: GridFSStorage) -> None:
    """Do everything that a storage can do."""
    storage.save_named("named", ContentFile(os.urandom(LARGE)))
    storage.save_named("small", ContentFile(b"small"))
    name = storage.save("folder/saved", ContentFile(os.urandom(LARGE)))
    with storage.open(name, "wb") as file:
        file.write(b"replaced")
    for opened in (storage.open("named"), storage.open_named("named", LARGE), storage.open_named("small", 5)):
        with opened as file:
            assert len(file.read()) == file.size
    assert list(storage.read_ranges("named", [(0, 10), (LARGE - 10, 10)]))
    assert storage.exists(name)
    assert storage.listdir("folder") == ([], ["saved"])
    upload = storage._upload("dead", named=True)
    upload.write(bytes(20 * 2**20))
    upload._settle()
    [batch] = gridfs_inventory.fragments(storage)
    [fragment] = batch.fragments
    gridfs_inventory.delete_fragments(storage, fragment.id)
    storage.delete_many(["named", "small", name])


def queries(command: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a command on the chunks asks them by."""
    asked = {
        "find": lambda: [command["filter"]],
        "delete": lambda: [delete["q"] for delete in command["deletes"]],
        "aggregate": lambda: [command["pipeline"][0]["$match"]],
        "insert": lambda: command["documents"],
        "getMore": list,
        "listIndexes": list,
        "createIndexes": list,
    }
    return asked[next(iter(command))]()


def test_each_command_names_the_file_whose_chunks_it_is_about_or_the_order_it_needs(
    storage: GridFSStorage, commands: Commands
) -> None:
    use(storage)
    on_chunks = [event.command for event, sent in zip(commands.events, commands.sent, strict=True) if "chunks" in sent]
    everywhere = []
    for command in on_chunks:
        everywhere += [command for query in queries(command) if "files_id" not in query]
    assert len(on_chunks) > 20
    # To find chunks that nobody knows, all are gone through, in the order of the shard key.
    assert everywhere
    assert {tuple(command["sort"].items()) for command in everywhere} == {tuple(SHARD_KEY)}


def test_no_command_is_part_of_a_transaction_and_all_writes_wait_for_the_majority(
    storage: GridFSStorage, commands: Commands
) -> None:
    use(storage)
    assert not [event for event in commands.events if "startTransaction" in event.command]
    writes = [event.command for event in commands.events if event.command_name in ("insert", "delete", "update")]
    assert {command["writeConcern"]["w"] for command in writes} == {"majority"}


def test_the_chunks_can_be_sharded_by_the_index_that_they_have(storage: GridFSStorage) -> None:
    storage.ensure_indexes()
    unique = [index for index in storage._bucket.chunks.list_indexes() if index.get("unique")]
    assert [list(index["key"].items()) for index in unique] == [SHARD_KEY]


def test_the_ids_of_files_of_the_store_do_not_grow_with_time() -> None:
    # Ids that do would all be written to the same shard.
    ids = [gridfs_inventory.named_id(f"blobs/{number}") for number in range(10)]
    assert ids != sorted(ids)
