"""Programs that nobody here wrote: where they are, and what they do with a URL."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import need
from tests.rest import api

SECONDS = 240
USER = f"root:{api.PASSWORD}"


def run(program: str, *arguments: object, directory: Path, fails: bool = False) -> str:
    """Run `program` in `directory` and return all that it says; it must succeed, or fail if it `fails`.

    Without the program the test is skipped at a desk, and fails in CI.
    """
    need(shutil.which(program), program)
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert bool(done.returncode) == fails, f"{program} ended with {done.returncode}:\n{said}"
    return said


def curl(*arguments: object, directory: Path, fails: bool = False) -> str:
    """Run curl as root; see `run`."""
    return run("curl", "--silent", "--show-error", "--user", USER, *arguments, directory=directory, fails=fails)
