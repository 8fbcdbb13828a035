r"""The least :math:`|t - \sum_S x|` for many problems: enumeration with the last variables folded away.

In signs, with :math:`y = 2t - \sum_k x_k` and :math:`c = |x|`, the objective is half of
:math:`\min_{s \in \{-1, 1\}^m} |y + \sum_k s_k c_k|`. If each of :math:`c_1 > ... > c_F` is larger than the
sum of those after it, the best signs of these F variables are found greedily,

.. math:: \min_s |u + \sum_f s_f c_f| = | ... ||u| - c_1| - ... - c_F|,

because after any choice of :math:`s_1, ..., s_{f-1}` the sums with :math:`s_f` against the residual's sign
all lie on its far side. So :math:`2^F` subsets cost :math:`2 F + 3` operations, and only the other :math:`m
- F` variables are enumerated. F such variables are found by going from the smallest magnitude up and taking
each one that exceeds the sum of those taken.

Two subsets with the same least error are not told apart here: the problem is returned as not sure (as is
one without F such variables) and left to the exact search, which knows the rule for ties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from slth.subset_sum.grid import Snapped
from slth.subset_sum.rows import NEVER, add_selected, apart, leaves, record, two_least


def foldable(x: Int[Array, "m n"], folds: int) -> tuple[Int[Array, "f n"], Bool[Array, " n"]]:
    """Indices of ``folds`` variables, each larger than the sum of those before; whether there are such.

    Where all variables are zero any indices will do.
    """
    m, n = x.shape
    magnitude = jnp.abs(x)

    def take(i, state):
        total, indices = state
        candidate = [jnp.where(magnitude[k] > total, magnitude[k], NEVER) for k in range(m)]
        least = functools.reduce(jnp.minimum, candidate)
        total = jnp.where(least == NEVER, NEVER, total + jnp.minimum(least, NEVER - total))
        index = functools.reduce(
            lambda a, k: jnp.where(magnitude[k] == least, k, a), range(m - 1, -1, -1), jnp.full(n, m)
        )
        return total, jax.lax.dynamic_update_index_in_dim(indices, index.astype(jnp.int32), i, 0)

    total, indices = jax.lax.fori_loop(
        0, folds, take, (jnp.zeros(n, jnp.int32), jnp.zeros((folds, n), jnp.int32))
    )
    return indices, (total < NEVER) | (magnitude == 0).all(axis=0)


def best_chunk(
    p: Snapped, always: Bool[Array, ""], *, folds: int, low: int
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``best`` and whether each is surely the one optimal subset.

    Args:
      folds: variables folded away; ``low``: variables unrolled in the kernel, which holds ``2**low`` sums.
    """
    m, n = p.x.shape
    rest = m - folds
    low = min(low, rest)
    indices, ok = foldable(p.x, folds)

    def arrange(x, t, indices):
        """The free variables doubled, in one array; their bits; the folded ones, largest first; y."""
        taken = functools.reduce(
            jnp.logical_or, [indices[f][None] == jnp.arange(m)[:, None] for f in range(folds)]
        )
        free = (~taken).astype(jnp.float32)
        rank = (
            jnp.dot(np.tri(m, dtype=np.float32), free) * free
        )  # 1 for the first variable that is not folded
        place = jnp.arange(1, rest + 1, dtype=jnp.float32)[:, None]

        def compact(values, zero):
            return functools.reduce(
                lambda a, j: jnp.where(rank[j][None] == place, values[j], a), range(m), zero
            )

        bits = compact(np.uint32(1) << np.arange(m, dtype=np.uint32), jnp.zeros((rest, n), jnp.uint32))
        folded = [
            functools.reduce(
                lambda a, k, f=f: jnp.where(indices[f] == k, x[k], a), range(m), jnp.zeros(n, jnp.int32)
            )
            for f in range(folds)
        ]
        return (
            compact(2 * x[:, None], jnp.zeros((rest, n), jnp.int32)),
            bits,
            folded[::-1],
            2 * t - sum(folded),
        )

    doubled, bit, folded, y = apart(always, arrange, p.x, p.t, indices)

    def unpacked(doubled, folded):
        # A variable that is zero repeats every sum: one more step of error for each in the row, none in the
        # column.
        return list(doubled), [(v == 0).astype(jnp.int32) for v in doubled], [jnp.abs(v) for v in folded]

    x, zero, c = apart(always, unpacked, doubled, folded)

    def error(u):
        for magnitude in c:
            u = jnp.abs(u) - magnitude
        return jnp.abs(u)

    def subtract(u, v):
        return u - v

    def kernel(row):
        found = []
        leaves(
            add_selected(y, [-v for v in x[low:]], row),
            x[:low],
            subtract,
            lambda _, u: found.append(error(u)),
        )
        return functools.reduce(jnp.minimum, found) + add_selected(jnp.zeros_like(y), zero[low:], row)

    state = two_least(2 ** (rest - low), n, kernel)

    def columns(row, least):
        code = [jnp.zeros_like(y)]

        def visit(index, s):
            code[0] = record(code[0], (error(s[0]) == least) & (s[1] == 0), index)

        u = add_selected(y, [-v for v in x[low:]], row)
        pairs = list(zip(x[:low], zero[:low], strict=True))
        leaves((u, jnp.zeros_like(y)), pairs, lambda s, v: (s[0] - v[0], s[1] | v[1]), visit)
        return code[0]

    code = apart(always, columns, state.row, state.least)
    ok &= (state.second > state.least) & (code >> 16 == 1)
    chosen = (state.row << low) | (code & ((1 << low) - 1))
    mask = jnp.zeros(n, jnp.uint32)
    for k in range(rest):
        mask = mask | jnp.where((chosen >> k) & 1, bit[k], np.uint32(0))
    u = add_selected(y, [-v for v in x], chosen)
    for f, v in enumerate(folded):
        ok &= (u != 0) | (v == 0)
        up = u > 0
        mask = mask | jnp.where(
            (up == (v > 0)) & (v != 0),
            np.uint32(1) << indices[folds - 1 - f].astype(jnp.uint32),
            np.uint32(0),
        )
        u = u - jnp.where(up, c[f], -c[f])
    return mask, ok
