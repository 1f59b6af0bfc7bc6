"""Node and the packages that tests upload with: installed once per machine and version, into a cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS = 240


def available() -> bool:
    """Say whether there is a Node with npm."""
    return bool(shutil.which("node") and shutil.which("npm"))


def install(home: Path = HERE) -> Path:
    """Return a directory with the packages that `home` asks for in its package.json, and its scripts beside them."""
    manifest = home / "package.json"
    version = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    directory = Path(tempfile.gettempdir(), f"blobstore-node-{version}")
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests
        if not (directory / "installed").exists():
            shutil.copy(manifest, directory)
            command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=directory, check=True, timeout=SECONDS)
            (directory / "installed").touch()
        for script in home.glob("*.mjs"):
            shutil.copy(script, directory)
    return directory


def upload(directory: Path, client: str, file: Path, **options: Any) -> dict[str, Any]:
    """Upload `file` with `client` ("tus" or "uppy") and return what it says of the outcome."""
    command = ["node", str(directory / "upload.mjs"), client, str(file), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
