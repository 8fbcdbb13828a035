r"""The smallest subset within :math:`\epsilon`: level by level first, then by full enumeration.

Most problems have a subset of at most three variables (all but 5 % at m = 15, :math:`\epsilon = 0.01`), so
the levels of size 0 to 3 are scanned for all problems and all subsets only for the rest.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from slth.subset_sum.grid import Snapped
from slth.subset_sum.rows import NEVER, add_selected, apart, leaves, record, two_least

WORST = np.uint32(0xFFFFFFFF)
PIECE = 400  # subsets in one compiled kernel


def level_masks(m: int, size: int) -> list[int]:
    """Masks of all subsets of ``size`` of ``m`` variables in increasing order."""
    return sorted(sum(1 << k for k in s) for s in itertools.combinations(range(m), size))


def level_chunk(
    p: Snapped, sizes: tuple[int, ...], always: Bool[Array, ""]
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of the smallest subset of one of the ``sizes`` (increasing) and whether it is within the
    tolerance.

    One unsigned key a subset, the capped error above the index among the subsets of its size, finds the
    least error and, among equals, the smaller mask. A tolerance that needs more bits than the index leaves
    (more than 0.125 for the 2**11 triples of m = 24) makes every problem one that is not found.
    """
    m, n = p.x.shape
    mask, found = jnp.zeros(n, jnp.uint32), jnp.zeros(n, bool)
    for size in sizes:
        masks = level_masks(m, size)
        if not masks:
            continue
        shift = max(len(masks) - 1, 1).bit_length()
        cap = min(2 ** (32 - shift), 2**31) - 1
        best = jnp.full(n, WORST)
        table = np.array(masks, np.uint32)
        for start in range(0, len(masks), PIECE):
            piece = masks[start : start + PIECE]
            best = apart(
                always,
                functools.partial(_scan, piece=piece, start=start, shift=shift, cap=cap),
                p.x,
                p.t,
                best,
            )
        within = (best >> shift).astype(jnp.int32) <= p.tolerance
        index = jnp.minimum(best & np.uint32(2**shift - 1), len(table) - 1)
        mask = jnp.where(~found & within, jnp.asarray(table)[index], mask)
        found = found | (within & (p.tolerance < cap))
    return mask, found


def _scan(x, t, best, *, piece, start, shift, cap):
    """Least key of a run of masks in increasing order, sharing the sums over all but the lowest bit."""
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
        key = (jnp.minimum(u, cap).astype(jnp.uint32) << shift) | np.uint32(start + i)
        best = jnp.minimum(best, key)
    return best


def every_size_chunk(
    p: Snapped, always: Bool[Array, ""], *, low: int
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``smallest`` by full enumeration and whether each is surely the one optimal subset.

    Keys are ``size << 26 | error`` within the tolerance, and beyond every such key the error alone.
    """
    m, n = p.x.shape
    low = min(low, m)
    beyond = np.int32((m + 1) << 26)

    def unpacked(x):
        return list(x), [(v == 0).astype(jnp.int32) for v in x]

    x, zero = apart(always, unpacked, p.x)

    def subtract(u, v):
        return u - v

    def kernel(row):
        by_size = {}

        def visit(index, u):
            by_size.setdefault(index.bit_count(), []).append(jnp.abs(u))

        leaves(add_selected(p.t, [-v for v in x[low:]], row), x[:low], subtract, visit)
        # a variable that is zero repeats a sum: one more step of error keeps rows with it behind
        idle = add_selected(jnp.zeros_like(p.t), zero[low:], row)
        least = {s: functools.reduce(jnp.minimum, errors) + idle for s, errors in by_size.items()}
        none = beyond + jnp.minimum(functools.reduce(jnp.minimum, least.values()), NEVER - beyond)
        size = jax.lax.population_count(row)
        keys = [
            jnp.where((e <= p.tolerance) & (e < 1 << 26), ((size + s) << 26) | e, none)
            for s, e in least.items()
        ]
        return functools.reduce(jnp.minimum, keys)

    state = two_least(2 ** (m - low), n, kernel)

    def columns(row, least):
        code = [jnp.zeros(n, jnp.int32)]
        unsolved = least >= beyond
        error = jnp.where(unsolved, least - beyond, least & ((1 << 26) - 1))

        def visit(index, s):
            u, idle = s
            fits = unsolved | ((least >> 26) == jax.lax.population_count(row) + index.bit_count())
            code[0] = record(code[0], fits & (jnp.abs(u) == error) & (idle == 0), index)

        start = (add_selected(p.t, [-v for v in x[low:]], row), jnp.zeros_like(p.t))
        pairs = list(zip(x[:low], zero[:low], strict=True))
        leaves(start, pairs, lambda s, v: (s[0] - v[0], s[1] | v[1]), visit)
        return code[0]

    code = apart(always, columns, state.row, state.least)
    mask = ((state.row << low) | (code & ((1 << low) - 1))).astype(jnp.uint32)
    return mask, (state.least < NEVER) & (state.second > state.least) & (code >> 16 == 1)
