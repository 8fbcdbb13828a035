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


def decoded(code, classes, part=1000):
    """The symbols, taken in parts."""
    decoder = rans.Decoder(code, rans.lanes(len(classes)))
    parts = [decoder.take(classes[first : first + part]) for first in range(0, len(classes), part)]
    decoder.end()
    return np.concatenate([np.zeros(0, np.uint8), *parts])


def test_frequencies_are_those_of_independent_bits():
    """Recomputed with fractions; every byte can be coded, and each class adds up to 2^16."""
    found = rans.tables().frequency
    for k in range(1, 64):
        exact = [
            Fraction(k, 64) ** s.bit_count() * Fraction(64 - k, 64) ** (8 - s.bit_count()) for s in range(256)
        ]
        wanted = [max(1, math.floor(2**16 * p)) for p in exact]
        likeliest = 0 if k <= 32 else 255
        assert exact[likeliest] == max(exact)
        wanted[likeliest] += 2**16 - sum(wanted)
        assert found[k].tolist() == wanted
        assert min(wanted) >= 1


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 63)), max_size=60))
def test_any_symbols_come_back(pairs):
    symbols, classes = (np.array([pair[i] for pair in pairs], np.uint8) for i in (0, 1))
    assert np.array_equal(decoded(rans.encode(symbols, classes), classes), symbols)


@pytest.mark.parametrize("count", [1, 4096, 4097, 50_000])
def test_the_size_is_that_of_the_entropy(count: int):
    classes = np.sort(np.random.default_rng(count).integers(1, 64, count)).astype(np.uint8)
    symbols = draw(classes)
    code = rans.encode(symbols, classes)
    assert np.array_equal(decoded(code, classes), symbols)
    assert len(code) % 2 == 0
    p = classes / 64
    entropy = -8 * (p * np.log2(p) + (1 - p) * np.log2(1 - p)).sum()
    assert 8 * len(code) <= 1.01 * entropy + 32 * rans.lanes(count) + 60 * math.sqrt(count)


def test_the_code_is_the_same_everywhere():
    """Literal bytes: another NumPy or machine must write them too."""
    classes = np.array([1, 1, 5, 20, 32, 44, 63, 63], np.uint8)
    symbols = np.array([0, 1, 2, 40, 170, 0, 255, 254], np.uint8)
    assert rans.encode(symbols, classes).hex() == LITERAL


LITERAL = "b209f12d00aa9eef"


def test_a_code_of_other_length_or_state_is_refused():
    classes = np.full(9000, 20, np.uint8)
    symbols = draw(classes)
    code = rans.encode(symbols, classes)
    for other in (
        code[:-2],
        code[:-1],
        code[:4],
        b"",
        code + b"\0\0",
        bytes(4 * rans.lanes(9000)) + code[12:],
    ):
        with pytest.raises(ValueError, match="^mask: its code is "):
            decoded(other, classes)
