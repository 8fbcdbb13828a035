r"""The least :math:`E^2 + \sum_S p_k`, with :math:`E` an exact integer and prices :math:`p = q / r` in
squared grid steps.

The kernel compares costs in float32. Each is a sum of at most m + 1 non-negative terms, of which
:math:`E^2` is rounded twice, so it is within a factor :math:`1 \pm 2^{-18}` of the exact cost however the
sum is ordered and whether or not multiplication and addition are fused. If no other subset is within twice
that of the least, it is the optimum of the exact integer cost; else the exact search decides. So the mask
depends on neither device nor rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

from slth.subset_sum.grid import Snapped, power_of_two
from slth.subset_sum.rows import add_selected, apart, least_subset, leaves

WINDOW = np.float32(1 + 2.0**-16)
TABLE = 3  # variables whose subset sums are kept in memory
FORBIDDEN = np.float32(1e30)


def robust_chunk(
    p: Snapped, always: Bool[Array, ""], low: int, *, price: Float[Array, "m n"]
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``robust`` and whether each is surely the one optimal subset; ``price`` is ``q / r``."""
    m, n = p.x.shape

    def terms(x, price, exponent):
        scale = power_of_two(exponent)[None]
        # a variable that is zero repeats a sum at no less cost; barring it leaves the optimum and no tie
        price = jnp.where(x == 0, FORBIDDEN, jnp.minimum(jnp.rint(price * scale * scale), FORBIDDEN))
        sums, prices = [jnp.zeros(n, jnp.int32)], [jnp.zeros(n)]
        for k in range(TABLE):
            sums, prices = sums + [s + x[k] for s in sums], prices + [q + price[k] for q in prices]
        return list(x), list(price), sums, prices

    x, q, sums, prices = apart(always, terms, p.x, price, p.exponent)
    outer = list(zip(x[TABLE:low], q[TABLE:low], strict=True))

    def branch(state, variable):
        return state[0] - variable[0], state[1] + variable[1]

    def start(row):
        return add_selected(p.t, [-v for v in x[low:]], row), add_selected(jnp.zeros(n), q[low:], row)

    def costs(u):
        """Costs of the inner variables' subsets, their own prices included."""
        return [jnp.square((u - s).astype(jnp.float32)) + z for s, z in zip(sums, prices, strict=True)]

    def kernel(row):
        found = [
            bits(number(functools.reduce(jnp.minimum, map(bits, costs(u)))) + paid)
            for _, (u, paid) in leaves(start(row), outer, branch)
        ]
        return functools.reduce(jnp.minimum, found)

    def matches(row, limit):
        for index, (u, paid) in leaves(start(row), outer, branch):
            for j, cost in enumerate(costs(u)):
                yield index << TABLE | j, bits(cost + paid) <= limit

    subset, sure = least_subset(
        always, n, m - low, low, kernel, matches, window=lambda least: bits(number(least) * WINDOW)
    )
    return subset.astype(jnp.uint32), sure


def bits(value: Float[Array, "*n"]):
    """The bits of a non-negative float32, an integer of the same order (integer minima are faster)."""
    return jax.lax.bitcast_convert_type(value, jnp.int32)


def number(value):
    """Inverse of `bits`."""
    return jax.lax.bitcast_convert_type(value, jnp.float32)
