"""What a project can listen to, and when it hears: after the commit, whatever its receivers do.

What a receiver raises is logged by Django (``django.dispatch``) and goes no further. Where nobody listens nothing is
done. `object_stored`, `object_removed` and `object_served` are sent by the class `ManagedResource`, the others by
`Resource`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.dispatch import Signal

# The object `managed` was put, copied, moved or proved to its path; `managed.was_created` says if none was there.
object_stored = Signal()

# The object that was at the path and in the namespace of `managed` is there no more: removed, or moved elsewhere.
object_removed = Signal()

# No object refers to the content any more: its `sha384` in hex and `length` in bytes, and the `storage` alias and
# `path` of the file, which a sweep deletes once `DELETION_GRACE` is over.
resource_freed = Signal()

# The bytes of `resource` are wrong or, if `missing`, not there. Sent once, not at each read.
resource_damaged = Signal()

# An answer to `request` with bytes of the object `managed` begins, or was handed over to who sends them.
object_served = Signal()


def tell(signal: Signal, sender: type, using: str, **facts: Any) -> None:
    """Send `facts` once the transaction of the database `using` is committed, or now if there is none."""
    if signal.receivers:
        transaction.on_commit(partial(signal.send_robust, sender, **facts), using=using)


def tell_now(signal: Signal, sender: type, **facts: Any) -> None:
    """Send `facts` at once."""
    if signal.receivers:
        signal.send_robust(sender, **facts)
