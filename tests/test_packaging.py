"""What a project sees of the package from outside: its names, its version and its types."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from django.apps import apps
from django.dispatch import Signal

import django_blobstore

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_blobstore"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

PROMISES = (ROOT / "docs/upgrading.md").read_text()


def promised(table: str) -> dict[str, list[str]]:
    """Return what stands behind the first name of each row of a table of docs/upgrading.md."""
    rows = PROMISES.partition(f"<!-- {table} -->")[2].partition("\n\n")[0].split("\n")[3:]
    names = [re.findall(r"`([\w.]+)`", row) for row in rows]
    return {first: others for first, *others in names}


PUBLIC = promised("public names")
# What the specification of the package says is imported from where.
LEAST = {
    "django_blobstore.managed": {"ManagedStorage", "Namespace"},
    "django_blobstore.catalog": {"ResourceCatalog"},
    "django_blobstore.resource_storage": {"ResourceStorage"},
    "django_blobstore.storages": {"GridFSStorage", "BlobStorage"},
    "django_blobstore.proof": {"RequestResponse", "PutResponse", "answer"},
    "django_blobstore.upkeep": {"sweep", "audit", "scrub"},
    "django_blobstore.errors": {"BlobstoreError"},
}


@pytest.mark.parametrize("module", PUBLIC)
def test_names_that_are_promised_are_there(module: str) -> None:
    found = import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(found, name)] == []
    assert LEAST.get(module, set()) <= set(PUBLIC[module])


def test_all_that_was_specified_is_promised_and_all_that_is_exported() -> None:
    assert LEAST.keys() <= PUBLIC.keys()
    for module in ("django_blobstore.client", "django_blobstore.storages"):
        assert set(import_module(module).__all__) == set(PUBLIC[module])
    signals = import_module("django_blobstore.signals")
    assert {name for name, value in vars(signals).items() if isinstance(value, Signal)} == set(
        PUBLIC["django_blobstore.signals"]
    )


def test_fields_that_are_promised_are_there() -> None:
    fields = promised("public fields")
    assert set(fields) == {"Bucket", "ManagedResource", "Resource"}
    for name, promised_fields in fields.items():
        model = apps.get_model("django_blobstore", name)
        assert set(promised_fields) <= {field.name for field in model._meta.get_fields()}


def test_what_is_supported_is_what_is_declared_and_tested() -> None:
    def row(name: str) -> str:
        return re.findall(rf"^\| {name} \|(.*)$", PROMISES, re.MULTILINE)[0]  # type: ignore[no-any-return]

    pythons = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    djangos = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Django :: " in line]
    assert re.findall(r"3\.\d+", row("Python").partition("|")[2]) == pythons
    assert re.findall(r"\d\.\d", row("Django").partition("|")[0]) == djangos
    for dependency in PROJECT["project"]["dependencies"]:
        name, least = dependency.split(">=")
        named = {"django": "Django", "djangorestframework": "Django REST framework", "pymongo": "pymongo"}
        assert least in (row(named[name]) if name in named else PROMISES)


def test_installed_version_is_that_of_the_project() -> None:
    assert version("django-blobstore") == PROJECT["project"]["version"]


def test_changelog_speaks_of_the_version() -> None:
    assert PROJECT["project"]["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_types_are_announced() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_importing_the_package_needs_no_settings() -> None:
    alone = [sys.executable, "-c", "import django_blobstore, django_blobstore.errors, django_blobstore.proof"]
    subprocess.run(alone, env={"PYTHONPATH": str(ROOT)}, cwd="/", check=True)
    assert django_blobstore.__file__ == str(PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_first_what_it_is_for(path: Path) -> None:
    module = ast.parse(path.read_text())
    if module.body and "migrations" not in path.parts:
        assert ast.get_docstring(module)
