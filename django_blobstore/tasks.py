"""Upkeep as background tasks of ``django.tasks``, of its backport on Django 5.2, or as functions where neither is.

Each task returns its figures, as JSON can hold them. Who runs them, and when, is said by the project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from django_blobstore import upkeep


def _task() -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator `task` of the library that there is, or one that changes nothing."""
    for library in ("django.tasks", "django_tasks"):
        try:
            decorate: Callable[[Callable[..., Any]], Any] = import_module(library).task
        except ImportError:
            continue
        return decorate
    return lambda function: function


task = _task()


@task
def sweep() -> dict[str, int]:
    """Delete what nothing needs any more; see `django_blobstore.upkeep.sweep`."""
    return asdict(upkeep.sweep())


@task
def scrub(percent: float = 100) -> dict[str, int]:
    """Compare `percent` of the contents with their hashes, the least recently compared first."""
    report = upkeep.scrub(percent=percent)
    return {"compared": report.compared, "compared_bytes": report.compared_bytes, "wrong": report.findings.left}


@task
def audit(fix: bool = False) -> dict[str, int]:
    """Compare objects, contents and files, and with `fix` mend what is wrong."""
    report = upkeep.audit(fix=fix)
    return {
        "objects": report.objects,
        "contents": report.contents,
        "files": report.files,
        "wrong": report.findings.left,
        "storages_not_read": len(report.unread),
    }
