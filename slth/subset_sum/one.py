"""One problem on the device: a pure function to be used inside `jax.jit` and `jax.vmap`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from slth.subset_sum.enumerate import exact_mask
from slth.subset_sum.grid import Snapped, grid_exponent, power_of_two, snap
from slth.subset_sum.problem import MAX_ENUMERATED, Objective, Solution
from slth.subset_sum.rows import add_selected
from slth.types import AnyArray


def solve_one(
    x: Float[Array, "m *n"],
    t: Float[Array, "*n"],
    objective: Objective | str = Objective.BEST,
    *,
    tolerance: float | Float[AnyArray, ""] = 0.01,
    size: int | None = None,
    residual_price: Float[Array, "*n"] | None = None,
    price: Float[Array, "m *n"] | None = None,
    gram: Float[Array, "m m *n"] | None = None,
    linear: Float[Array, "m *n"] | None = None,
) -> Solution:
    r"""The optimal subset of one problem, by exact enumeration of its ``2**m`` subsets (see `Objective`).

    Args:
      x: variables, shape ``(m,)``, ``1 <= m <= 20``, finite, magnitudes below ``2**20``.
      t: target, a scalar in the same units.
      tolerance: largest error of a solved problem, same units, at most 32.
      size: only subsets of exactly this many variables (random fixed-size subset sum, Natale et al. 2024).
      residual_price, price: ``r > 0`` and ``q >= 0`` of ``robust``; default 1 and 0.
      gram, linear: ``G`` (symmetric) and ``c`` of ``quadratic``.
    Returns: the `Solution`, scalars. Values cannot be refused inside ``jit``: a NaN or an infinity gives an
    unspecified mask; `slth.subset_sum.solve` checks before it runs.

    Trailing axes, if any, are a batch: ``solve_one(x, t)`` with ``x`` of shape ``(m, n)`` equals
    ``jax.vmap(solve_one, in_axes=-1, out_axes=-1)`` and is what `solve` uses for problems that tie.

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import subset_sum
      >>> out = subset_sum.solve_one(jnp.array([0.5, -0.25, 0.125]), jnp.float32(0.24), tolerance=0.02)
      >>> int(out.mask), float(out.value), bool(out.solved)      # mask 3: the first two variables
      (3, 0.25, True)
    """
    objective = Objective(objective)
    m = x.shape[0]
    if not 1 <= m <= MAX_ENUMERATED:
        raise ValueError(f"enumeration takes 1 to {MAX_ENUMERATED} variables, got m = {m}")
    terms: dict[str, Array] = {}
    if objective is Objective.QUADRATIC:
        if gram is None or linear is None:
            raise ValueError(f"objective {objective} needs gram and linear")
        terms = {"gram": gram, "linear": linear}
    elif objective is Objective.ROBUST:
        q = jnp.zeros_like(x) if price is None else price
        terms = {"price": q if residual_price is None else q / residual_price[None]}
    far, tolerance = objective is Objective.ROBUST, jnp.asarray(tolerance, jnp.float32)
    p = snap(x, t, tolerance, grid_exponent(x, t, tolerance, far), far)
    return describe(p, t, exact_mask(p, objective, size, **terms))


def describe(p: Snapped, t: Float[Array, "*n"], mask: UInt32[Array, "*n"]) -> Solution:
    """The solution that a mask is; ``value`` and ``error`` are rounded once, from integers."""
    total = add_selected(jnp.zeros_like(p.t), p.x, mask)
    step = power_of_two(-p.exponent)
    error = p.t - total
    value = total.astype(jnp.float32) * step
    solved = jnp.abs(error) <= p.tolerance
    moved = jnp.abs(t * power_of_two(p.exponent) - p.t.astype(jnp.float32)) > 1
    exact_error = jnp.where(moved, t - value, error.astype(jnp.float32) * step)
    size = jax.lax.population_count(mask).astype(jnp.int32)
    return Solution(mask, value, exact_error, size, solved)


def describe_quadratic(
    mask: UInt32[Array, "*n"], gram: Float[Array, "m m *n"], linear: Float[Array, "m *n"]
) -> Solution:
    """A quadratic problem without ``x`` and ``t``: value is the objective's, error NaN."""
    m = linear.shape[0]
    on = [((mask >> k) & 1).astype(linear.dtype) for k in range(m)]
    value = jnp.zeros_like(linear[0])
    for i in range(m):
        inner = -2 * linear[i]
        for j in range(m):
            inner = inner + gram[i, j] * on[j]
        value = value + inner * on[i]
    size = jax.lax.population_count(mask).astype(jnp.int32)
    return Solution(mask, value, jnp.full_like(value, jnp.nan), size, jnp.ones(mask.shape, bool))
