r"""The smallest subset within :math:`\epsilon`: level by level first, then by full enumeration.

Most problems have a subset of at most three variables (all but 5 % at m = 15, :math:`\epsilon = 0.01`), so the levels
of size 0 to 3 are scanned for all problems, size 4 for those left, and all subsets only for the rest.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from slth.subset_sum.grid import Snapped
from slth.subset_sum.rows import NEVER, add_selected, apart, leaves, record, two_least

ERROR_BITS = 20
WORST = np.uint32(0xFFFFFFFF)
PIECE = 400  # subsets in one compiled kernel


def level_masks(m: int, size: int) -> list[int]:
    """Masks of all subsets of ``size`` of ``m`` variables in increasing order."""
    return sorted(sum(1 << k for k in s) for s in itertools.combinations(range(m), size))


def level_chunk(p: Snapped, sizes: tuple[int, ...], always: Bool[Array, ""]) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of the smallest subset of one of the ``sizes`` (increasing) and whether it is within the tolerance.

    One unsigned key a subset, ``min(error, 2**20 - 1) << 12 | index``, finds the least error and, among
    equals, the smaller mask. A problem whose tolerance needs more bits is returned as not found.
    """
    m, n = p.x.shape
    mask, found = jnp.zeros(n, jnp.uint32), jnp.zeros(n, bool)
    for size in sizes:
        masks = level_masks(m, size)
        if not masks:
            continue
        best = jnp.full(n, WORST)
        table = np.array(masks, np.uint32)
        for start in range(0, len(masks), PIECE):
            piece = masks[start : start + PIECE]
            best = apart(always, functools.partial(_scan, piece=piece, start=start), p.x, p.t, best)
        within = (best >> 12).astype(jnp.int32) <= p.tolerance
        fits = p.tolerance < (1 << ERROR_BITS) - 1
        mask = jnp.where(~found & within, jnp.asarray(table)[jnp.minimum(best & np.uint32(0xFFF), len(table) - 1)], mask)
        found = found | (within & fits)
    return mask, found


def _scan(x, t, best, *, piece, start):
    """Least key of a run of masks in increasing order, which shares the sums over all but the lowest variable."""
    sums = {0: t}
    for i, mask in enumerate(piece):
        rest, lowest = mask & (mask - 1), (mask & -mask).bit_length() - 1
        if rest not in sums:
            total = t
            for k in range(x.shape[0]):
                if rest >> k & 1:
                    total = total - x[k]
            sums[rest] = total
        u = jnp.abs(sums[rest] - x[lowest]) if mask else jnp.abs(t)
        key = (jnp.minimum(u, (1 << ERROR_BITS) - 1).astype(jnp.uint32) << 12) | np.uint32(start + i)
        best = jnp.minimum(best, key)
    return best


def every_size_chunk(p: Snapped, always: Bool[Array, ""], *, low: int) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of the smallest subset within the tolerance among all, and whether it exists and is the only one."""
    m, n = p.x.shape
    low = min(low, m)
    # size << 26 | error orders by size, then error; NEVER if the error is over the tolerance
    x = list(p.x)

    def key(least, size):
        return jnp.where((least <= p.tolerance) & (least < 1 << 26), (size << 26) | least, NEVER)

    def subtract(u, v):
        return u - v

    def kernel(row):
        by_size = {}

        def visit(index, u):
            by_size.setdefault(index.bit_count(), []).append(jnp.abs(u))

        leaves(add_selected(p.t, [-v for v in x[low:]], row), x[:low], subtract, visit)
        size = jax.lax.population_count(row)
        keys = [key(functools.reduce(jnp.minimum, v), size + s) for s, v in by_size.items()]
        return functools.reduce(jnp.minimum, keys)

    state = two_least(2 ** (m - low), n, kernel)
    def columns(row, size, error):
        code = [jnp.zeros(n, jnp.int32)]

        def visit(index, u):
            fits = size == jax.lax.population_count(row) + index.bit_count()
            code[0] = record(code[0], fits & (jnp.abs(u) == error), index)

        leaves(add_selected(p.t, [-v for v in x[low:]], row), x[:low], subtract, visit)
        return code[0]

    code = apart(always, columns, state.row, state.least >> 26, state.least & ((1 << 26) - 1))
    mask = ((state.row << low) | (code & ((1 << low) - 1))).astype(jnp.uint32)
    return mask, (state.least < NEVER) & (state.second > state.least) & (code >> 16 == 1)
