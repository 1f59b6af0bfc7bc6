"""Run the whole system on one machine, and leave nothing running behind."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from example_project import processes
from example_project.mongod import Mongod, MongodFailed, find_mongod

HOST = "127.0.0.1"
USERNAME = "admin"
PASSWORD = "blobstore-demo"
SECONDS_TO_START = 120
# A worker that has just been forked does not hear gunicorn's SIGTERM yet; it is killed after so long, by default 30.
SECONDS_TO_END = 3
# A sweep that is under way when all are killed looks for it three times, by default 15 s each.
MILLISECONDS_TO_FIND_MONGOD = 10_000


@dataclass(frozen=True)
class Home:
    """Where the bytes live: in words, as a directory for everything the demo keeps, and as a MongoDB URI or ""."""

    description: str
    directory: Path
    mongodb_uri: str = ""


class Command(BaseCommand):
    help = "Start a playground with sample content: admin, REST interface and its documentation. Ctrl-C stops it."
    requires_system_checks: list[str] = []  # `migrate` runs them, once the storage is known

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=int, default=8000, help="where to serve; 0 is any free port (default: %(default)s)"
        )
        parser.add_argument(
            "--data",
            type=Path,
            default=settings.BASE_DIR / "demo-data",
            help="directory that keeps everything between runs (default: %(default)s)",
        )
        parser.add_argument("--no-serve", action="store_true", help="prepare the data, say what was saved, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        # SIGINT too: whoever is started in the background by a script ignores it otherwise.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            with ExitStack() as started:
                self._run(started, options)
        except KeyboardInterrupt:
            self.stdout.write("\nStopped. The data stays for the next run.")

    def _run(self, started: ExitStack, options: dict[str, Any]) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING("django-blobstore demo"))
        home = self._choose_home(options["data"].resolve(), started)
        self._say("Bytes", home.description)
        self._say("Data", home.directory)
        environment = _environment(home)
        _manage(environment, "migrate", "--verbosity=0")
        self._say("Samples", _manage(environment, "load_samples", f"--username={USERNAME}", f"--password={PASSWORD}"))
        if not options["no_serve"]:
            self._serve(home, environment, options["port"], started)

    def _choose_home(self, data: Path, started: ExitStack) -> Home:
        given = os.environ.get("MONGODB_URI", "")
        if given:
            key = hashlib.sha256(given.encode()).hexdigest()[:8]
            return Home("MongoDB GridFS, at MONGODB_URI", data / f"mongodb-{key}", given)
        if find_mongod() is None:
            return Home("plain files (no MONGODB_URI, and no mongod on PATH)", data / "files")
        try:
            mongod = started.enter_context(Mongod(data / "mongodb" / "mongod"))
        except MongodFailed as error:
            self.stderr.write(str(error))
            return Home("plain files (mongod did not start, see above)", data / "files")
        uri = f"{mongod.uri}&serverSelectionTimeoutMS={MILLISECONDS_TO_FIND_MONGOD}"
        return Home(f"MongoDB GridFS, in a mongod started on port {mongod.port}", data / "mongodb", uri)

    def _serve(self, home: Home, environment: dict[str, str], wanted: int, started: ExitStack) -> None:
        port = _free_port(wanted)
        if port != wanted and wanted:
            self._say("Port", f"{wanted} is taken, so this is {port}")
        log = home.directory / "server.log"
        server = processes.start(_server_command(port), log=log, env=environment)
        started.callback(processes.stop, server)
        _wait_until_listening(server, port, log)
        sweeper = [sys.executable, _manage_py(), "blobstore_sweep", "--every=60"]
        started.callback(processes.stop, processes.start(sweeper, log=home.directory / "sweep.log", env=environment))
        self._welcome(f"http://{HOST}:{port}", log, home)
        server.wait()
        raise CommandError(f"The server ended by itself; its log {log} ends:\n{processes.last_lines(log)}")

    def _welcome(self, url: str, log: Path, home: Home) -> None:
        self._say("Log", log)
        self.stdout.write("")
        self._say("Admin", f"{url}/admin/")
        self._say("REST", f"{url}/api/buckets/")
        if settings.HAS_DOCS:
            self._say("API docs", f"{url}/api/docs/")
        self._say("Log in", f"{USERNAME} / {PASSWORD}")
        self._say("Try", f"curl -u {USERNAME}:{PASSWORD} {url}/api/buckets/")
        self._say("Python", _shell(home))
        self.stdout.write("\nCtrl-C stops everything; the data stays for the next run.")
        self.stdout.flush()

    def _say(self, label: str, text: object) -> None:
        self.stdout.write(f"  {label:9} {text}")
        self.stdout.flush()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _environment(home: Home) -> dict[str, str]:
    return os.environ | {"DEMO_DATA": str(home.directory), "MONGODB_URI": home.mongodb_uri}


def _shell(home: Home) -> str:
    """Return the line that opens a shell on the demo; a URI that was given stays untold, as it may hold a password."""
    variables = {"DEMO_DATA": str(home.directory)}
    if not os.environ.get("MONGODB_URI"):
        variables["MONGODB_URI"] = home.mongodb_uri
    where = [f"{name}={shlex.quote(value)}" for name, value in variables.items() if value]
    return " ".join([*where, shlex.join([sys.executable, _manage_py(), "shell"])])


def _manage(environment: dict[str, str], *command: str) -> str:
    """Run a command of manage.py with the settings that `environment` makes, and return what it says."""
    Path(environment["DEMO_DATA"]).mkdir(parents=True, exist_ok=True)
    # Its progress goes to stderr, straight to the terminal.
    done = subprocess.run(
        [sys.executable, _manage_py(), *command],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if done.returncode:
        raise CommandError(f"`manage.py {command[0]}` failed; its message is above.")
    return done.stdout.strip()


def _manage_py() -> str:
    return str(settings.BASE_DIR / "manage.py")


def _server_command(port: int) -> list[str]:
    if find_spec("gunicorn"):
        options = ["--worker-class=gthread", "--workers=2", "--threads=8", "--no-control-socket"]
        options += [f"--graceful-timeout={SECONDS_TO_END}"]
        where = [f"--chdir={settings.BASE_DIR}", f"--bind={HOST}:{port}"]
        return [sys.executable, "-m", "gunicorn", "example_project.wsgi", *options, *where]
    return [sys.executable, _manage_py(), "runserver", "--noreload", f"{HOST}:{port}"]


def _free_port(wanted: int) -> int:
    """Return `wanted`, or any free port when something listens there."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            free: int = probe.getsockname()[1]
            return free
    raise CommandError(f"There is no free port on {HOST}.")


def _wait_until_listening(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        if server.poll() is not None or time.monotonic() > deadline:
            raise CommandError(f"The server did not start; its log {log} ends:\n{processes.last_lines(log)}")
        time.sleep(0.05)
