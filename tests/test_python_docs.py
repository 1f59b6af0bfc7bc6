"""The examples of docs/python.md are run as they stand there."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.invariants import assert_settled
from tests.stored import Stored

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


def test_the_examples_say_what_they_say_there(
    database: str, stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text().replace("```", "\n")
    options = doctest.IGNORE_EXCEPTION_DETAIL
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(examples.examples) > 15
    told: list[str] = []
    result = doctest.DocTestRunner(optionflags=options).run(examples, out=told.append)
    assert result.failed == 0, "".join(told)
    assert_settled(stored)
