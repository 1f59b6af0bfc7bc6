"""A real Apache with mod_xsendfile, for as long as a context lasts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from example_project import processes
from tests.servers import free_port, wait_until_listening

MODULES = Path("/usr/lib/apache2/modules")
# Debian keeps it where only root's PATH leads.
APACHE = shutil.which("apache2", path=os.environ.get("PATH", "") + ":/usr/sbin")
HAS_XSENDFILE = bool(APACHE) and (MODULES / "mod_xsendfile.so").exists()

_CONFIGURATION = """
ServerRoot {directory}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {directory}/apache.pid
ErrorLog {directory}/error.log
DefaultRuntimeDir {directory}
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule xsendfile_module {modules}/mod_xsendfile.so
{directives}
"""


@contextmanager
def apache(directory: Path, directives: str) -> Iterator[str]:
    """Serve what `directives` say and yield the URL."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = directory / "apache.conf"
    # Else its workers could not read what a test of root's wrote.
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    told = _CONFIGURATION.format(directory=directory, port=port, user=user, modules=MODULES, directives=directives)
    configuration.write_text(told)
    log = directory / "apache.log"
    process = processes.start([str(APACHE), "-X", "-f", str(configuration)], log=log)
    try:
        wait_until_listening(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop(process)
