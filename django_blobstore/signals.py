"""What a project can listen to."""

from __future__ import annotations

from django.dispatch import Signal

# Sent by `Resource` once it is committed that the bytes of `resource` are wrong or, if `missing`, not there. Sent once,
# not at each read; what a receiver raises is logged and goes no further.
resource_damaged = Signal()
