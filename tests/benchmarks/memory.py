"""How much memory a gigabyte takes on its way in and out, and how long the server works on its proof.

Run ``python -m tests.benchmarks memory``, or ``python -m tests.benchmarks.memory [MiB]`` for another length. Each row
says how far the peak resident memory of the process that does the work grows above what it had before; a small piece of
the same work is done first. Linux only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.duel import Options, Row, table
from tests.benchmarks.ground import MIB, Bytes, deployment, peak_mib, reset_peak


def rows(options: Options, length: int = 1024 * MIB) -> Iterator[Row]:
    with deployment() as directory:
        sha384 = yield from rows_of_python_api(length)
        yield row_of_proof(length, sha384)
        yield from rows_of_moves(directory, length)
        yield from rows_of_http(directory, length)


def rows_of_python_api(length: int) -> Generator[Row, None, str]:
    from django_blobstore.managed import ManagedStorage

    store = ManagedStorage()
    put_and_get(store, "warm", 8 * MIB)
    yield measured("Python put", length, lambda: store.put_for_bucket("b", "big", Bytes(length)), at_most=32)
    yield measured("Python get", length, lambda: read_all(store.get_for_bucket("b", "big")), at_most=12)
    storage = store.resource_storage
    yield measured("storage put (GridFS alone)", length, lambda: storage.put("alone", Bytes(length)), at_most=32)
    return store.get_for_bucket("b", "big").sha384


def row_of_proof(length: int, sha384: str) -> Row:
    from django_blobstore.managed import ManagedStorage, PutResponse
    from django_blobstore.proof import answer

    store = ManagedStorage()
    with store.get_for_bucket("b", "big") as holder:
        request = store.put_for_bucket_request("b", "claimed", sha384)
        proof: PutResponse = answer(holder, request, sha384)
    return measured("proof, the server's work", 0, lambda: store.proof_of_access_response(proof))


def rows_of_moves(directory: Path, length: int) -> Iterator[Row]:
    """Move the one large content to files and back."""
    from django.conf import settings
    from django.test import override_settings

    from django_blobstore.models import Resource
    from django_blobstore.moving import move_contents

    files = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(directory / "files")},
    }
    with override_settings(STORAGES={**settings.STORAGES, "files": files}):
        for source, target, most in (("blobstore", "files", 16), ("files", "blobstore", 40)):
            move_contents(source, target, among=Resource.objects.filter(length__lt=length))  # to be warm
            yield measured(
                f"move from {source} to {target}", length, partial(move_contents, source, target), at_most=most
            )


def rows_of_http(directory: Path, length: int) -> Iterator[Row]:
    from django.contrib.auth import get_user_model
    from rest_framework.authtoken.models import Token

    from django_blobstore.models import Bucket
    from tests.servers import GUNICORN, UVICORN, site

    user = get_user_model().objects.create_superuser("admin")
    token = Token.objects.create(user=user).key
    Bucket.objects.create(name="http", owner=user)
    bucket = Bucket.objects.get(name="http").uuid
    body = directory / "body"
    for name, server, most in (("WSGI, gunicorn gthread", GUNICORN, 12), ("ASGI, uvicorn", UVICORN, 20)):
        with site(server) as served:
            worker = (psutil.Process(served.process.pid).children() or [psutil.Process(served.process.pid)])[-1].pid
            for warm, size in ((True, 8 * MIB), (False, length)):
                write_body(body, size)
                url = f"{served.url}/api/buckets/{bucket}/objects/{secrets.token_hex(4)}"
                up = curl(token, "-T", str(body), url)
                down = curl(token, "-o", "/dev/null", url)
                if warm:
                    up(), down()
                else:
                    yield measured(f"PUT, {name}", length, up, worker, at_most=32)
                    yield measured(f"GET, {name}", length, down, worker, at_most=most)


def measured(
    work: str, length: int, do: Callable[[], Any], pid: int | str = "self", *, at_most: float | None = None
) -> Row:
    """Do it once and return how far the peak memory of the process `pid` rose, and how long it took."""
    reset_peak(pid)
    before = peak_mib(pid)
    began = time.perf_counter()
    do()
    seconds = time.perf_counter() - began
    time_taken = f"{seconds:.2f} s" + (f", {length / MIB / seconds:.0f} MiB/s" if length else "")
    return Row(work, "memory before", time_taken, "", peak_mib(pid) - before, "MiB", at_most=at_most)


def put_and_get(store: Any, path: str, length: int) -> None:
    store.put_for_bucket("b", path, Bytes(length))
    read_all(store.get_for_bucket("b", path))


def read_all(blob: Any) -> str:
    with blob:
        return str(sum(len(block) for block in blob.chunks()))


def curl(token: str, *arguments: str) -> Callable[[], Any]:
    command = ["curl", "-sS", "--fail-with-body", "-H", f"Authorization: Token {token}", *arguments]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_body(path: Path, length: int) -> str:
    """Write `length` fresh bytes, so that nothing of them is stored yet."""
    whole = hashlib.sha384()
    with path.open("wb") as file:
        file.write(os.urandom(16))
        source = Bytes(length - 16)
        while block := source.read(MIB):
            file.write(block)
            whole.update(block)
    return whole.hexdigest()


if __name__ == "__main__":
    print(table(rows(Options(), (int(sys.argv[1]) if len(sys.argv) > 1 else 1024) * MIB)))
