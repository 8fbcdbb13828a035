"""Safe taps against convolutions of constants; biases against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest

from slth.construction.biases import (
    CHUNK,
    Goal,
    constant_variables,
    fill,
    safe_taps,
    solve_biases,
    solve_in_units,
)
from slth.construction.state import Read, Stats
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import Flatten
from slth.subset_sum import Objective, unpack
from tests.construction.parts import make_part, problem_of
from tests.subset_sum.reference import brute_force

# Lengths, taps, stride, dilation, padding before and after each axis.
CASES = {
    "same": ((5,), (3,), (1,), (1,), ((1, 1),)),
    "same, even": ((5,), (4,), (1,), (1,), ((1, 2),)),
    "valid": ((6,), (3,), (1,), (1,), ((0, 0),)),
    "stride 2, PyTorch": ((8,), (3,), (2,), (1,), ((1, 1),)),
    "stride 2, XLA": ((8,), (3,), (2,), (1,), ((0, 1),)),
    "stride 2, odd length": ((7,), (3,), (2,), (1,), ((1, 1),)),
    "stride 3": ((9,), (5,), (3,), (1,), ((2, 0),)),
    "last window beyond the input": ((6,), (2,), (2,), (1,), ((0, 2),)),
    "before only": ((6,), (3,), (1,), (1,), ((2, 0),)),
    "after only": ((6,), (3,), (1,), (1,), ((0, 2),)),
    "wide padding": ((3,), (5,), (1,), (1,), ((4, 4),)),
    "dilation": ((9,), (3,), (1,), (2,), ((2, 2),)),
    "dilation, stride": ((9,), (3,), (2,), (3,), ((3, 1),)),
    "dilation, asymmetric": ((8,), (4,), (1,), (2,), ((2, 4),)),
    "one tap, stride": ((5,), (1,), (2,), (1,), ((0, 0),)),
    "one position": ((3,), (3,), (1,), (1,), ((0, 0),)),
    "kernel wider than the input": ((2,), (3,), (1,), (1,), ((1, 1),)),
    "two axes": ((5, 6), (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "two axes, mixed": ((8, 5), (3, 2), (2, 1), (1, 2), ((1, 1), (0, 2))),
    "stem of 7x7": ((16, 16), (7, 7), (2, 2), (1, 1), ((3, 3), (3, 3))),
}


@pytest.mark.parametrize("size, taps, stride, dilation, padding", CASES.values(), ids=CASES.keys())
def test_a_constant_through_a_safe_tap_is_the_same_everywhere(size, taps, stride, dilation, padding):
    count = int(np.prod(taps))
    layer = Conv("a", count, taps, stride, padding, dilation, use_bias=False)
    one_tap_each = jnp.eye(count).reshape(*taps, 1, count)
    y = np.asarray(layer.apply({"kernel": one_tap_each}, jnp.ones((1, *size, 1)))).reshape(-1, count)
    np.testing.assert_array_equal(safe_taps(layer, Read((*size, 1))), (y == 1).all(0))


def test_all_positions_are_safe_for_a_dense_layer():
    assert safe_taps(Dense("a", 2), Read((4, 3, 2), Flatten("chw"))).tolist() == [True] * 12


def test_constants_reach_through_safe_taps_only_and_zeros_never(monkeypatch):
    part = make_part(0, constants=(2.0, 0.0, -1.0))
    both = part._replace(safe=np.array([True, True, False]))
    places, values = constant_variables((part, both))
    assert places == [(0, 1, 10), (0, 1, 12), (1, 0, 10), (1, 0, 12), (1, 1, 10), (1, 1, 12)]
    assert values.tolist() == [2, -1, 2, -1, 2, -1]
    monkeypatch.setattr("slth.construction.biases.MOST", 3)
    assert constant_variables((part, both))[0] == places[:3]


@pytest.mark.parametrize("objective", [Objective.BEST, Objective.SMALLEST])
@pytest.mark.parametrize("count", [3, 12, 20])
def test_biases_are_the_sums_of_what_the_mask_keeps(objective, count):
    rng = np.random.default_rng(count)
    constants = tuple(rng.uniform(-2, 2, count).round(2))
    part = make_part(count, constants=constants)
    wanted = rng.uniform(-1.5, 1.5, 15)
    wanted[4] = 0
    columns = rng.permutation(part.random.shape[2])[:15]
    filling = fill(problem_of([part]), 0.01)
    (realised,), stats = solve_biases(filling, [Goal(wanted)], columns, objective)
    (mask,) = filling.masks
    assert not mask[[0, 2]].any(), "unsafe taps"
    assert not mask[:, :10].any(), "copies"
    weights = part.random.whole()[1, 10:][:, columns].astype(np.float64)
    kept = mask[1, 10:][:, columns]
    sums = (kept * weights * np.array(constants)[:, None]).sum(0)
    np.testing.assert_allclose(realised, sums, atol=1e-12)
    off = np.abs(wanted - sums)
    asked = wanted != 0
    assert not kept[:, ~asked].any()
    assert (stats.problems, stats.size) == (14, kept[:, asked].sum())
    assert stats.unsolved == (off[asked] > 0.01).sum()
    np.testing.assert_allclose(
        [stats.error, stats.max_error], [off[asked].sum(), off[asked].max()], atol=1e-9
    )
    assert stats.sizes == tuple(np.bincount(kept[:, asked].sum(0)))
    if count <= CHUNK:  # one exact problem each
        x = weights[:, asked] * np.array(constants)[:, None]
        best = brute_force(x, wanted[asked], objective, tolerance=0.01)
        chosen = (best >> np.arange(count)[:, None]) & 1
        least = np.abs(wanted[asked] - (chosen * x).sum(0))
        if objective is Objective.BEST:
            np.testing.assert_allclose(off[asked], least, atol=1e-6)
        else:
            assert np.array_equal(kept[:, asked].sum(0)[least <= 0.009], chosen.sum(0)[least <= 0.009])
    else:
        assert off.max() < 0.01


@pytest.mark.parametrize("useless", [0, 25])
def test_constants_much_larger_than_the_bias_solve_it_together(useless):
    """Behind small alpha weights are thousands, and so are their products with constants."""
    rng = np.random.default_rng(7)
    constants = (*rng.uniform(-3000, 3000, 40), *rng.uniform(-1e-7, 1e-7, useless))
    part, wanted = make_part(3, constants=constants), rng.uniform(-1, 1, 12)
    filling = fill(problem_of([part]), 0.01)
    (realised,), stats = solve_biases(filling, [Goal(wanted)], np.arange(12), Objective.BEST)
    assert stats.unsolved == 0
    kept = filling.masks[0][1, 10:, :12]
    sums = (kept * part.random.whole()[1, 10:, :12].astype(np.float64) * np.array(constants)[:, None]).sum(0)
    np.testing.assert_allclose(realised, sums, atol=1e-9)


@pytest.mark.parametrize("count", [12, 20, 50])
def test_goals_of_several_taps_are_solved_as_each_alone(count):
    """Of fewer variables than one chunk, of two, and of rows that the chunks leave unsolved."""
    rng = np.random.default_rng(count)
    constants = tuple(rng.uniform(-300, 300, count) if count == 50 else rng.uniform(-2, 2, count))
    part, columns = make_part(count, constants=constants), np.arange(12)
    taps = [None, (0, 0), (0, 2), (0, 1)]
    goals = [Goal(rng.uniform(-1, 1, 12) * (rng.random(12) < 0.8), tap) for tap in taps[:3]]
    goals.append(Goal(np.zeros(12), taps[3]))
    together = fill(problem_of([part]), 0.01)
    realised, stats = solve_biases(together, goals, columns, Objective.BEST)
    counts, alone = Stats(), fill(problem_of([part]), 0.01)
    for goal, own in zip(goals, realised, strict=True):
        (one,), more = solve_biases(alone, [goal], columns, Objective.BEST)
        np.testing.assert_array_equal(one, own)
        counts += more
    assert counts == stats
    np.testing.assert_array_equal(together.masks[0], alone.masks[0])
    assert together.masks[0][:, 10:, :12].any((1, 2)).tolist() == [True] * 3


def test_no_constant_leaves_all_biases_unsolved():
    filling = fill(problem_of([make_part(0)]), 0.01)
    (realised,), stats = solve_biases(filling, [Goal(np.array([0.5, 0.0]))], np.arange(2), Objective.BEST)
    assert realised.tolist() == [0, 0]
    assert (stats.problems, stats.unsolved, stats.max_error) == (1, 1, 0.5)
    assert not filling.masks[0].any()


def test_units_suit_values_that_are_large_beside_the_tolerance():
    x = np.array([[3.0e6], [-1.5e6], [40.0]])
    found = solve_in_units(x, np.array([1.5e6]), Objective.BEST, tolerance=0.01)
    assert np.asarray(unpack(found.mask, 3))[:, 0].tolist() == [True, True, False]
