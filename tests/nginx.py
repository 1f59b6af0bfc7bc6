"""A real nginx, for as long as a context lasts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from example_project import processes
from tests.servers import free_port, wait_until_listening

# Debian keeps it where only root's PATH leads.
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")

_CONFIGURATION = """
daemon off;
{user}
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    {temporary}
    {http}
}}
"""

_SERVER = """
server {{
    listen 127.0.0.1:{port};
    {locations}
}}
"""

# What else is in http, unless a test says.
HTTP = """
    client_max_body_size 0;
    upstream site { server 127.0.0.1:8000; keepalive 16; }
"""
_SITE = "127.0.0.1:8000"

TO_SITE = """
    location / {
        proxy_pass http://site;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_request_buffering off;
    }
"""


@contextmanager
def nginx(directory: Path, locations: str, *, site: str = "", http: str = HTTP) -> Iterator[str]:
    """Serve `locations`, in nginx's language, and yield the URL; the upstream "site" in `http` is at the URL `site`."""
    port = free_port()
    server = _SERVER.format(port=port, locations=locations)
    with configured(directory, http.replace(_SITE, urlsplit(site).netloc or _SITE) + server, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def configured(directory: Path, http: str, port: int) -> Iterator[None]:
    """Run nginx with `http` as its configuration, whose servers listen on `port` among others."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nginx.conf"
    configuration.write_text(_whole(directory, http))
    log = directory / "nginx.log"
    process = processes.start([str(NGINX), "-e", str(log), "-c", str(configuration)], log=log)
    try:
        wait_until_listening(port, process, log)
        yield
    finally:
        processes.stop(process)


def _whole(directory: Path, http: str) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return _CONFIGURATION.format(
        directory=directory,
        temporary=" ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds),
        http=http,
        # Else its workers could not read what a test of root's wrote.
        user="user root;" if os.geteuid() == 0 else "",
    )
