"""A project of its own in a directory, as `startproject` makes it, whose commands run in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 240

# By docs/filefields.md: files are objects of a bucket, their bytes lie in files, and the REST interface serves them.
KEPT_IN_A_BUCKET = """
STORAGES = {
    "default": {"BACKEND": "django_blobstore.storages.BlobStorage", "OPTIONS": {"bucket": "media"}},
    "blobstore": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": BASE_DIR / "blobs"},
    },
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
"""
SERVED_BY_REST = """
from django.urls import include
urlpatterns += [path("api/", include("django_blobstore.rest.urls"))]
"""


def start(directory: Path) -> Path:
    """Make the project `mysite` in `directory`, which is returned."""
    directory.mkdir(exist_ok=True)
    run(directory, sys.executable, "-m", "django", "startproject", "mysite", ".")
    return directory


def append(path: Path, text: str) -> None:
    """Add `text` to the end of a file."""
    with path.open("a") as file:
        file.write(text)


def manage(directory: Path, *arguments: str, env: dict[str, str] | None = None, fails: bool = False) -> str:
    """Run manage.py, which must succeed or, if it `fails`, fail, and return what it says."""
    return run(directory, sys.executable, "manage.py", *arguments, env=env, fails=fails)


def run(directory: Path, *command: str, env: dict[str, str] | None = None, fails: bool = False) -> str:
    """Run `command` in the project, as `manage` does."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment(directory) | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert bool(done.returncode) == fails, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def environment(directory: Path) -> dict[str, str]:
    """Return the environment in which Python finds the project and this package."""
    here = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    programs = os.pathsep.join([str(Path(sys.executable).parent), here.get("PATH", "")])
    return here | {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}", "PATH": programs}
