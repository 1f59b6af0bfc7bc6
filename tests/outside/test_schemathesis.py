"""The interface against its own description: whatever schemathesis makes of the schema is answered as it says.

Each run makes the same requests; ``SCHEMATHESIS_EXAMPLES=6`` makes more of them, and
``SCHEMATHESIS_SECONDS=600 SCHEMATHESIS_SEED=7`` others, for as long as that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import need
from tests.rest import api
from tests.routers import OneDatabase
from tests.stored import Stored

ROOT = Path(__file__).parent.parent.parent
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "0"))
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
EXTENT = [f"--max-time={SECONDS}"] if SECONDS else ["--generation-deterministic"]
LIMITS = f"""
[phases.fuzzing.generation]
max-examples = {EXAMPLES}
[phases.stateful.generation]
max-examples = {3 * EXAMPLES}
"""

# Statuses beside those that schemathesis foresees: tus has 412 for a wrong version, and many a request is refused for
# what is stored, not for its form.
CONFIGURATION = """
hooks = "hooks.py"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 410, 412, 415, 416, 422, 423, 460]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 411, 412, 413, 415, 416, 422, 431]
missing_required_header.expected-statuses = [400, 401, 403, 404, 406, 411, 412, 415, 422]
"""
HOOKS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + 1000),
    pytest.mark.django_db(transaction=True, databases=["default"]),
    pytest.mark.parametrize("storage_kind", ["files"]),
]


@pytest.fixture
def site(stored: Stored) -> Iterator[servers.Site]:
    # However long a path is, we refuse it and not gunicorn, whose 414 comes before the application.
    with OneDatabase.using("default"), servers.site(servers.GUNICORN, "--limit-request-line=0") as site:
        yield site


def test_every_answer_is_one_that_the_schema_foresees(site: servers.Site, tmp_path: Path) -> None:
    need(find_spec("schemathesis"), "schemathesis")
    api.administrator()
    schema = tmp_path / "schema.json"
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION + ("" if SECONDS else LIMITS))
    (tmp_path / "hooks.py").write_text(HOOKS)
    written = subprocess.run(
        [
            *(sys.executable, "manage.py", "spectacular", "--format=openapi-json", f"--file={schema}"),
            "--settings=example_project.settings",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert written.returncode == 0, written.stderr
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", f"--config-file={configuration}", "run", str(schema)),
            *(f"--url={site.url}", f"--auth=root:{api.PASSWORD}", "--checks=all", "--continue-on-failure"),
            *("--phases=examples,coverage,fuzzing,stateful", "--suppress-health-check=all", "--request-timeout=240"),
            *(f"--seed={SEED}", "--warnings=off", *EXTENT),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS + 700,
    )
    print(done.stdout[-2_000:])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
