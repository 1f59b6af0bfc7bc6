"""docs/rest.md: its lines run as they stand, its tables are whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model

from django_blobstore.models import Bucket, ManagedResource
from django_blobstore.rest.problems import KNOWN
from tests import servers
from tests.conftest import need
from tests.rest import api
from tests.stored import Stored

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "rest.md").read_text()
REST = ROOT / "django_blobstore" / "rest"
# Each curl tells its status beside whatever the page does with its output.
CURL = """curl() { command curl "$@" -w '%{stderr}status %{http_code}\\n'; }\n"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("server", ["gunicorn"])
def test_each_line_is_answered_with_the_status_it_states(site: servers.Site, stored: Stored, tmp_path: Path) -> None:
    need(shutil.which("curl"), "curl")
    get_user_model().objects.create_superuser("admin", password="blobstore-demo")
    script = "".join(blocks("bash")).replace("http://127.0.0.1:8000", site.url)
    lines = [line for line in script.splitlines() if "curl " in line]
    done = subprocess.run(["bash", "-uc", CURL + script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    statuses = re.findall(r"^status (\d+)$", done.stderr, re.MULTILINE)
    assert list(zip(statuses, lines, strict=True)) == [(line[-3:], line) for line in lines]
    assert not ManagedResource.objects.exists()
    assert not Bucket.objects.exists()


@pytest.mark.parametrize("server", ["gunicorn"])
def test_the_proof_in_python_brings_an_object_without_its_bytes(
    site: servers.Site, bucket: Bucket, stored: Stored, tmp_path: Path
) -> None:
    (tmp_path / "hello.txt").write_bytes(b"All is well.\n" * 100)
    url = f"{site.url}/api/buckets/{bucket.pk}/"
    with api.remote(site) as client:
        client.put(f"{url}objects/there", content=b"All is well.\n" * 100).raise_for_status()
    (code,) = [block for block in blocks("python") if "hmac" in block]
    basic = "Basic " + b64encode(b"root:x").decode()
    command = [sys.executable, "-c", code, url, basic, "proven", "hello.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.stdout == "proven 1300\n", done.stderr
    there, proven = ManagedResource.objects.order_by("-path")
    assert there.resource == proven.resource


def test_every_code_is_in_the_table() -> None:
    told = {
        (int(status), code)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
        for code in re.findall(r"`([a-z-]+)`", codes)
    }
    raised = {
        (int(status), code)
        for module in REST.glob("*.py")
        for status, code in re.findall(r'Problem\((\d{3}), "([a-z-]+)"', module.read_text())
    }
    # Told of one path among many, never as an answer.
    assert {*KNOWN.values(), *raised} - told == {(500, "unforeseen")}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
