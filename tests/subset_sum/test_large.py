"""More than twenty variables: meeting in the middle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth.subset_sum import solve, unpack
from slth.subset_sum.grid import grid_exponent, snap
from slth.subset_sum.large import large_mask
from tests.subset_sum.problems import on_grid, problems


@pytest.mark.parametrize("smallest", [False, True])
def test_equals_enumeration_where_both_can(smallest):
    x, t = map(jnp.asarray, problems(9, 800, seed=1))
    tolerance = jnp.float32(0.01)
    p = snap(x, t, tolerance, grid_exponent(x, t, tolerance, False), False)
    mask = jax.jit(jax.vmap(lambda one: large_mask(one, smallest), in_axes=-1))(p)
    np.testing.assert_array_equal(mask, solve(x, t, "smallest" if smallest else "best").mask)


@pytest.mark.parametrize("m", [25, 32])
def test_finds_a_planted_subset(m):
    """A sum of half the variables, all on the grid and small enough to be exact in float32."""
    rng = np.random.default_rng(m)
    x = on_grid(rng.uniform(-0.05, 0.05, (m, 4)))
    planted = rng.random((m, 4)) < 0.5
    t = (x * planted).sum(0)
    out = solve(x, t)
    assert (out.error == 0).all()
    assert (out.size <= planted.sum(0)).all()
    np.testing.assert_array_equal((x * unpack(out.mask, m)).sum(0), t)


@pytest.mark.slow
@pytest.mark.parametrize("m", [22, 27])
def test_best_and_smallest_agree_on_what_can_be_solved(m):
    rng = np.random.default_rng(m)
    x, t = on_grid(rng.uniform(-0.2, 0.2, (m, 256))), on_grid(rng.uniform(-1, 1, 256))
    best, smallest = solve(x, t, "best"), solve(x, t, "smallest")
    np.testing.assert_array_equal(best.solved, smallest.solved)
    assert (smallest.size[smallest.solved] <= best.size[smallest.solved]).all()
