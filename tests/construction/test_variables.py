"""Problems that are made on the device are those that NumPy makes of the drawn kernel."""

import jax
import numpy as np
import pytest

from slth.construction.variables import (
    _beyond,
    _compiled,
    _nearest,
    _problems,
    _sums,
    beyond_of,
    grouped,
    nearest_of,
    solve_weights,
    sums_of,
    weights_of,
)
from slth.subset_sum import Objective, solve, unpack
from tests.construction.parts import make_part

M = 7
COLUMNS = np.random.default_rng(5).permutation(3 * M)


def problems(part, weights):
    """Random weights and variables of the problems, from the arrays."""
    slots = part.stream.slots
    tap, which = np.divmod(weights.pair, len(slots.channel))
    v = part.random.whole()[tap, slots.members[which].T, COLUMNS[weights.row]]
    return v, v * slots.gain[which].T.astype(np.float32), which


@pytest.fixture(scope="module")
def case():
    noise = np.random.default_rng(1).uniform(0, 0.2, (2, M))
    usable = np.random.default_rng(2).random((2, M)) < 0.8
    part = make_part(3, m=M, noise=noise, usable=usable)
    (weights,) = weights_of(part, COLUMNS, 0.01)
    return part, weights


def test_every_weight_that_is_not_0_is_a_problem_of_each_copy(case):
    part, weights = case
    tap, which = np.divmod(weights.pair, len(part.stream.slots.channel))
    assert len(weights.t) == (part.weight != 0).sum() * M
    np.testing.assert_array_equal(weights.t, part.goal[tap, which, weights.row // M])
    assert len({*zip(weights.pair.tolist(), weights.row.tolist(), strict=True)}) == len(weights.t)


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("objective", [Objective.BEST, Objective.SMALLEST, Objective.ROBUST])
def test_the_subsets_are_those_of_arrays(case, objective, size):
    part, weights = case
    v, x, which = problems(part, weights)
    usable = part.stream.slots.usable[which].T
    ratio = (part.stream.noise / part.rms[:, None] ** 2).astype(np.float32)[which].T
    price = v * v * ratio if objective is Objective.ROBUST else None
    wanted = solve(np.where(usable, x, 0), weights.t, objective, tolerance=0.01, size=size, price=price)
    given = weights.noise if objective is Objective.ROBUST else None
    found = solve_weights(weights, objective, size=size, price=given)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    np.testing.assert_array_equal(found.solved, wanted.solved)


def test_the_sums_of_subsets(case):
    part, weights = case
    v, x, which = problems(part, weights)
    mask = np.random.default_rng(0).integers(0, 2**M, (1, len(weights.t)), dtype=np.uint32)
    found, kept = sums_of(weights, mask), unpack(mask[0], M)
    error = v.astype(np.float64) ** 2 * part.stream.noise[which].T
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.size, kept.sum(0))
    for value, terms in {"noise": error, "power": v.astype(np.float64) ** 2, "total": v}.items():
        np.testing.assert_allclose(getattr(found, value), (terms * kept).sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.left, weights.t - (x * kept).sum(0), atol=2e-6)


def test_the_nearest_variable_of_more_than_one_word():
    part = make_part(4, m=40)
    columns = np.arange(120)
    (weights,) = weights_of(part, columns, 0.01)
    words, near = nearest_of(weights)
    tap, which = np.divmod(weights.pair, 2)
    x = part.random.whole()[tap, part.stream.slots.members[which].T, columns[weights.row]]
    error = np.abs(weights.t - x)
    best = error.argmin(0)
    none = error.min(0) >= np.abs(weights.t)
    kept = np.concatenate([unpack(words[0], 32), unpack(words[1], 8)])
    np.testing.assert_array_equal(kept.sum(0), ~none)
    np.testing.assert_array_equal(kept.argmax(0)[~none], best[~none])
    np.testing.assert_array_equal(near, np.minimum(error.min(0), np.abs(weights.t)) <= 0.01)
    sums = sums_of(weights, words)
    np.testing.assert_allclose(sums.left, weights.t - (x * kept).sum(0), atol=1e-6)
    assert set(sums.size.tolist()) == {0, 1}


def test_what_no_subset_reaches(case):
    part, weights = case
    _, x, _ = problems(part, weights)
    goal = 10 * weights.t
    least, most = np.minimum(x, 0).sum(0), np.maximum(x, 0).sum(0)
    wanted = goal - np.clip(goal, least, most)
    assert (wanted != 0).any()
    np.testing.assert_allclose(beyond_of(weights._replace(t=goal)), wanted, atol=1e-5)


def test_some_of_the_variables(case):
    part, weights = case
    few = grouped(weights, slice(2, 5))
    v, x, _ = problems(part, weights)
    every = np.full((1, len(weights.t)), 7, np.uint32)
    np.testing.assert_allclose(sums_of(few, every).total, v[2:5].sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums_of(few, every).left, weights.t - x[2:5].sum(0), atol=1e-6)


def test_values_of_any_size_are_solved(case):
    _, weights = case
    large = 2.0**30
    found = solve_weights(
        weights._replace(
            gain=weights.gain * np.float32(large), t=weights.t * large, tolerance=weights.tolerance * large
        ),
        Objective.BEST,
    )
    np.testing.assert_array_equal(found.mask, solve_weights(weights, Objective.BEST).mask)


def test_what_is_no_number_is_refused(case):
    part, weights = case
    weight = part.weight.copy()
    weight[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match="^a: the target has weights that are infinite or no numbers"):
        next(weights_of(part._replace(weight=weight), COLUMNS, 0.01))
    with pytest.raises(ValueError, match="^a: the errors that its inputs carry are infinite or no numbers"):
        solve_weights(weights, Objective.ROBUST, price=np.full_like(weights.noise, np.nan))


def test_every_program_lowers_for_cuda(case):
    _, weights = case
    device = (jax.devices()[0],)
    n = np.zeros(64, np.int32)
    mask, t = np.zeros((1, 64), np.uint32), np.zeros(64, np.float32)
    programs = {
        "terms": (_problems(weights.law, device, True), (weights.noise, n, n, t)),
        "sums": (_compiled(_sums, (), weights.law, device, 1), (n, n, t, mask)),
        "beyond": (_compiled(_beyond, (), weights.law, device, 0), (n, n, t)),
        "nearest": (_compiled(_nearest, (), weights.law, device, 0), (n, n, t)),
    }
    for program, arguments in programs.values():
        lowered = program.trace(weights.tables, *arguments).lower(lowering_platforms=("cuda",))
        assert f"tensor<{M}x64xf32>" in lowered.as_text()
