"""Which database a test runs against: every query of every app goes to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model


class OneDatabase:
    """Sends everything to `alias`, in every thread, so that a test can be run on each database unchanged."""

    alias = "default"

    @classmethod
    @contextmanager
    def using(cls, alias: str) -> Iterator[str]:
        """Send everything to `alias` for as long as the context lasts."""
        before, cls.alias = cls.alias, alias
        try:
            yield alias
        finally:
            cls.alias = before

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return self.alias

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return self.alias

    def allow_relation(self, one: Model, other: Model, **hints: Any) -> bool:
        return True
