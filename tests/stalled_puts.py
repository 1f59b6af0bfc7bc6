"""A process that puts several contents at once, each of which stops arriving at a point and never goes on."""

from __future__ import annotations

import os
import time
from functools import partial

from django_blobstore.managed import ManagedStorage, Namespace
from tests.faults.dying import be_recognisable
from tests.streams import MIB, Stream, content_of
from tests.together import outcomes

BUCKET = Namespace("stalled")
LENGTH = 3 * MIB
# Before the upload has a file; with its first bytes in the storage; in the midst; and with all of them read.
POINTS = [0, MIB + 1, 2 * MIB, LENGTH]


def put_and_stall() -> None:
    """Print a line for each put that got to its point, and wait to be killed."""
    be_recognisable()
    store = ManagedStorage()
    streams = {point: Stream(content_of(LENGTH, point), {point: partial(_stall, point)}) for point in POINTS}
    outcomes(*(partial(store.put, BUCKET, f"at/{point}", stream) for point, stream in streams.items()))


def _stall(point: int) -> None:
    os.write(1, f"{point}\n".encode())  # one call, so that lines of several threads do not mix
    time.sleep(600)
