"""Writes docs/settings.md from what `django_blobstore.conf` says of each setting: ``python -m docs.settings_page``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from django_blobstore.conf import KNOWN, Setting

PAGE = Path(__file__).with_name("settings.md")

INTRODUCTION = """\
# Settings

All settings are keys of one dict, `BLOBSTORE`, in the settings of the project; each may be left out. They are read
anew at each use. Durations are in seconds and lengths in bytes. `manage.py check` refuses unknown keys
(`blobstore.E002`) and values of no use (`blobstore.E003`); what else it says of them is [below](#checks).

```python
BLOBSTORE = {"STORAGE": "blobstore", "DELETION_GRACE": 600}
```

How to reach a storage is said in `STORAGES[alias]["OPTIONS"]`, not here. This page is written by
`python -m docs.settings_page`.
"""

CHECKS = """\
## Checks

`manage.py check` says what is wrong and what to do; this is what its ids mean. An id in `SILENCED_SYSTEM_CHECKS` is not
said any more, and no id is ever used for something else. Those marked with * come with `check --deploy` only, which may
connect to the storages.

| Id | Says |
|---|---|
"""

# What each check says, by its id.
MEANINGS = {
    "E001": "`BLOBSTORE` is not a dict",
    "E002": "a key of `BLOBSTORE` is unknown",
    "E003": "a value is of no use",
    "E004": "`DEDUP_SCOPE` or `GRANTED_BUCKETS` cannot be called",
    "E005": "`STORAGE` is no alias in `STORAGES`",
    "E006": "the storage cannot be made of its options",
    "E007": "the catalog's database is neither PostgreSQL nor SQLite",
    "E008": "`SERVE_LOCATION` speaks of a storage that is not there",
    "E009": "`CONTENT_HOST` has no middleware, so that it would serve the whole site",
    "E020": "the bytes would lie in a `BlobStorage`, which keeps none itself",
    "W001": "SQLite begins transactions deferred",
    "W002": "SQLite has no write-ahead log",
    "W003": "proofs by the protocol of the seed are weak",
    "W004": "* a storage finds something wrong with itself, or does not answer",
    "W005": "`SERVE_METHOD` is of no use for the storage",
    "W006": "* there is no `CONTENT_HOST`",
    "W007": "* a backend may grant permissions on single buckets, and there is no `GRANTED_BUCKETS`",
    "W020": "django-cleanup deletes files that other rows have",
    "W021": "the storage of a `BlobField` knows no transactions",
    "W022": "the rows of a `BlobField` are not in the catalog's database",
    "W023": "an option of the storage breaks, bypasses or slows the store",
    "W024": "the files of a `BlobStorage` have no URL",
}


def page() -> str:
    """Return the page as Markdown."""
    checks = "".join(f"| `blobstore.{id}` | {meaning} |\n" for id, meaning in MEANINGS.items())
    return "\n".join([INTRODUCTION, *_sections(), CHECKS + checks])


def _sections() -> Iterator[str]:
    for name, setting in KNOWN.items():
        told = {"Type": f"`{_type(setting)}`", "Default": _default(setting), "Value": setting.expects}
        yield f"## `{name}`\n\n{setting.meaning}\n\n" + "".join(f"- {key}: {said}\n" for key, said in told.items())


def _type(setting: Setting[Any]) -> str:
    """Return the type that the setting is declared with, in `conf`, as it is written there."""
    (declared,) = get_args(getattr(setting, "__orig_class__"))  # noqa: B009 - typing's, which mypy does not know
    return (
        declared.__name__ if isinstance(declared, type) and not get_args(declared) else str(declared).rpartition(".")[2]
    )


def _default(setting: Setting[Any]) -> str:
    return "depends, as said above" if callable(setting.default) else f"`{setting.default!r}`"


if __name__ == "__main__":
    PAGE.write_text(page())
