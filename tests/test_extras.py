"""What the package does with libraries that a project may have, and that it does without those it has not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import InMemoryStorage
from django.db import connections
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from django_blobstore import tasks
from django_blobstore.managed import ManagedStorage, Namespace
from django_blobstore.models import PendingFile, Resource, UpkeepRun
from tests.stored import Stored

ROOT = Path(__file__).parent.parent
HOME = Namespace("home")

# Run where none of the libraries can be imported.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django_blobstore import managed, tasks, tracing, upkeep
call_command("check")
assert not tracing.HAS_TRACING
assert managed.ManagedStorage.put.__name__ == "put" and not hasattr(managed.ManagedStorage.put, "__wrapped__")
assert upkeep.sweep.__module__ == "django_blobstore.upkeep.sweep"
print(type(tasks.sweep).__name__)
"""


def test_without_any_of_them_the_package_is_what_it_is() -> None:
    names = {"django_tasks", "health_check", "opentelemetry", "prometheus_client", "PIL", "easy_thumbnails"}
    code = WITHOUT.format(names=names)
    # The gallery has an ImageField, which needs Pillow.
    code = code.replace(
        "import django\n", "import tests.settings as s; s.INSTALLED_APPS.remove('tests.gallery')\nimport django\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in ("function", "Task")


def test_upkeep_can_be_queued_as_tasks(database: str, stored: Stored, settings: Settings) -> None:
    settings.BLOBSTORE = {}
    store = ManagedStorage()
    store.put(HOME, "a", b"one")
    store.put(HOME, "b", b"two")
    store.remove(HOME, "b")
    PendingFile.objects.update(due_at=Now())
    swept = tasks.sweep.enqueue()
    assert str(swept.status).rpartition(".")[2] == "SUCCESSFUL"
    assert swept.return_value["deleted_files"] == 1
    assert stored.names() == {Resource.objects.get().path}
    assert tasks.scrub.enqueue(percent=100).return_value == {"compared": 1, "compared_bytes": 3, "wrong": 0}
    audited = tasks.audit.enqueue(fix=True).return_value
    assert (audited["contents"], audited["wrong"]) == (1, 0)
    assert json.loads(json.dumps(audited)) == audited
    assert set(UpkeepRun.objects.values_list("origin", flat=True)) == {"task"}


class Away(InMemoryStorage):
    """A storage that does not answer."""

    def exists(self, name: str) -> bool:
        raise ConnectionError("no route to a host whose name is nobody's business")


def health(**options: Any) -> str:
    """Return what the health check says, or "" if all is well."""
    from django_blobstore.health import BlobStore

    result = asyncio.run(BlobStore(**options).get_result())
    return str(result.error or "")


def test_the_health_check_tells_of_damage_delays_and_servers_that_are_away(
    database: str, stored: Stored, settings: Settings
) -> None:
    pytest.importorskip("health_check")
    ManagedStorage().put(HOME, "a", b"one")
    ManagedStorage().put(HOME, "b", b"two")
    assert health() == ""
    ManagedStorage().remove(HOME, "b")
    PendingFile.objects.update(due_at=Now() - timedelta(minutes=30))
    assert health() == ""
    assert "blobstore_sweep" in health(overdue_seconds=60)
    Resource.objects.update(damaged_at=Now())
    assert "1 contents are damaged" in health()
    settings.STORAGES = {**settings.STORAGES, "old": {"BACKEND": f"{__name__}.Away"}}
    assert "1 contents are damaged" in health()
    assert "storage 'old' does not answer" in health(aliases=["blobstore", "old"])
    settings.STORAGES = {**settings.STORAGES, "blobstore": {"BACKEND": f"{__name__}.Away"}}
    assert "storage 'blobstore' does not answer" in health()
    assert "host" not in health()


def test_prometheus_is_told_figures_and_nothing_when_it_registers(database: str, stored: Stored) -> None:
    client = pytest.importorskip("prometheus_client")
    from django_blobstore.prometheus import BlobstoreCollector

    store = ManagedStorage()
    for path in ("a", "b"):
        store.put(HOME, path, b"one")
    store.put(HOME, "c", b"three")
    store.remove(HOME, "c")
    with CaptureQueriesContext(connections[database]) as queries:
        registry = client.CollectorRegistry()
        registry.register(BlobstoreCollector())
    assert not queries.captured_queries
    told = client.generate_latest(registry).decode().splitlines()
    assert "blobstore_objects 2.0" in told
    assert "blobstore_logical_bytes 6.0" in told
    assert "blobstore_damaged_contents 0.0" in told
    assert 'blobstore_pending_files{state="waiting"} 1.0' in told
    assert not [line for line in told if line.startswith("blobstore_stored_bytes")]
    tasks.upkeep.sweep()
    told = client.generate_latest(registry).decode().splitlines()
    assert "blobstore_stored_bytes 3.0" in told
    assert [line for line in told if line.startswith('blobstore_last_run_timestamp_seconds{kind="sweep"}')]


SPANS = """
import django
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
django.setup()
from django_blobstore.managed import ManagedStorage, Namespace
try:
    ManagedStorage().put(Namespace("x"), "../bad", b"")
except ValueError:
    pass
(span,) = exporter.get_finished_spans()
print(span.name, span.status.status_code.name, span.events[0].name)
"""


def test_opentelemetry_hears_of_operations_and_their_errors() -> None:
    pytest.importorskip("opentelemetry.sdk")
    environment = {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", SPANS], env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.split() == ["blobstore.put", "ERROR", "exception"], done.stderr
