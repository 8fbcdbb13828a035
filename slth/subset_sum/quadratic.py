r"""The least :math:`b^T G b - 2 c^T b` over :math:`b \in \{0, 1\}^m`, in integers.

G and 2c are rounded to multiples of one power of two such that their absolute sum stays below
:math:`2^{29}` steps (`quantise`), so every partial sum is an exact int32. Adding
variable k to a subset S changes the value by :math:`G_{kk} - 2 c_k + 2 \sum_{i \in S} G_{ik}`: three
operations a subset.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from slth.subset_sum.grid import Snapped, exponent_above, power_of_two
from slth.subset_sum.rows import add_selected, apart, least_subset, leaves

SHIFT = np.int32(1 << 30)  # makes values non-negative


def gram_exponent(gram: Float[Array, "m m *n"], linear: Float[Array, "m *n"]) -> Int[Array, "*n"]:
    r"""``e`` such that :math:`\sum |G| + 2 \sum |c| < 2^{29}` in steps of ``2**-e``."""
    m = linear.shape[0]
    total = jnp.zeros_like(linear[0])
    for i in range(m):
        total = total + 2 * jnp.abs(linear[i])
        for j in range(m):
            total = total + jnp.abs(gram[i, j])
    return jnp.clip(29 - exponent_above(total), -126, 126)


def quantise(
    gram: Float[Array, "m m *n"], linear: Float[Array, "m *n"], exponent: Int[Array, "*n"]
) -> tuple[Int[Array, "m m *n"], Int[Array, "m *n"]]:
    """``G`` and ``2 c`` in integer steps of ``2**-exponent``."""
    scale = power_of_two(exponent)
    steps, linear_steps = jnp.rint(gram * scale[None, None]), jnp.rint(linear * (2 * scale)[None])
    return steps.astype(jnp.int32), linear_steps.astype(jnp.int32)


def quadratic_chunk(
    _: Snapped | None,
    always: Bool[Array, ""],
    low: int,
    *,
    gram: Float[Array, "m m n"],
    linear: Float[Array, "m n"],
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``quadratic`` and whether each is surely the one optimal subset."""
    m, n = linear.shape
    low = min(low, m)
    exponent = apart(always, gram_exponent, gram, linear)
    gram, linear = apart(always, quantise, gram, linear, exponent)

    def terms(gram, linear):
        # a variable that changes nothing repeats every value; one step of cost leaves it out
        idle = (linear == 0) & (gram == 0).all(axis=1)
        own = [gram[k, k] - linear[k] + idle[k].astype(jnp.int32) for k in range(m)]
        return own, [[2 * gram[i, k] for i in range(k)] for k in range(m)]

    own, pair = apart(always, terms, gram, linear)

    def start(row):
        """Value of the row alone and what each low variable adds to it."""
        added = [add_selected(own[k], pair[k][low:k], row) for k in range(low, m)]
        slopes = [add_selected(own[i], [pair[k][i] for k in range(low, m)], row) for i in range(low)]
        return add_selected(jnp.full(n, SHIFT), added, row), slopes

    def branch(state, k):
        value, slopes = state
        return value + slopes[k], [slopes[i] + pair[k][i] for i in range(k)]

    def kernel(row):
        return functools.reduce(jnp.minimum, [s[0] for _, s in leaves(start(row), range(low), branch)])

    def matches(row, least):
        return ((index, s[0] == least) for index, s in leaves(start(row), range(low), branch))

    subset, sure = least_subset(always, n, m - low, low, kernel, matches)
    return subset.astype(jnp.uint32), sure
