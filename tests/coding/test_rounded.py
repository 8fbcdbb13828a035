"""Rounded kernels: masks come back from integers, which cost their entropy; all else is coded directly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import coding
from slth.coding import mask, planes, rounded
from slth.coding.bits import Reader, Writer
from slth.coding.head import read_head, view
from tests.coding.rounded_case import GRID, Case


@st.composite
def cases(draw):
    inputs = draw(st.integers(1, 4))
    channels = draw(st.lists(st.integers(-2, inputs - 1), min_size=1, max_size=9))
    taps = draw(st.lists(st.integers(1, 2), max_size=2))
    step = draw(st.one_of(st.integers(2**40, 2**50), st.integers(2**44, 2**47)))
    join, dead = draw(st.booleans()), draw(st.sampled_from([0, 0.4]))
    seed = draw(st.integers(0, 2**32 - 1))
    return Case(seed, inputs, channels, taps, draw(st.integers(1, 5)), step, join=join, dead=dead, most=4000)


def refusal_of(case, code):
    """What is said of a code that is none; nothing of one that is."""
    try:
        case.decode(code)
    except ValueError as error:
        return str(error)
    return None


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_any_rounded_mask_comes_back(case):
    code = case.encode()
    arrays, steps = case.decode(code)
    assert equal(arrays, case.arrays)
    assert steps == case.steps
    assert coding.encode(case.shapes, arrays, steps, case.values.__getitem__) == code
    if case.integers:
        assert case.rounding(code) is not None


@pytest.mark.parametrize("members", range(1, 9))
@pytest.mark.parametrize("join", [False, True])
def test_the_integers_are_those_of_the_mask(members: int, join: bool):
    case = Case(members, 3, [0, 1, 2, -1] * members, (2,), 3, 2**46, join=join)
    weights = {path: case.values[path].reshape(view(shape)) for path, shape in case.shapes.items()}
    kept = {path: case.arrays[path].reshape(weights[path].shape) for path in weights}
    live = tuple(kept["a/kernel"].any(axes) for axes in ((1, 2), (0, 2), (0, 1)))
    front = rounded.Front(kept["u/kernel"], case.arrays["u/bias"], weights["u/kernel"])
    kernel = rounded.kernel_of(front, live, 2**46, join=join)
    found = rounded.integers_of(kernel, weights["a/kernel"], kept["a/kernel"], 100)
    wanted = [one[np.ix_(live[0], live[2])].reshape(-1) for one in case.integers]
    assert found.tolist() == np.array(wanted).tolist()
    assert case.rounding(case.encode()).join == (join and members > 1)  # one member has one sign


@pytest.mark.parametrize("step", [1, 2**30, 2**45, 65 * 2**40, 2**50])
def test_a_mask_of_another_step_is_coded_directly(step: int):
    case = Case(0, 3, [0, 1, 2] * 6, (3, 3), 5, 2**46)
    code = case.encode(**{"a/kernel": step})
    assert case.rounding(code) is None
    arrays, steps = case.decode(code)
    assert equal(arrays, case.arrays)
    assert steps == {"a/kernel": step}


def test_steps_of_any_kernel_are_kept():
    """Of a front, of a kernel that keeps nothing, and of one behind a front that is itself rounded."""
    case = Case(1, 2, [0, 1] * 4, (), 6, 2**46)
    case.shapes |= {"b/kernel": (6, 2), "c/kernel": (2, 3)}
    case.arrays |= {"b/kernel": np.eye(6, 2, dtype=bool), "c/kernel": np.zeros((2, 3), bool)}
    case.values |= {path: np.ones(case.shapes[path], np.float32) for path in ("b/kernel", "c/kernel")}
    case.steps |= {"u/kernel": 7, "b/kernel": 2**48, "c/kernel": 2**50}
    case.steps = {path: case.steps[path] for path in case.shapes if path in case.steps}
    code = case.encode()
    arrays, steps = case.decode(code)
    assert equal(arrays, case.arrays)
    assert list(steps.items()) == list(case.steps.items())
    blocks = read_head(case.shapes, Reader(code))[1]
    assert {path for path, block in blocks.items() if block.rounding} == {"a/kernel"}


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_a_damaged_code_is_refused_or_is_another_mask(case, data):
    code = bytearray(case.encode())
    place = data.draw(st.integers(0, 8 * len(code) - 1))
    code[place // 8] ^= 1 << place % 8
    for damaged in (bytes(code), bytes(code[: place // 8]), bytes(code) + b"\0\0"):
        refusal = refusal_of(case, damaged)
        if refusal is None:
            arrays, steps = case.decode(damaged)
            again = coding.encode(case.shapes, arrays, steps, case.values.__getitem__)
            assert again != damaged or not equal(arrays, case.arrays) or steps != case.steps
        else:
            assert refusal.startswith("mask: ")
            assert "\n" not in refusal


def test_a_group_of_many_rows_is_refused(monkeypatch):
    case = Case(0, 1, [0] * 11, (), 12, 2**46, join=True, dead=0)
    assert case.rounding(case.encode()) is None
    with monkeypatch.context() as patched:
        patched.setattr(rounded, "MOST_MEMBERS", 11)
        code = case.encode()
    assert refusal_of(case, code) == "mask: a/kernel has a group of 11 rows: 1 to 10 are allowed"


def test_many_planes_are_refused(monkeypatch):
    case = Case(0, 1, [0] * 8, (), 9, 2**41, join=True, dead=0, most=127)
    assert max(np.abs(one).max() for one in case.integers) > 64
    with monkeypatch.context() as patched:
        patched.setattr(planes, "MOST_PLANES", 128)
        patched.setattr(planes, "cheapest_shift", lambda integers: 0)
        code = case.encode()
    assert refusal_of(case, code) == "mask: a/kernel has an integer of more than 64 planes"


def test_large_products_are_refused(monkeypatch):
    case = Case(0, 3, [0, 1, 2] * 6, (3,), 9, 2**41)
    case.values["a/kernel"] *= np.float32(512)
    case.steps["a/kernel"] *= 512
    assert case.rounding(case.encode()) is None
    with monkeypatch.context() as patched:
        patched.setattr(rounded, "LARGEST_PRODUCT", 1024.0)
        code = case.encode()
    assert refusal_of(case, code) == "mask: a/kernel has a product of weights that is not below 256"


def test_a_kernel_without_groups_is_refused(monkeypatch):
    case = Case(0, 2, [-1, -1, -1], (), 4, 2**46, dead=0)
    case.arrays["u/kernel"][:, 0] = True  # two entries: no univariate channel
    forged = rounded.Kernel(
        np.zeros((1, 1), int), np.zeros(3, bool), np.ones(3), np.arange(1), np.arange(4), 2**46
    )
    with monkeypatch.context() as patched:
        patched.setattr(mask, "_rounded", lambda *_: (False, forged, np.ones((1, 4), np.int16)))
        code = case.encode()
    assert refusal_of(case, code) == "mask: a/kernel has a group of 0 rows: 1 to 10 are allowed"


@pytest.mark.parametrize("layers", ["a", "uab"])
def test_a_front_that_is_missing_or_rounded_is_refused(layers: str):
    head = Writer()
    for layer in layers:
        head.bits(layer != "u")
        head.numbers(2**40, 50 * (layer != "u"))
        head.bits([1, 0, 1, 1] if layer == "u" else [1, 1, 1])  # live, not dealt, in both columns
        head.bits([1] if layer in "ab" and layers != "a" else [0, 1, 1])  # rows
        head.bits([1, 0, 0, 0, 0] if layer != "u" else [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    shapes = {f"{layer}/kernel": (2, 2) for layer in layers}
    with pytest.raises(
        ValueError, match=f"^mask: {layers[-1]}/kernel is rounded, and no layer before it holds"
    ):
        coding.decode(shapes, head.packed() + bytes(100))


def test_rows_of_no_group_at_no_tap_are_refused():
    case = Case(0, 2, [0, 1, -1] * 3, (), 4, 2**46, dead=0)
    code = case.encode()
    assert case.rounding(code) is not None
    damaged = (bytearray(code) for _ in range(8 * len(code)))
    said = set()
    for place, one in enumerate(damaged):
        one[place // 8] ^= 1 << place % 8
        said.add(refusal_of(case, bytes(one)))
    assert "mask: a/kernel is said to keep weights of no group, and at no tap" in said


def test_rows_of_no_group_cost_nothing_at_other_taps():
    """Constants of a padded convolution are read at its middle tap alone."""
    sizes = []
    for taps in ([4], [1, 4, 7], list(range(9))):
        case = Case(1, 2, [0, 1] * 6 + [-1] * 40, (3, 3), 32, 2**46, dead=0)
        kept = case.arrays["a/kernel"].reshape(9, -1, 32)
        kept[:, 12:] = False
        kept[np.ix_(taps, range(12, 52))] = np.random.default_rng(2).random((len(taps), 40, 32)) < 0.5
        code = case.encode()
        assert case.rounding(code) is not None
        assert equal(case.decode(code)[0], case.arrays)
        sizes.append(len(code))
    assert abs(sizes[1] - sizes[0] - 2 * 160) < 16
    assert abs(sizes[2] - sizes[0] - 8 * 160) < 16


def test_integers_that_no_subset_stands_for_are_refused():
    case = Case(3, 2, [0, 1] * 5, (), 6, 2**46)
    code = case.encode()
    case.values["a/kernel"] *= np.float32(0.25)
    assert "a/kernel has an integer" in refusal_of(case, code)
    assert "that no subset stands for" in refusal_of(case, code)


def test_a_reader_without_the_weights_says_so():
    case = Case(4, 2, [0, 1] * 5, (), 6, 2**46)
    message = "^mask: a/kernel is coded by the source's parameters: give them"
    with pytest.raises(ValueError, match=message):
        coding.decode(case.shapes, case.encode())
    with pytest.raises(ValueError, match=message):
        coding.encode(case.shapes, case.arrays, case.steps)


def test_the_code_is_near_the_entropy_of_the_integers():
    """Of a kernel 9 x 64 x 64 of seven members, each integer from -64 to 63 a subset, with its head."""
    random, step = np.random.default_rng(5), 2**42
    parts = np.array([1, 2, 4, 8, 16, 32, -64])
    shapes = {"u/kernel": (64, 448), "a/kernel": (3, 3, 448, 64)}
    input_of = np.repeat(np.arange(64), 7)
    arrays = {"u/kernel": np.arange(64)[:, None] == input_of}
    weights = np.broadcast_to((parts * (step * GRID))[np.tile(np.arange(7), 64)][:, None], shapes["a/kernel"])
    values = {
        "u/kernel": np.ones(shapes["u/kernel"], np.float32),
        "a/kernel": weights.astype(np.float32) * GRID,
    }
    base = len(coding.encode(shapes, arrays | {"a/kernel": np.zeros(shapes["a/kernel"], bool)}))
    for spread in (0.4, 0.6, 1.0, 2.0):
        q = np.rint(random.laplace(0, spread, (9, 64, 64))).astype(int)
        bits = q[:, :, None] >> np.arange(7)[:, None] & 1
        arrays["a/kernel"] = bits.reshape(shapes["a/kernel"]).astype(bool)
        code = coding.encode(shapes, arrays, {"a/kernel": step}, values.__getitem__)
        entropy = 0.0
        for row in q.transpose(1, 0, 2).reshape(64, -1):
            share = np.unique(row, return_counts=True)[1] / row.size
            entropy -= row.size * (share * np.log2(share)).sum()
        assert 8 * (len(code) - base) < 1.02 * entropy
        assert equal(coding.decode(shapes, code, values.__getitem__)[0], arrays)
