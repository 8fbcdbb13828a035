"""Dealt kernels: their masks come back from a few numbers, other masks are coded as all are."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth import Best, Source, Target, coding, construct, nn, ticket
from slth.coding import dealing
from slth.coding.bits import Reader, Writer
from slth.coding.head import read_head
from tests.coding.mask_reader import coded_mask

SIGNS = ("positive", "each", "both")


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


class Case:
    """A kernel of which the largest of each slot are kept, and one that reads it.

    Args:
      grid: weights are integers from -grid to grid, so that there are equal ones and zeros.
      unread: chance that a kept channel, or a row, is dead.
    """

    def __init__(self, seed, rows, channels, members, kept, signs, *, constants=3, grid=1000, unread=0.0):
        random = np.random.default_rng(seed)
        width = channels + constants
        self.shapes = {"u/bias": (width,), "u/kernel": (1, rows, width), "a/kernel": (width, 3)}
        weights = random.integers(-grid, grid + 1, (rows, width)).astype(np.float32)
        self.values = {"u/kernel": weights.reshape(self.shapes["u/kernel"])}
        if signs == "both":
            fits = {(row, 0): weights[row] != 0 for row in range(rows)}
        else:
            some = (1, -1) if signs == "each" else (1,)
            fits = {(row, sign): sign * weights[row] > 0 for row in range(rows) for sign in some}
        slots = {slot: [] for slot in fits}
        for k in range(channels):
            free = [slot for slot in slots if fits[slot][k] and len(slots[slot]) < members]
            if free:
                slots[min(free, key=lambda slot: len(slots[slot]))].append(k)
        mask = np.zeros(weights.shape, bool)
        for (row, _), own in slots.items():
            mask[row, sorted(own, key=lambda k: (-abs(weights[row, k]), k))[:kept]] = True
        mask &= (random.random(width) >= unread) & (random.random((rows, 1)) >= unread)
        live = mask.any(0) | (np.arange(width) >= channels)
        self.arrays = {
            "u/bias": np.arange(width) >= channels,
            "u/kernel": mask.reshape(self.shapes["u/kernel"]),
            "a/kernel": np.tile(live[:, None], (1, 3)),
        }
        self.candidates = {"u/kernel": (channels, members // (1 + (signs == "both")))}

    def encode(self, candidates=None):
        shapes, candidates = self.shapes, self.candidates if candidates is None else candidates
        return coding.encode(shapes, self.arrays, {}, self.values.__getitem__, candidates)

    def is_dealt(self, code):
        block = read_head(self.shapes, Reader(code), self.values.__getitem__)[1]["u/kernel"]
        return block.inputs is not None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_dealt_mask_comes_back(data):
    channels, signs = data.draw(st.integers(1, 40)), data.draw(st.sampled_from(SIGNS))
    members = data.draw(st.integers(1, 6)) * (1 + (signs == "both"))
    case = Case(
        *(data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, 4)), channels, members),
        *(data.draw(st.integers(1, members)), signs),
        grid=data.draw(st.sampled_from([1, 5, 1000])),
        unread=data.draw(st.sampled_from([0, 0.2])),
    )
    code = case.encode()
    assert equal(coding.decode(case.shapes, code, case.values.__getitem__)[0], case.arrays)
    assert equal(coded_mask(code, case.shapes, case.values.__getitem__), case.arrays)
    assert 8 * len(code) <= 8 * len(case.encode({})) + 7


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("grid", [3, 10**6])
def test_a_dealt_kernel_costs_a_few_numbers(signs: str, grid: int):
    case = Case(0, 16, 640, 20, 15, signs, grid=grid)
    code = case.encode()
    assert case.is_dealt(code)
    live = int(case.arrays["u/kernel"].sum())
    saved = 8 * (len(case.encode({})) - len(code))
    assert abs(saved - (643 + 4 * live - 2 - 4 * 10)) < 16  # ten bits for a number of a column


def test_a_channel_that_is_missing_costs_its_number():
    case = Case(1, 16, 640, 20, 15, "each")
    before = len(case.encode())
    for column in np.flatnonzero(case.arrays["u/kernel"].any((0, 1)))[::40]:
        case.arrays["u/kernel"][..., column] = case.arrays["a/kernel"][column] = False
    code = case.encode()
    assert case.is_dealt(code)
    assert 0 < len(code) - before <= 20  # 12 numbers of ten bits, and none of the rows


@pytest.mark.parametrize("candidate", [(640, 19), (300, 20), (0, 20), (644, 20)])
def test_a_mask_that_is_dealt_otherwise_is_coded_as_all_are(candidate: tuple[int, int]):
    case = Case(1, 16, 640, 20, 20, "positive")
    code = case.encode({"u/kernel": candidate})
    assert not case.is_dealt(code)
    assert code == case.encode({})


def test_a_weight_that_is_not_dealt_is_coded_as_all_are():
    case = Case(2, 16, 640, 20, 20, "positive")
    for row, column in ((0, 0), (0, 641)):
        kernel = case.arrays["u/kernel"].copy()
        kernel[0, row, column] ^= True
        other = case.arrays | {"u/kernel": kernel}
        code = coding.encode(case.shapes, other, {}, case.values.__getitem__, case.candidates)
        assert equal(coding.decode(case.shapes, code, case.values.__getitem__)[0], other)


def test_no_more_channels_are_dealt_than_a_reader_takes(monkeypatch):
    case = Case(3, 4, 200, 25, 20, "each")
    code = case.encode()
    monkeypatch.setattr(dealing, "MOST_DEALT", 199)
    assert not case.is_dealt(case.encode())
    with pytest.raises(ValueError, match="^mask: more than 199 channels are dealt, as of u/kernel$"):
        coding.decode(case.shapes, code, case.values.__getitem__)


@pytest.mark.parametrize(
    "numbers, signs, missing, message",
    [
        ((5, 2, 1), 1, [], "u/kernel keeps 1 of 2 members of 5 channels of 4, signs 1: none is dealt so"),
        ((4, 5, 1), 1, [], "u/kernel keeps 1 of 5 members of 4 channels of 4, signs 1: none is dealt so"),
        ((4, 2, 3), 1, [], "u/kernel keeps 3 of 2 members of 4 channels of 4, signs 1: none is dealt so"),
        ((4, 2, 0), 1, [], "u/kernel keeps 0 of 2 members of 4 channels of 4, signs 1: none is dealt so"),
        ((4, 2, 1), 3, [], "u/kernel keeps 1 of 2 members of 4 channels of 4, signs 3: none is dealt so"),
        ((4, 2, 2), 0, [4], "u/kernel has no column 4"),
        ((3, 2, 2), 0, [3], "u/kernel lacks a column that is not dealt"),
        ((4, 2, 2), 0, [0, 1, 2, 3], "u/kernel is said to keep weights, and in no place"),
    ],
)
def test_numbers_of_no_dealing_are_refused(numbers, signs, missing, message):
    """Those that are out of range before a weight is drawn."""

    def values(path):
        assert "none is dealt so" not in message
        return np.ones((2, 4), np.float32)

    head = Writer()
    head.bits([0, 1, 1, 0, 1, 1])  # no step, live, dealt, and two rows
    head.numbers(numbers, 3)
    head.numbers(signs, 2)
    head.numbers([len(missing), *missing], 3)
    with pytest.raises(ValueError, match=f"^mask: {message}$"):
        coding.decode({"u/kernel": (2, 4)}, head.packed() + bytes(20), values)


def test_a_bias_beyond_its_columns_is_refused():
    head = Writer()
    head.bits([1, 1, 0, 1])  # live, from column 5 on
    with pytest.raises(ValueError, match=r"^mask: a/bias has no column 5$"):
        coding.decode({"a/bias": (4,)}, head.packed() + bytes(20))


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_univariate_layers_of_a_ticket_are_dealt(depth: str):
    relu = nn.Activation("relu")
    network = nn.Network((5,), (nn.Dense("a", 24), relu, nn.Dense("b", 24), relu, nn.Dense("c", 24)))
    target = Target.of(network, nn.init(network, jax.random.key(1)))
    x = jax.random.normal(jax.random.key(2), (40, 5))
    made = construct(target, Source.of(target, 8, seed=3, depth=depth), Best(), x).ticket
    other = nn.Network((5,), (nn.Dense("a", 25), relu, nn.Dense("c", 24)))
    sizes = []
    for said in (network, other, None):
        again = dataclasses.replace(made, target=said)
        content = ticket.to_bytes(again)
        assert ticket.from_bytes(content) == again
        sizes.append(len(coding.encode(*_parts(again))))
    layers = 1 if depth == "L+1" else 3
    assert sizes[1] == sizes[2] > sizes[0] + 20 * layers
    blocks = read_head(_parts(made)[0], Reader(coding.encode(*_parts(made))), _parts(made)[3])[1]
    assert sum(block.inputs is not None for block in blocks.values()) == layers


def _parts(made):
    seen = ticket._Seen(made.source)
    return seen.shapes, seen.masks(made), {}, seen.values, ticket._candidates(made)
