"""Variables that `robust` does not enumerate: none of them is in an optimal subset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.subset_sum import Objective, solve
from slth.subset_sum.enumerate import exact_chunk
from slth.subset_sum.grid import grid_exponent, snap
from slth.subset_sum.robust import NOWHERE, WINDOW, few_cost, in_steps, places, robust_chunk
from slth.subset_sum.stages import Stage, compiled
from tests.subset_sum.problems import lattices, on_grid, prices, problems
from tests.subset_sum.reference import costs, subsets

LAYERS = {"first": 1e-6, "early": 1e-4, "middle": 1e-3, "late": 1e-2, "noisy": 0.1}
"""E² / R² of the copies that feed a layer of a residual network."""


def layer(noise, m, n, seed=0):
    """Problems like a construction's: He-uniform weights, trained ones in their units, prices x² E² / R²."""
    rng = np.random.default_rng(seed)
    x, t = on_grid(rng.uniform(-0.1, 0.1, (m, n))), on_grid(rng.laplace(0, 0.04, n))
    x[rng.random((m, n)) < 0.03] = 0  # copies that were set aside
    price = (x**2 * noise * rng.lognormal(0, 0.5, (m, n))).astype(np.float32)
    return {"x": x, "t": t, "price": price}


def adversarial(m, n):
    x, t = problems(m, n, seed=m)
    terms = prices(x, t, seed=m)
    return {"x": x, "t": t, "price": terms["price"] / terms["residual_price"]}


def run(problem, kernel, *options):
    """Masks of one kernel and whether it is sure of them."""
    x, t, price = problem["x"], problem["t"], problem["price"]
    stage = Stage(Objective.ROBUST, kernel, t.size, options)
    solution, sure = compiled(stage, (jax.devices()[0],))(True, x, t, np.float32(0.01), {"price": price})
    return np.asarray(solution.mask), np.asarray(sure)


def check_reduced(problem, most):
    """The sure masks are those of the exact search; how many are sure."""
    mask, sure = run(problem, robust_chunk, 6, most)
    exact, _ = run(problem, exact_chunk, Objective.ROBUST, None)
    np.testing.assert_array_equal(mask[sure], exact[sure])
    return sure.mean()


@pytest.mark.parametrize("problem", [adversarial(9, 4000), *(layer(c, 9, 1000) for c in LAYERS.values())])
def test_no_optimal_subset_holds_a_variable_without_a_place(problem):
    x, t, price = map(jnp.asarray, (problem["x"], problem["t"], problem["price"]))
    tolerance = jnp.float32(0.01)
    p = snap(x, t, tolerance, grid_exponent(x, t, tolerance, True), True)
    steps = in_steps(p.x, price, p.exponent)
    limit = few_cost(p.x, p.t, steps) * WINDOW
    place, count = map(np.asarray, places(jnp.asarray(True), p.x, p.t, steps, limit))
    kept = place != NOWHERE
    every = costs(np.asarray(p.x), np.asarray(p.t), "robust", price=np.asarray(steps))[0]
    for subset, optimal in zip(subsets(9), every <= every.min(0), strict=True):
        assert kept[subset == 1][:, optimal].all()
    np.testing.assert_array_equal(count, kept.sum(0))
    np.testing.assert_array_equal(place[kept], (kept.cumsum(0) - 1)[kept])  # in order, without gaps
    assert count.mean() < 8.7  # of nine


@pytest.mark.parametrize("m", [7, 12])
def test_the_cost_of_few_variables_is_that_of_the_best_three(m):
    problem = layer(0.01, m, 300)
    x, t = (np.rint(problem[name] * 2.0**24).astype(np.int32) for name in ("x", "t"))
    price = np.rint(problem["price"] * 2.0**48).astype(np.float32)
    every = costs(x, t, "robust", price=price)[0]
    few = every[subsets(m).sum(1) <= 3].min(0)
    np.testing.assert_allclose(few_cost(*map(jnp.asarray, (x, t, price))), few, rtol=1e-6)


@pytest.mark.parametrize("noise", LAYERS.values(), ids=LAYERS.keys())
def test_layers_have_the_masks_of_the_exact_search(noise):
    sure = check_reduced(layer(noise, 13, 2000), 9)
    assert sure > (0.5 if noise > 1e-4 else 0)


@pytest.mark.parametrize("most", [4, 7])
def test_adversarial_problems_have_the_masks_of_the_exact_search(most):
    sure = check_reduced(adversarial(10, 8000), most)
    assert 0.1 < sure < 0.95


@settings(max_examples=25)
@given(data=st.data())
def test_ties_are_left_to_the_exact_search(data):
    problem = data.draw(lattices("robust", 8))
    problem["price"] = problem["price"] / problem.pop("residual_price")
    check_reduced(problem, 5)


@pytest.mark.parametrize("m", [13, 16])
def test_solve_has_the_masks_of_the_exact_search(m):
    """Every stage decides some of the problems."""
    parts = [adversarial(m, 160), layer(1e-3, m, 160), layer(1e-5, m, 160)]
    problem = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    exact, _ = run(problem, exact_chunk, Objective.ROBUST, None)
    np.testing.assert_array_equal(solve(**problem, objective="robust").mask, exact)
