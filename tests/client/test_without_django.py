"""The client where there is no Django."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.servers import Site

ROOT = Path(__file__).parent.parent.parent
ALONE = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("django", "rest_framework", "pymongo", "gridfs", "bson", "storages", "boto3"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
"""


def alone(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", ALONE + code, *arguments]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_django_is_missing_there() -> None:
    assert alone("try:\n    import django\nexcept ModuleNotFoundError:\n    print('missing')") == "missing\n"


def test_everything_can_be_imported_without_django() -> None:
    code = "import django_blobstore.client, django_blobstore.client.cli, django_blobstore.client.__main__; print('ok')"
    assert alone(code) == "ok\n"


def test_a_file_goes_there_and_back_without_django(site: Site, token: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"All is well.\n")
    code = """
from pathlib import Path
from django_blobstore.client import Client

url, token, directory = sys.argv[1:]
with Client(url, token, state=Path(directory, "state")) as client:
    print(client.put(f"{directory}/a", "me/a").how, client.put(f"{directory}/a", "me/b").how)
    print(client.get("me/b", f"{directory}/b").how)
"""
    assert alone(code, f"{site.url}/api/", token, str(tmp_path)) == "sent proven\nreceived\n"
    assert (tmp_path / "b").read_bytes() == b"All is well.\n"


def test_what_is_missing_is_named() -> None:
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "httpx2" else find(name, *rest)
from django_blobstore.client.__main__ import main
try:
    main()
except SystemExit as end:
    print(end)
"""
    assert "pip install 'django-blobstore[client]'" in alone(code)
