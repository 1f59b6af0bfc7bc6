"""Node and the packages that tests upload with: installed once per machine and version, into a cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECONDS = 120


def available() -> bool:
    """Say whether there is a Node with npm."""
    return bool(shutil.which("node") and shutil.which("npm"))


def install() -> Path:
    """Return a directory with the packages of package.json and our script beside them."""
    manifest, script = HERE / "package.json", HERE / "upload.mjs"
    version = hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    directory = Path(tempfile.gettempdir(), f"blobstore-node-{version}")
    if not (directory / "installed").exists():
        directory.mkdir(exist_ok=True)
        shutil.copy(manifest, directory)
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=directory, check=True, timeout=SECONDS)
        (directory / "installed").touch()
    shutil.copy(script, directory)
    return directory


def upload(directory: Path, client: str, file: Path, **options: Any) -> dict[str, Any]:
    """Upload `file` with `client` ("tus" or "uppy") and return what it says of the outcome."""
    command = ["node", str(directory / "upload.mjs"), client, str(file), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
