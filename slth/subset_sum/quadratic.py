r"""The least :math:`b^T G b - 2 c^T b` over :math:`b \in \{0, 1\}^m`, in integers.

G and 2c are rounded to multiples of one power of two such that their absolute sum stays below
:math:`2^{29}` steps (`slth.subset_sum.one.quantise`), so every partial sum is an exact int32. Adding
variable k to a subset S changes the value by :math:`G_{kk} - 2 c_k + 2 \sum_{i \in S} G_{ik}`: three
operations a subset.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from slth.subset_sum.rows import apart, leaves, record, two_least

SHIFT = np.int32(1 << 30)  # makes values non-negative


def quadratic_chunk(
    gram: Int[Array, "m m n"], linear: Int[Array, "m n"], always: Bool[Array, ""], *, low: int
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``quadratic`` for integer G and ``linear`` = 2c; whether each is surely the one optimum."""
    m, n = linear.shape
    low = min(low, m)

    def terms(gram, linear):
        # a variable that changes nothing repeats every value; one step of cost leaves it out
        idle = (linear == 0) & (gram == 0).all(axis=1)
        own = [gram[k, k] - linear[k] + idle[k].astype(jnp.int32) for k in range(m)]
        return own, [[2 * gram[i, k] for i in range(k)] for k in range(m)]

    own, pair = apart(always, terms, gram, linear)

    def start(row):
        """Value of the row alone and what each low variable adds to it."""
        on = [((row >> (k - low)) & 1) == 1 for k in range(low, m)]
        value = jnp.full(n, SHIFT)
        for k in range(low, m):
            inner = own[k]
            for i in range(low, k):
                inner = inner + jnp.where(on[i - low], pair[k][i], 0)
            value = value + jnp.where(on[k - low], inner, 0)
        slopes = []
        for i in range(low):
            slope = own[i]
            for k in range(low, m):
                slope = slope + jnp.where(on[k - low], pair[k][i], 0)
            slopes.append(slope)
        return value, slopes

    def branch(state, k):
        value, slopes = state
        return value + slopes[k], [slopes[i] + pair[k][i] for i in range(k)]

    def kernel(row):
        found = []
        leaves(start(row), range(low), branch, lambda _, s: found.append(s[0]))
        return functools.reduce(jnp.minimum, found)

    state = two_least(2 ** (m - low), n, kernel)

    def columns(state):
        code = [jnp.zeros(n, jnp.int32)]

        def visit(index, s):
            code[0] = record(code[0], s[0] == state.least, index)

        leaves(start(state.row), range(low), branch, visit)
        return code[0]

    code = apart(always, columns, state)
    mask = ((state.row << low) | (code & ((1 << low) - 1))).astype(jnp.uint32)
    return mask, (state.second > state.least) & (code >> 16 == 1)
