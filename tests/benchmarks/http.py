"""What a request costs over HTTP, from the first byte of its head to the last of its answer, against other servers.

All run on this machine, beside the client: gunicorn with one worker per core and eight threads each, for the REST
interface with a token and PostgreSQL, and for plain views over stock GridFS; Debian's docker-registry; and nginx.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

import psutil

from example_project import processes
from tests.benchmarks.client import Connection, Crowd, request
from tests.benchmarks.duel import Options, Row, duel, shown
from tests.benchmarks.ground import MIB, deployment

BIG = 64 * MIB
SMALL = 4096
CONNECTIONS = 8
REQUESTS = 400
GTHREAD = (f"--workers={os.cpu_count()}", "--keep-alive=600")
REGISTRY = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}}}, cache: {{blobdescriptor: inmemory}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def rows(options: Options) -> Iterator[Row]:
    with deployment(postgresql=True, DELETION_GRACE=0) as directory, ExitStack() as servers:
        ours = servers.enter_context(our_site(options))
        stock = servers.enter_context(stock_site(options))
        yield from against_stock(ours, stock, options.rounds)
        if shutil.which("docker-registry"):
            registry = servers.enter_context(docker_registry(directory / "registry", options))
            yield from against_registry_big(ours, registry, options.rounds)
            yield from against_registry_small(ours, registry, options.rounds)
            yield against_nothing(ours, stock, options.rounds)
        else:
            _left_out("docker-registry")
        yield from against_nginx(directory, options)


def against_stock(ours: Ours, stock: Stock, rounds: int) -> Iterator[Row]:
    new = New(BIG)
    ours.put("big", new.body)
    file_id = stock.store(new.body)
    for view, against, at_least in (
        ("stream", "Django view over stock GridOut", 1.3),
        ("file", "FileResponse(GridOut)", 3.5),
    ):
        theirs = request("GET", f"{stock.url}/{view}/{file_id}")
        yield duel(
            "GET 64 MiB",
            lambda: ours.get("big"),
            lambda theirs=theirs: stock.connection.send(theirs),
            against=against,
            at_least=at_least,
            rounds=rounds,
        )
    yield first_byte(ours, stock, file_id, rounds)
    yield duel(
        "PUT 64 MiB, hashed",
        lambda: ours.put("new", new.body),
        lambda: stock.put("new", new.body),
        against="the same view on stock GridFSBucket",
        at_least=1.35,
        rounds=rounds,
        between=lambda: (ours.delete("new"), stock.clear("new"), new.renew()),
    )


def against_registry_big(ours: Ours, registry: Registry, rounds: int) -> Iterator[Row]:
    new = New(BIG)
    kept = request("GET", registry.blob_url(new.sha256))
    registry.put(registry.connection, new)
    yield duel(
        "GET 64 MiB",
        lambda: ours.get("big"),
        lambda: registry.connection.send(kept),
        against="docker-registry",
        at_least=0.45,
        rounds=rounds,
    )
    yield duel(
        "PUT 64 MiB, hashed",
        lambda: ours.put("new", new.body),
        lambda: registry.put(registry.connection, new),
        against="docker-registry",
        at_least=0.9,
        rounds=rounds,
        between=lambda: (ours.delete("new"), registry.clear(), new.renew()),
    )


def against_registry_small(ours: Ours, registry: Registry, rounds: int) -> Iterator[Row]:
    news = [New(SMALL) for _ in range(REQUESTS)]
    for number, new in enumerate(news):
        ours.put(f"small/{number}", new.body)
        registry.put(registry.connection, new)
    our_gets = [ours.head("GET", f"small/{number}") for number in range(REQUESTS)]
    their_gets = [request("GET", registry.blob_url(new.sha256)) for new in news]
    our_puts = [ours.head("PUT", f"new/{number}", SMALL) for number in range(REQUESTS)]

    def renew() -> None:
        for number, new in enumerate(news):
            ours.delete(f"new/{number}")
            new.renew()

    with Crowd(ours.url, CONNECTIONS) as our_crowd, Crowd(registry.url, CONNECTIONS) as their_crowd:
        yield per_second(
            duel(
                "GET 4 KiB, 8 connections",
                lambda: our_crowd.share(our_gets, Connection.send),
                lambda: their_crowd.share(their_gets, Connection.send),
                against="docker-registry",
                at_least=1.2,
                rounds=rounds,
            )
        )
        yield per_second(
            duel(
                "PUT 4 KiB, 8 connections",
                lambda: our_crowd.share(list(zip(our_puts, news, strict=True)), put_small),
                lambda: their_crowd.share(news, registry.put),
                against="docker-registry (POST + PUT)",
                at_least=1.0,
                rounds=rounds,
                between=renew,
            )
        )


def against_nothing(ours: Ours, stock: Stock, rounds: int) -> Row:
    """Compare a small GET with a request that finds out who asks, and does nothing: nobody can be faster than that."""
    ours.put("small/one", New(SMALL).body)
    gets = [ours.head("GET", "small/one")] * REQUESTS
    nothings = [request("GET", f"{stock.url}/nothing", token=ours.token)] * REQUESTS
    with Crowd(ours.url, CONNECTIONS) as our_crowd, Crowd(stock.url, CONNECTIONS) as their_crowd:
        return per_second(
            duel(
                "GET 4 KiB, 8 connections",
                lambda: our_crowd.share(gets, Connection.send),
                lambda: their_crowd.share(nothings, Connection.send),
                against="a REST framework view that only checks the token",
                rounds=rounds,
            )
        )


def against_nginx(directory: Path, options: Options) -> Iterator[Row]:
    from django.conf import settings
    from django.test import override_settings

    from tests.nginx import NGINX, TO_SITE, nginx

    if not NGINX:
        _left_out("nginx-light")
        return
    files = directory / "files"
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(files)}}
    storages = settings.STORAGES | {"files": storage}
    blobstore = settings.BLOBSTORE | {"STORAGE": "files"}
    handing_over = {"SERVE_METHOD": "x-accel", "SERVE_LOCATION": {"files": "/kept/"}}
    locations = f"location /kept/ {{ internal; alias {files}/; }} location /static/ {{ alias {files}/; }} {TO_SITE}"
    with (
        override_settings(STORAGES=storages, BLOBSTORE=blobstore),
        our_site(options) as streaming,
        override_settings(BLOBSTORE=blobstore | handing_over),
        our_site(options) as handing,
        nginx(directory / "nginx", locations, site=handing.url) as url,
        Connection(url) as front,
    ):
        streaming.put("file", New(BIG).body)
        [path] = (path.relative_to(files) for path in files.glob("*/*"))
        static = request("GET", f"{url}/static/{path}")
        handed_over = handing.head("GET", "file", through=url)
        for work, ours, at_least in (
            ("GET 64 MiB from files", lambda: streaming.get("file"), None),
            ("GET 64 MiB from files, x-accel", lambda: front.send(handed_over), 0.8),
        ):
            peer = "nginx static"
            yield duel(work, ours, lambda: front.send(static), against=peer, at_least=at_least, rounds=options.rounds)


def first_byte(ours: Ours, stock: Stock, file_id: str, rounds: int) -> Row:
    """Compare how long it takes until the first byte of a big body is there; nobody waits for the others."""
    sides = [
        (ours.connection, ours.head("GET", "big")),
        (stock.connection, request("GET", f"{stock.url}/stream/{file_id}")),
    ]
    seconds: list[list[float]] = [[], []]
    for round in range(2 * rounds + 1):
        for side in (0, 1) if round % 2 else (1, 0):
            connection, head = sides[side]
            began = time.perf_counter()
            connection.begin(head)
            seconds[side].append(time.perf_counter() - began)
            connection.reopen()
            time.sleep(0.05)  # until the server has noticed
    mine, others = seconds[0][1:], seconds[1][1:]
    ratio = statistics.median(own / other for own, other in zip(mine, others, strict=True))
    return Row(
        "first body byte of GET 64 MiB",
        "Django view over stock GridOut",
        shown(mine),
        shown(others),
        ratio,
        at_most=0.5,
    )


def per_second(row: Row) -> Row:
    """Say in `row` how many requests were answered per second rather than how long all took."""
    return replace(row, ours=_rate(row.ours), peer=_rate(row.peer))


def put_small(connection: Connection, work: tuple[bytes, New]) -> None:
    head, new = work
    connection.send(head, new.body)


class New:
    """`length` bytes that nobody has stored yet, and their SHA-256."""

    def __init__(self, length: int) -> None:
        self.body = memoryview(bytearray(os.urandom(length)))
        self.renew()

    def renew(self) -> None:
        """Become other bytes."""
        self.body[:16] = os.urandom(16)
        self.sha256 = hashlib.sha256(self.body).hexdigest()


class Ours:
    """The REST interface, seen by the owner of a bucket."""

    def __init__(self, url: str, bucket: str, token: str) -> None:
        self.url = url
        self.connection = Connection(url)
        self._objects = f"/api/buckets/{bucket}/objects"
        self.token = token

    def head(self, method: str, path: str, length: int | None = None, *, through: str = "") -> bytes:
        """Return the head of a request for the object at `path`, or of one `through` another server."""
        url = f"{through or self.url}{self._objects}/{path}"
        return request(method, url, token=self.token, length=length)

    def get(self, path: str) -> None:
        self.connection.send(self.head("GET", path))

    def put(self, path: str, body: memoryview) -> None:
        self.connection.send(self.head("PUT", path, len(body)), body)

    def delete(self, path: str) -> None:
        """Remove the object at `path`, if there is one."""
        with suppress(RuntimeError):
            self.connection.send(self.head("DELETE", path))


class Stock:
    """Plain Django views over stock GridFS."""

    def __init__(self, url: str) -> None:
        from tests.benchmarks.stock import bucket  # needs Django set up

        self.url = url
        self.connection = Connection(url)
        self._bucket = bucket()

    def store(self, body: memoryview) -> str:
        """Keep `body` and return the id of its file."""
        with self._bucket.open_upload_stream("big") as file:
            file.write(bytes(body))
        return str(file._id)

    def put(self, name: str, body: memoryview) -> None:
        self.connection.send(request("PUT", f"{self.url}/put/{name}", length=len(body)), body)

    def clear(self, name: str) -> None:
        for file in self._bucket.find({"filename": name}):
            self._bucket.delete(file._id)


class Registry:
    """Docker's registry, which keeps blobs in files by their SHA-256."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.connection = Connection(url)
        self._directory = directory

    def blob_url(self, sha256: str) -> str:
        return f"{self.url}/v2/benchmark/blobs/sha256:{sha256}"

    def put(self, connection: Connection, new: New) -> None:
        """Upload `new` in one piece, which takes two requests."""
        location = connection.send(request("POST", f"{self.url}/v2/benchmark/blobs/uploads/", length=0)).location
        url = f"{urljoin(self.url, location)}&digest=sha256:{new.sha256}"
        connection.send(request("PUT", url, length=len(new.body)), new.body)

    def clear(self) -> None:
        """Remove the bytes of all blobs; what the registry knows of them is not used again."""
        shutil.rmtree(self._directory / "docker/registry/v2/blobs", ignore_errors=True)


@contextmanager
def our_site(options: Options) -> Iterator[Ours]:
    from django.contrib.auth import get_user_model
    from rest_framework.authtoken.models import Token

    from django_blobstore.models import Bucket
    from tests.servers import GUNICORN, site

    user, _ = get_user_model().objects.get_or_create(username="owner")
    token, _ = Token.objects.get_or_create(user=user)
    bucket, _ = Bucket.objects.get_or_create(name="benchmark", owner=user)
    with site(GUNICORN, *GTHREAD) as served:
        _watch(options, f"gunicorn on port {served.url.rpartition(':')[2]}", served.process.pid)
        yield Ours(served.url, str(bucket.pk), token.key)


@contextmanager
def stock_site(options: Options) -> Iterator[Stock]:
    from tests.servers import GUNICORN, site

    with site(GUNICORN, *GTHREAD, env={"DJANGO_SETTINGS_MODULE": "tests.benchmarks.stock_settings"}) as served:
        _watch(options, "gunicorn with stock views", served.process.pid)
        yield Stock(served.url)


@contextmanager
def docker_registry(directory: Path, options: Options) -> Iterator[Registry]:
    from tests.servers import free_port, wait_until_listening

    directory.mkdir()
    port = free_port()
    configuration = directory / "registry.yml"
    configuration.write_text(REGISTRY.format(directory=directory, port=port))
    log = directory / "registry.log"
    process = processes.start(["docker-registry", "serve", str(configuration)], log=log)
    try:
        wait_until_listening(port, process, log)
        options.watch("docker-registry", process.pid)
        yield Registry(f"http://127.0.0.1:{port}", directory)
    finally:
        processes.stop(process)


def _watch(options: Options, name: str, pid: int) -> None:
    for number, worker in enumerate(psutil.Process(pid).children(), 1):
        options.watch(f"{name}, worker {number}", worker.pid)


def _left_out(package: str) -> None:
    print(f"There is no {package} here (apt-get install {package}): its rows are left out.", file=sys.stderr)


def _rate(milliseconds: str) -> str:
    median, _, spread = milliseconds.split()
    return f"{REQUESTS / float(median) * 1000:.0f}/s {spread}"
