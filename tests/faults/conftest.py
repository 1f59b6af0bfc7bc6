"""Which databases and storages the faults strike: two pairs of them, or each with each if asked for."""

from __future__ import annotations

import os

import pytest

if not os.environ.get("BLOBSTORE_EVERY_PAIR"):

    @pytest.fixture
    def storage_kind(database: str) -> str:
        """Files beside SQLite and GridFS beside PostgreSQL; each with each takes half an hour."""
        return "files" if database == "default" else "gridfs"
