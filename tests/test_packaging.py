"""What a project sees of the package from outside: its names, its version and its types."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import django_blobstore

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_blobstore"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

PUBLIC = {
    "django_blobstore.catalog": ["ResourceCatalog"],
    "django_blobstore.client": ["AsyncClient", "Client", "ClientError", "Outcome", "Refused"],
    "django_blobstore.managed": ["BlobFile", "ManagedStorage", "Namespace"],
    "django_blobstore.models": ["Bucket", "ManagedResource", "PendingFile", "PutRequest", "Resource"],
    "django_blobstore.proof": ["PutResponse", "RequestResponse", "answer"],
    "django_blobstore.resource_storage": ["ResourceStorage"],
    "django_blobstore.signals": [
        "object_removed",
        "object_served",
        "object_stored",
        "resource_damaged",
        "resource_freed",
    ],
    "django_blobstore.testing": ["BytesContract", "StorageContract"],
    "django_blobstore.fields": ["BlobField", "BlobImageField"],
    "django_blobstore.storages": ["BlobStorage", "GridFSStorage"],
    "django_blobstore.upkeep": ["sweep", "audit", "scrub"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_where_the_readme_says(module: str) -> None:
    found = import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(found, name)] == []


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
