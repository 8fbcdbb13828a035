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

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, UInt32

from slth.subset_sum.grid import Snapped
from slth.subset_sum.rows import NEVER, add_selected, apart, least_subset, leaves, residuals, with_zeros


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
        index = jnp.full(n, m)
        for k in reversed(range(m)):
            index = jnp.where(magnitude[k] == least, k, index)
        return total, lax.dynamic_update_index_in_dim(indices, index.astype(jnp.int32), i, 0)

    start = (jnp.zeros(n, jnp.int32), jnp.zeros((folds, n), jnp.int32))
    total, indices = lax.fori_loop(0, folds, take, start)
    return indices, (total < NEVER) | (magnitude == 0).all(axis=0)


def best_chunk(
    p: Snapped, always: Bool[Array, ""], folds: int, low: int
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
        taken = functools.reduce(jnp.logical_or, [index[None] == jnp.arange(m)[:, None] for index in indices])
        free = (~taken).astype(jnp.float32)
        rank = jnp.dot(np.tri(m, dtype=np.float32), free) * free  # 1 for the first that is not folded
        place = jnp.arange(1, rest + 1, dtype=jnp.float32)[:, None]

        def compact(values, dtype):
            out = jnp.zeros((rest, n), dtype)
            for j in range(m):
                out = jnp.where(rank[j][None] == place, values[j], out)
            return out

        def selected(index):
            value = jnp.zeros(n, jnp.int32)
            for k in range(m):
                value = jnp.where(index == k, x[k], value)
            return value

        bits = compact(np.uint32(1) << np.arange(m, dtype=np.uint32), jnp.uint32)
        folded = [selected(index) for index in indices]
        return compact(2 * x[:, None], jnp.int32), bits, folded[::-1], 2 * t - sum(folded)

    doubled, bit, folded, y = apart(always, arrange, p.x, p.t, indices)

    def unpacked(doubled, folded):
        return *with_zeros(doubled), [jnp.abs(v) for v in folded]

    x, zero, c = apart(always, unpacked, doubled, folded)

    def error(u):
        for magnitude in c:
            u = lax.sub(lax.abs(u), magnitude)
        return lax.abs(u)

    def kernel(row):
        start = add_selected(y, [-v for v in x[low:]], row)
        found = [error(u) for _, u in leaves(start, x[:low], lax.sub)]
        # a variable that is zero repeats every sum: one more step of error keeps rows with it behind
        return functools.reduce(lax.min, found) + add_selected(jnp.zeros_like(y), zero[low:], row)

    def matches(row, least):
        none = jnp.zeros_like(y)
        for index, (u, idle) in residuals(y, x, zero, row, low):
            yield index, lax.bitwise_and(lax.eq(error(u), least), lax.eq(idle, none))

    chosen, sure = least_subset(always, n, rest - low, low, kernel, matches)
    ok &= sure
    mask = add_selected(jnp.zeros(n, jnp.uint32), bit, chosen)
    u = add_selected(y, [-v for v in x], chosen)
    for f, v in enumerate(folded):
        ok &= (u != 0) | (v == 0)
        up = u > 0
        member = np.uint32(1) << indices[folds - 1 - f].astype(jnp.uint32)
        mask = mask | jnp.where((up == (v > 0)) & (v != 0), member, np.uint32(0))
        u = u - jnp.where(up, c[f], -c[f])
    return mask, ok
