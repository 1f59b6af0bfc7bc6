"""Whole contents are recognized whatever hash, pieces and threads there are."""

from __future__ import annotations

import hashlib
import multiprocessing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore.digests import STORED_ALGORITHMS
from django_blobstore.verification import Verification
from tests.streams import MIB, content_of

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


def test_it_works_in_a_fork_of_a_process_that_has_verified() -> None:
    assert verified(CONTENT, hashes(), [MIB])
    child = multiprocessing.get_context("fork").Process(target=verify_or_fail)
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


def verify_or_fail() -> None:
    assert verified(CONTENT, hashes(), [MIB])
