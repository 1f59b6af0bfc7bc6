"""Writes docs/settings.md from what `django_blobstore.conf` says of each setting: ``python -m docs.settings_page``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django_blobstore.conf import KNOWN, Setting

PAGE = Path(__file__).with_name("settings.md")

INTRODUCTION = """\
# Settings

All settings are keys of one dict, `BLOBSTORE`, in the settings of the project; each may be left out. They are read
anew at each use. `manage.py check` refuses unknown keys and values of no use.

```python
BLOBSTORE = {"STORAGE": "blobstore", "DELETION_GRACE": 600}
```

How to reach a storage is said in `STORAGES[alias]["OPTIONS"]`, not here. This page is written by
`python -m docs.settings_page`.
"""


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for name, setting in KNOWN.items():
        yield f"## `{name}`\n\n{setting.meaning}\n\n- Default: {_default(setting)}\n- Value: {setting.expects}\n"


def _default(setting: Setting[Any]) -> str:
    return "depends, as said above" if callable(setting.default) else f"`{setting.default!r}`"


if __name__ == "__main__":
    PAGE.write_text(page())
