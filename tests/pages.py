"""The blocks of a page of the documentation, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / "docs"


class Block(NamedTuple):
    """A fenced block: what its fence says it is, and the lines in it."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of docs/`page`, in order."""
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [Block(language, text) for language, text in found]


def block(page: str, part: str) -> str:
    """Return the only block of docs/`page` in which `part` stands."""
    (found,) = [text for _, text in blocks(page) if part in text]
    return found


def replaced(text: str, new: dict[str, str]) -> str:
    """Return `text` with each key of `new`, all of which it has, as its value."""
    for name, value in new.items():
        assert name in text, f"{name!r} is not in:\n{text}"
        text = text.replace(name, value)
    return text
