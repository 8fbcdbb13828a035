"""The range coder: round trips, its size against the entropy, and refusal of codes it does not write."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slth.coding import rans


def draw(classes, seed=0):
    bits = np.random.default_rng(seed).random((len(classes), 8)) < np.asarray(classes)[:, None] / 64
    return np.packbits(bits, 1)[:, 0]


def parts_of(symbols, classes):
    """Parts of one class each: classes are sorted."""
    edges = np.flatnonzero(np.diff(classes)) + 1
    firsts = np.concatenate([[0], edges])[: len(classes)]
    parts = np.split(symbols, edges)[: len(firsts)]
    return [(int(classes[first]), part) for first, part in zip(firsts, parts, strict=True)]


def sizes_of(parts):
    return [(k, len(symbols)) for k, symbols in parts]


def decoded(code, sizes):
    """The symbols of parts."""
    decoder = rans.Decoder(code, rans.lanes(sizes))
    parts = [decoder.take(k, count) for k, count in sizes]
    decoder.end()
    return parts


def same(found, parts):
    return all(np.array_equal(a, b) for a, (_, b) in zip(found, parts, strict=True))


def test_frequencies_are_those_of_independent_bits():
    """Recomputed with fractions; every byte can be coded, and each class adds up to 2^16."""
    for k in range(1, 64):
        exact = [
            Fraction(k, 64) ** s.bit_count() * Fraction(64 - k, 64) ** (8 - s.bit_count()) for s in range(256)
        ]
        wanted = [max(1, math.floor(2**16 * p)) for p in exact]
        likeliest = 0 if k <= 32 else 255
        assert exact[likeliest] == max(exact)
        wanted[likeliest] += 2**16 - sum(wanted)
        assert rans.tables(k).frequency.tolist() == wanted
        assert min(wanted) >= 1


PARTS = st.lists(st.tuples(st.integers(1, 63), st.binary(max_size=60)), max_size=8)


@given(PARTS)
def test_any_symbols_come_back(parts):
    parts = [(k, np.frombuffer(symbols, np.uint8)) for k, symbols in parts]
    assert same(decoded(rans.encode(parts), sizes_of(parts)), parts)


@pytest.mark.parametrize("lane_bytes", [1, 10])
@given(PARTS)
def test_any_symbols_come_back_from_many_lanes(lane_bytes, parts):
    """Parts that end within a step, and chunks of steps."""
    parts = [(k, np.frombuffer(symbols, np.uint8)) for k, symbols in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "LANE_BYTES", lane_bytes)
        patch.setattr(rans, "CHUNK", 50)
        assert same(decoded(rans.encode(parts), sizes_of(parts)), parts)


@pytest.mark.parametrize("count", [1, 4096, 4097, 50_000])
def test_the_size_is_that_of_the_entropy(count: int):
    classes = np.sort(np.random.default_rng(count).integers(1, 64, count)).astype(np.uint8)
    parts = parts_of(draw(classes), classes)
    code = rans.encode(parts)
    assert same(decoded(code, sizes_of(parts)), parts)
    assert len(code) % 2 == 0
    p = classes / 64
    entropy = -8 * (p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum()
    assert 8 * len(code) <= 1.01 * entropy + 24 * rans.lanes(sizes_of(parts)) + 60 * math.sqrt(count)


def test_the_code_is_the_same_everywhere():
    """Literal bytes: another NumPy or machine must write them too."""
    classes = np.array([1, 1, 5, 20, 32, 44, 63, 63], np.uint8)
    symbols = np.array([0, 1, 2, 40, 170, 0, 255, 254], np.uint8)
    assert rans.encode(parts_of(symbols, classes)).hex() == LITERAL


LITERAL = "b209f12d00aa9eef"


def test_a_code_of_other_length_or_state_is_refused():
    parts = [(20, draw(np.full(9000, 20, np.uint8)))]
    sizes = sizes_of(parts)
    code, lanes = rans.encode(parts), rans.lanes(sizes)
    for other in (code[:-2], code[:-1], code[:4], b"", code + b"\0\0", bytes(4 * lanes) + code[4 * lanes :]):
        with pytest.raises(ValueError, match="^mask: its code is "):
            decoded(other, sizes)


def test_lanes_follow_the_bytes_that_are_expected():
    """A symbol of class 32 takes a byte, one of class 16 six bits and a half."""
    assert rans.lanes([]) == rans.lanes([(32, 0)]) == 0
    assert rans.lanes([(32, 1)]) == rans.lanes([(32, rans.LANE_BYTES)]) == 1
    assert rans.lanes([(32, 10 * rans.LANE_BYTES)]) == 10
    assert rans.lanes([(16, 100 * rans.LANE_BYTES)]) == 82
    assert rans.lanes([(32, 10**8)]) == rans.MOST_LANES
