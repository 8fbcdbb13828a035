"""Codes of masks: every mask comes back, what holds nothing costs little, and damage is seen."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import coding

SIZES = st.integers(1, 12)


@st.composite
def masks(draw):
    """Masks of some layers, with empty rows, columns and whole arrays."""
    shapes = {}
    for number in range(draw(st.integers(1, 5))):
        cout = draw(st.integers(1, 40))
        if draw(st.booleans()):
            shapes[f"l{number}/bias"] = (cout,)
        taps = draw(st.lists(st.integers(1, 3), max_size=2))
        shapes[f"l{number}/kernel"] = (*taps, draw(SIZES), cout)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrays = {}
    for path, shape in shapes.items():
        arrays[path] = mask = random.random(shape) < draw(st.sampled_from([0, 0.03, 0.3, 0.5, 0.9, 1]))
        mask[..., random.random(shape[-1]) < draw(st.sampled_from([0, 0.5]))] = False
        if len(shape) > 1:
            mask[..., random.random(shape[-2]) < draw(st.sampled_from([0, 0.5])), :] = False
    return shapes, arrays


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def refusal_of(shapes, code):
    """What is said of a code that is none; nothing of one that is."""
    try:
        coding.decode(shapes, code)
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=150)
@given(masks())
def test_any_mask_comes_back(case):
    shapes, arrays = case
    code = coding.encode(shapes, arrays)
    assert equal(coding.decode(shapes, code)[0], arrays)


@settings(max_examples=100)
@given(masks(), st.data())
def test_a_damaged_code_is_refused_or_is_another_mask(case, data):
    """In one line that begins with "mask: ", whatever bit is flipped or byte lost."""
    shapes, arrays = case
    code = bytearray(coding.encode(shapes, arrays))
    place = data.draw(st.integers(0, 8 * len(code) - 1))
    code[place // 8] ^= 1 << place % 8
    for damaged in (bytes(code), bytes(code[: place // 8]), bytes(code) + b"\0"):
        refusal = refusal_of(shapes, damaged)
        if refusal is None:
            found, _ = coding.decode(shapes, damaged)
            assert coding.encode(shapes, found) != damaged or not equal(found, arrays)
        else:
            assert refusal.startswith("mask: ")
            assert "\n" not in refusal


def test_the_code_is_below_the_entropy_of_each_array():
    """A mask as a construction makes it: dead columns, rows of different densities."""
    random = np.random.default_rng(0)
    shapes = {"a/kernel": (3, 3, 40, 80), "b/kernel": (3, 3, 80, 60)}
    arrays = {
        path: random.random(shape) < random.uniform(0.05, 0.6, (shape[-2], 1))
        for path, shape in shapes.items()
    }
    dead = random.random(80) < 0.4
    arrays["a/kernel"][..., dead] = False
    arrays["b/kernel"][..., dead, :] = False
    p = {path: mask.mean() for path, mask in arrays.items()}
    entropy = sum(
        m.size * -(p[k] * np.log2(p[k]) + (1 - p[k]) * np.log2(1 - p[k])) for k, m in arrays.items()
    )
    assert 8 * len(coding.encode(shapes, arrays)) < 0.85 * entropy


def test_rows_that_are_the_channels_before_cost_one_bit():
    random = np.random.default_rng(1)
    shapes = {"a/bias": (400,), "a/kernel": (5, 400), "b/kernel": (400, 3)}
    live = random.random(400) < 0.5
    arrays = {
        "a/bias": live & (np.arange(400) > 300),
        "a/kernel": np.tile(live & (np.arange(400) <= 300), (5, 1)),
        "b/kernel": np.tile(live[:, None], (1, 3)),
    }
    other = arrays | {"b/kernel": arrays["b/kernel"][::-1]}
    assert len(coding.encode(shapes, other)) - len(coding.encode(shapes, arrays)) >= 48


def test_univariate_columns_cost_the_number_of_their_row():
    random = np.random.default_rng(2)
    mask = np.zeros((16, 800), bool)
    mask[random.integers(0, 16, 800), np.arange(800)] = True
    code = coding.encode({"u/kernel": (16, 800)}, {"u/kernel": mask})
    assert len(code) <= 100 + 400 + 11  # a flag for each column, four bits for its row


def test_the_code_is_the_same_everywhere():
    random = np.random.Generator(np.random.PCG64(3))
    shapes = {"a/bias": (6,), "a/kernel": (3, 5, 6), "b/kernel": (6, 4)}
    arrays = {path: random.random(shape) < 0.4 for path, shape in shapes.items()}
    assert coding.encode(shapes, arrays).hex() == LITERAL


LITERAL = "8cbf0ffdf3017be46000200000000040af80a6651a0005b62e822271a11e22f750bb"


def test_many_rows_need_little_memory_beside_the_mask():
    shapes = {"a/kernel": (200_000, 4)}
    arrays = {"a/kernel": np.random.default_rng(4).random((200_000, 4)) < 0.5}
    tracemalloc.start()
    code = coding.encode(shapes, arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(code)
    assert equal(coding.decode(shapes, code)[0], arrays)


@pytest.mark.parametrize("code", [b"", b"\xff" * 40, bytes(7)])
def test_foreign_bytes_are_refused_or_hold_nothing(code: bytes):
    shapes = {"a/kernel": (3, 4)}
    if code == bytes(7):
        assert not coding.decode(shapes, code)[0]["a/kernel"].any()
        return
    with pytest.raises(ValueError, match="^mask: "):
        coding.decode(shapes, code)
