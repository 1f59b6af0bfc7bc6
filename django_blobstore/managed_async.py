"""What coroutines call: the twins of `ManagedStorage`'s methods that never block the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, cast

from django_blobstore.async_streams import AsyncStream, FromLoop, Stoppable, async_blocks
from django_blobstore.blob_file import BlobFile
from django_blobstore.digests import Stream
from django_blobstore.models import ManagedResource
from django_blobstore.namespaces import Namespace
from django_blobstore.offload import in_own_thread, in_thread

IN_MEMORY = 1024 * 1024


class Synchronous(Protocol):
    """The methods that have a twin."""

    def stat(self, namespace: Namespace, path: str) -> ManagedResource: ...

    def get(self, namespace: Namespace, path: str) -> BlobFile: ...

    def open(self, managed: ManagedResource) -> BlobFile: ...

    def put(
        self, namespace: Namespace, path: str, stream: Stream, length: int = -1, **options: Any
    ) -> ManagedResource: ...

    def remove(self, namespace: Namespace, path: str) -> None: ...


class AsyncTwins:
    """`stat`, `get`, `open`, `put` and `remove` for coroutines, with the same arguments, results and errors.

    They work in threads with database connections of their own, which follow `CONN_MAX_AGE`, and so see nothing that a
    transaction of the caller has not committed. A cancelled call ends when the work under way has ended: then it has
    either happened as a whole or not at all.
    """

    async def astat(self: Synchronous, namespace: Namespace, path: str) -> ManagedResource:
        """`stat` for coroutines."""
        return await in_thread(partial(self.stat, namespace, path))

    async def aget(self: Synchronous, namespace: Namespace, path: str) -> BlobFile:
        """`get` for coroutines. Read what it returns with `aread`, `achunks` or ``async for``, in ``async with``."""
        return await in_thread(partial(self.get, namespace, path))

    async def aopen(self: Synchronous, managed: ManagedResource) -> BlobFile:
        """`open` for coroutines."""
        return await in_thread(partial(self.open, managed))

    async def aput(
        self: Synchronous,
        namespace: Namespace,
        path: str,
        stream: Stream | AsyncStream,
        length: int = -1,
        *,
        check_hash: str = "",
        digests: Mapping[str, str] | None = None,
        content_type: str = "",
        metadata: Mapping[str, Any] | None = None,
        create_bucket: bool = True,
    ) -> ManagedResource:
        """`put` for coroutines.

        `stream` may also be an asynchronous iterable of bytes, or have ``await read(n)``: then more than 1 MiB takes a
        thread and a database connection for itself until it is stored. Other streams are read in one of 16 threads.

        Cancelled, it stops reading, and the object is as it was before unless all was read already. The bytes that
        were written are deleted before the cancellation goes on. If that fails, or it is cancelled a second time
        and the process ends, a sweep deletes them.
        """
        options: dict[str, Any] = {"check_hash": check_hash, "digests": digests, "content_type": content_type}
        options |= {"metadata": metadata, "create_bucket": create_bucket}
        put = partial(self.put, namespace, path, length=length, **options)
        blocks = async_blocks(stream)
        if blocks is None:
            given = Stoppable(cast("Stream", stream))
            return await in_thread(partial(put, given), given.stop)
        coming = FromLoop(blocks)
        head = await coming.peek(IN_MEMORY + 1)
        if len(head) <= IN_MEMORY:
            return await in_thread(partial(put, head))
        return await in_own_thread(partial(put, coming), coming.stop)

    async def aremove(self: Synchronous, namespace: Namespace, path: str) -> None:
        """`remove` for coroutines."""
        await in_thread(partial(self.remove, namespace, path))
