"""The pure half of proof of access: which ranges are drawn, and what an honest holder answers."""

from __future__ import annotations

import hashlib
import io
import math
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_blobstore import proof
from django_blobstore.proof import HMAC, SEED, PutResponse, RequestResponse, answer, draw_ranges, expected, sticky_seed
from tests.streams import sha384

MIB = 1024 * 1024
WHOLE_UP_TO = 64 * MIB
LARGE = [WHOLE_UP_TO + 1, WHOLE_UP_TO + 4096, 100 * MIB, 2**30, 2**40 + 12_345, 2**62]
DATA = bytes(range(256)) * 16


def request(
    *ranges: tuple[int, int], length: int = 4096, nonce: bytes = b"\x01" * 32, algorithm: str = HMAC
) -> RequestResponse:
    start, size = ranges[0]
    return RequestResponse("r1", start, size, nonce=nonce, ranges=ranges, length=length, algorithm=algorithm)


@pytest.mark.parametrize(
    ("ranges", "vector"),
    [
        (
            [(0, 4096)],
            "1b9a93578f3e6e015e1df2644361d7fa1708792e8b26a33992b7f7043c20aa304728d09a447f17fb00b0854772ab629a",
        ),
        (
            [(10, 512), (3000, 100)],
            "94022ab8db4e28b2762c5223eab21308cf62dced10babdd5f0c98eeac40e242af30f0ecd2c44247938236f08c4c3db9e",
        ),
    ],
)
def test_the_answers_are_those_of_the_test_vectors(ranges: list[tuple[int, int]], vector: str) -> None:
    asked = request(*ranges)
    assert answer(DATA, asked, sha384(DATA)) == PutResponse("r1", vector)
    assert expected(asked, sha384(DATA), [[DATA[start : start + size]] for start, size in ranges]) == vector


def test_the_proof_is_the_one_the_design_spells_out() -> None:
    message = b"blobstore-poa-v2\0" + b"r1" + b"\0" + bytes.fromhex(sha384(DATA))
    message += (4096).to_bytes(8, "big") + (2).to_bytes(4, "big")
    for start, size in ((10, 512), (3000, 100)):
        message += start.to_bytes(8, "big") + size.to_bytes(8, "big") + DATA[start : start + size]
    # HMAC by its definition (RFC 2104), so that nothing is shared with the code under test.
    key = (b"\x01" * 32).ljust(128, b"\0")
    inner = hashlib.sha384(bytes(byte ^ 0x36 for byte in key) + message).digest()
    outer = hashlib.sha384(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()
    assert answer(DATA, request((10, 512), (3000, 100)), sha384(DATA)).sha384 == outer


@pytest.mark.parametrize(
    "other",
    [
        request((0, 4095)),
        request((1, 4095)),
        request((0, 4096), nonce=b"\x02" * 32),
        request((0, 4096), (0, 1)),
        RequestResponse("r2", 0, 4096, nonce=b"\x01" * 32, ranges=((0, 4096),), length=4096),
    ],
)
def test_every_part_of_the_request_counts(other: RequestResponse) -> None:
    assert answer(DATA, other, sha384(DATA)).sha384 != answer(DATA, request((0, 4096)), sha384(DATA)).sha384


def test_the_length_and_the_hash_of_the_content_count() -> None:
    asked = request((0, 10))
    right = answer(DATA, asked, sha384(DATA)).sha384
    assert answer(DATA + b"x", asked, sha384(DATA)).sha384 != right
    assert answer(DATA, asked, sha384(b"other")).sha384 != right


@given(st.binary(min_size=1, max_size=300), st.data())
def test_holder_and_server_agree_however_the_bytes_are_cut(content: bytes, data: st.DataObject) -> None:
    starts = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5))
    ranges = [(start, data.draw(st.integers(0, len(content) - start))) for start in starts]
    cut = data.draw(st.integers(1, 50))
    asked = request(*ranges, length=len(content))
    pieces = [[content[start : start + size][at : at + cut] for at in range(0, size, cut)] for start, size in ranges]
    assert answer(io.BytesIO(content), asked, sha384(content)).sha384 == expected(asked, sha384(content), pieces)


def test_a_holder_of_too_little_is_told_so() -> None:
    with pytest.raises(EOFError, match=r"\(3000, 2000\)"):
        answer(DATA, request((3000, 2000)), sha384(DATA))


def test_a_holder_may_give_short_reads() -> None:
    class Short(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    asked = request((10, 512), (3000, 100))
    assert answer(Short(DATA), asked, sha384(DATA)) == answer(DATA, asked, sha384(DATA))


@pytest.mark.parametrize("content", [b"", b"x"])
@pytest.mark.parametrize("algorithm", [HMAC, SEED])
def test_the_shortest_contents_can_be_proved(content: bytes, algorithm: str) -> None:
    ranges = draw_ranges(len(content), b"seed", algorithm=algorithm)
    assert ranges == [(0, len(content))]
    asked = request(*ranges, length=len(content), algorithm=algorithm)
    assert answer(content, asked, sha384(content)).sha384 == expected(asked, sha384(content), [[content]])


def test_the_proof_of_nothing_still_depends_on_the_nonce() -> None:
    proofs = {answer(b"", request((0, 0), nonce=nonce), sha384(b"")).sha384 for nonce in (b"a", b"b")}
    assert len(proofs) == 2
    assert sha384(b"") not in proofs


@pytest.mark.parametrize("length", [0, 1, 2, 4096, 1_000_000, WHOLE_UP_TO])
def test_up_to_64_mib_the_whole_is_asked_for(length: int) -> None:
    assert draw_ranges(length, b"seed") == [(0, length)]


@pytest.mark.parametrize("length", LARGE)
def test_above_64_mib_there_is_one_sample_in_each_of_460_strata_and_the_end(length: int) -> None:
    *samples, last = draw_ranges(length, b"seed")
    assert last == (length - 4096, 4096)
    assert len(samples) == 460
    stratum = (length - 4096) / 460
    for number, (start, size) in enumerate(samples):
        assert size == 4096
        assert number * stratum - 1 <= start < (number + 1) * stratum
        assert start + size <= length


@pytest.mark.parametrize("length", LARGE)
def test_one_seed_draws_the_same_ranges_and_another_one_others(length: int) -> None:
    assert draw_ranges(length, b"seed") == draw_ranges(length, b"seed")
    same = sum(one == other for one, other in zip(draw_ranges(length, b"a"), draw_ranges(length, b"b"), strict=True))
    assert same <= 3  # the end, and little by chance


def strata(length: int) -> list[tuple[int, int]]:
    return list(pairwise((length - 4096) * number // 460 for number in range(461)))


def chance_of(length: int, held: float) -> float:
    """Return the chance of the luckiest cheater, who lacks the same share of each stratum, in one piece.

    Lacking f_i of stratum i he passes with at most the product of (1 - f_i), which is greatest where all are equal.
    """
    lacked = [(high - low) * (1 - held) for low, high in strata(length)]
    return math.prod(1 - (lack + 4095) / (high - low) for lack, (low, high) in zip(lacked, strata(length), strict=True))


@pytest.mark.parametrize("length", LARGE)
def test_a_holder_of_99_percent_passes_less_than_once_in_a_hundred_times(length: int) -> None:
    assert chance_of(length, 0.99) < 0.01
    assert chance_of(length, 0.9) < 1e-20


def test_a_cheater_passes_no_more_often_than_computed() -> None:
    length, times = 2**30, 500
    passed = sum(passes(draw_ranges(length, str(number).encode()), length, 0.99) for number in range(times))
    assert passed / times < 0.01
    assert passed > 0, "He must pass now and then, or the test does not test him."


def passes(ranges: list[tuple[int, int]], length: int, held: float) -> bool:
    """Whether a cheater who lacks the last part of each stratum, and has the end, has all the bytes asked for."""
    has_up_to = [low + int((high - low) * held) for low, high in strata(length)]
    return all(start + size <= limit for (start, size), limit in zip(ranges, has_up_to, strict=False))


def test_samples_are_spread_evenly_over_their_strata() -> None:
    length, tenths = 2**30, [0] * 10
    for number in range(200):
        for (start, _), (low, high) in zip(draw_ranges(length, str(number).encode()), strata(length), strict=False):
            tenths[10 * (start - low) // (high - low)] += 1
    assert all(0.95 < tenth / (200 * 46) < 1.05 for tenth in tenths)


@pytest.mark.parametrize("length", [2, 3, 10, 4096, 2**30])
def test_the_one_range_of_the_seed_is_half_at_least_and_never_all_and_may_reach_the_end(length: int) -> None:
    drawn = [draw_ranges(length, str(number).encode(), algorithm=SEED) for number in range(300)]
    assert {len(ranges) for ranges in drawn} == {1}
    for [(start, size)] in drawn:
        assert start >= 0
        assert start + size <= length
        assert length // 2 <= size < length
    ends = {start + size for [(start, size)] in drawn}
    assert max(ends) > length * 0.99
    assert min(start for [(start, _)] in drawn) < max(length * 0.01, 1)


@pytest.mark.parametrize("length", [2, 3, 10])
def test_the_seeds_range_may_hold_the_last_byte_and_the_first(length: int) -> None:
    drawn = [draw_ranges(length, str(number).encode(), algorithm=SEED)[0] for number in range(300)]
    assert any(start + size == length for start, size in drawn)
    assert any(start == 0 for start, _ in drawn)


def test_the_answer_of_the_seed_is_the_plain_hash_of_the_range() -> None:
    asked = RequestResponse("r1", 10, 100, length=4096, algorithm=SEED)
    assert answer(DATA, asked, sha384(DATA)).sha384 == sha384(DATA[10:110])


def test_the_ranges_depend_on_every_fact_and_on_the_secret() -> None:
    facts = ("alice", "scope", "ab" * 48, "2026-01-01", 0)
    others = [("bob", *facts[1:]), ("alice", "", *facts[2:]), (*facts[:4], 1), ("alices", "cope", *facts[2:])]
    seeds = [sticky_seed(b"secret", *facts), *(sticky_seed(b"secret", *other) for other in others)]
    assert len({*seeds, sticky_seed(b"other", *facts)}) == 6
    assert sticky_seed(b"secret", *facts) == seeds[0]


def test_ids_and_nonces_are_never_the_same() -> None:
    assert len({proof.new_request_id() for _ in range(1000)}) == 1000
    assert all(len(proof.new_request_id()) == 22 for _ in range(10))
    assert len({proof.new_nonce() for _ in range(1000)}) == 1000
    assert len(proof.new_nonce()) == 32


def test_a_client_can_use_it_without_django() -> None:
    check = "import sys, django_blobstore.proof; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
