"""Whole contents are recognized whatever hash, pieces and threads there are."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.digests import STORED_ALGORITHMS
from django_blobstore.verification import Verification
from tests.streams import MIB, content_of

ROOT = Path(__file__).parent.parent
CONTENT = content_of(5 * MIB + 7)


def hashes(content: bytes = CONTENT) -> dict[str, str]:
    return {name: hashlib.new(name, content).hexdigest() for name in STORED_ALGORITHMS}


def verified(content: bytes, expected: dict[str, str], sizes: list[int]) -> bool:
    verification = Verification(expected)
    position = 0
    while block := content[position : position + sizes[0]]:
        verification.update(block)
        position += len(block)
        sizes = [*sizes[1:], sizes[0]]
    assert verification.length == len(content)
    return verification.succeeds()


@given(st.lists(st.integers(20_000, 3 * MIB), min_size=1))
def test_content_is_right_in_whatever_pieces_it_comes(sizes: list[int]) -> None:
    assert verified(CONTENT, hashes(), sizes)


@pytest.mark.parametrize("algorithm", STORED_ALGORITHMS)
@pytest.mark.parametrize("at", [0, MIB, 3 * MIB, len(CONTENT) - 1])
def test_one_flipped_bit_is_seen_by_each_hash(algorithm: str, at: int) -> None:
    wrong = CONTENT[:at] + bytes([CONTENT[at] ^ 4]) + CONTENT[at + 1 :]
    expected = {algorithm: hashes()[algorithm]}
    assert verified(CONTENT, expected, [MIB])
    assert not verified(wrong, expected, [MIB])
    assert not verified(wrong, expected, [300_000])


def test_the_order_of_pieces_counts() -> None:
    swapped = CONTENT[MIB : 2 * MIB] + CONTENT[:MIB] + CONTENT[2 * MIB :]
    assert not verified(swapped, hashes(), [MIB])


def test_the_verdict_can_be_asked_for_again_and_changes_with_more_bytes() -> None:
    verification = Verification(hashes())
    for block in (CONTENT[: 4 * MIB], CONTENT[4 * MIB :]):
        assert not verification.succeeds()
        verification.update(block)
    assert verification.succeeds()
    assert verification.succeeds()


FORKING = """
import os
from tests.test_verification import CONTENT, MIB, hashes, verified

assert verified(CONTENT, hashes(), [MIB])
child = os.fork()
if not child:
    os._exit(0 if verified(CONTENT, hashes(), [MIB]) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_it_works_in_a_fork_of_a_process_that_has_verified() -> None:
    # In one of its own: of other threads here, a fork might take a lock along for ever.
    done = subprocess.run([sys.executable, "-c", FORKING], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
