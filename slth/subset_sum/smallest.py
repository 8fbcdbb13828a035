r"""The smallest subset within :math:`\epsilon`: level by level first, then by full enumeration.

Most problems have a subset of at most three variables (all but 5 % at m = 15, :math:`\epsilon = 0.01`, and
all but .8 % of at most four), so sizes 0 to 3 are scanned for all problems, size 4 for the rest where its
subsets are few enough to unroll, and all subsets only for what is left.
"""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from slth.subset_sum.grid import Snapped
from slth.subset_sum.rows import NEVER, add_selected, apart, least_subset, leaves, residuals, with_zeros

WORST = np.uint32(0xFFFFFFFF)
UNROLLED = {3: 15, 4: 10}  # variables whose subsets of one size are unrolled; the others are looped over


def subset_masks(m: int, size: int) -> list[int]:
    """Masks of all subsets of ``size`` of ``m`` variables in increasing order."""
    return sorted(sum(1 << k for k in s) for s in itertools.combinations(range(m), size))


def level_chunk(
    p: Snapped, always: Bool[Array, ""], *sizes: int
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of the smallest subset of one of the ``sizes`` (increasing) and whether it is within the
    tolerance.

    One unsigned key a subset, the capped error above the subset's rank among those of its size, finds the
    least error and, among equals, the smaller mask. A tolerance that needs more bits than the rank leaves
    (more than 0.125 for the 2**11 triples of m = 24) makes every problem one that is not found.
    """
    m, n = p.x.shape
    mask, found = jnp.zeros(n, jnp.uint32), jnp.zeros(n, bool)
    for size in sizes:
        shift = max(math.comb(m, size) - 1, 1).bit_length()
        cap = min(2 ** (32 - shift), 2**31) - 1
        best = _least_key(p, size, shift, cap, always)
        within = (best >> shift).astype(jnp.int32) <= p.tolerance
        masks = jnp.asarray(subset_masks(m, size), jnp.uint32)
        rank = jnp.minimum(best & np.uint32(2**shift - 1), len(masks) - 1)
        mask = jnp.where(~found & within, masks[rank], mask)
        found = found | (within & (p.tolerance < cap))
    return mask, found


def _least_key(p: Snapped, size: int, shift: int, cap: int, always) -> UInt32[Array, " n"]:
    r"""Least key over the subsets of one size, each a row (of the last variables) and a column.

    In increasing order of masks the subset :math:`k_1 < ... < k_s` has rank :math:`\sum_i \binom{k_i}{i}`,
    the sum of what its row and its column contribute.
    """
    m, n = p.x.shape
    low = min(m, UNROLLED.get(size, m))
    best = jnp.full(n, WORST)
    for above in range(min(size, m - low) + 1):
        rows, columns = subset_masks(m - low, above), subset_masks(low, size - above)
        scan = functools.partial(_scan_columns, columns=columns, shift=shift, cap=cap)
        if above == 0:
            best = apart(always, lambda x, t, best, scan=scan: scan(x, t, best, np.uint32(0)), p.x, p.t, best)
            continue
        ranks = [_rank(row << low, size - above) for row in rows]

        def step(best, row, scan=scan):
            bits, rank = row
            return scan(p.x, add_selected(p.t, [-v for v in p.x[low:]], bits), best, rank), None

        best, _ = jax.lax.scan(step, best, (jnp.asarray(rows, jnp.int32), jnp.asarray(ranks, jnp.uint32)))
    return best


def _rank(mask: int, below: int) -> int:
    """What the bits of ``mask`` add to the rank of a subset that has ``below`` smaller members."""
    members = [k for k in range(mask.bit_length()) if mask >> k & 1]
    return sum(math.comb(k, below + i + 1) for i, k in enumerate(members))


def _scan_columns(x, t, best, rank, *, columns, shift, cap):
    """The least of ``best`` and the keys of the columns, sharing the sums over all but the lowest bit."""
    sums = {0: t}
    keys = []
    for i, mask in enumerate(columns):
        rest, lowest = mask & (mask - 1), (mask & -mask).bit_length() - 1
        if rest not in sums:
            chosen = [x[k] for k in range(x.shape[0]) if rest >> k & 1]
            sums[rest] = functools.reduce(operator.sub, chosen, t)
        u = jnp.abs(sums[rest] - x[lowest]) if mask else jnp.abs(t)
        keys.append((jnp.minimum(u, cap).astype(jnp.uint32) << shift) | np.uint32(i))
    return jnp.minimum(best, functools.reduce(jnp.minimum, keys) + rank)


def every_size_chunk(
    p: Snapped, always: Bool[Array, ""], low: int
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``smallest`` by full enumeration and whether each is surely the one optimal subset.

    Keys are ``size << 26 | error`` within the tolerance, and beyond every such key the error alone.
    """
    m, n = p.x.shape
    beyond = np.int32((m + 1) << 26)
    x, zero = apart(always, with_zeros, p.x)

    def kernel(row):
        by_size = {}
        for index, u in leaves(add_selected(p.t, [-v for v in x[low:]], row), x[:low], operator.sub):
            by_size.setdefault(index.bit_count(), []).append(jnp.abs(u))
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

    def matches(row, least):
        unsolved = least >= beyond
        error = jnp.where(unsolved, least - beyond, least & ((1 << 26) - 1))
        for index, (u, idle) in residuals(p.t, x, zero, row, low):
            fits = unsolved | ((least >> 26) == jax.lax.population_count(row) + index.bit_count())
            yield index, fits & (jnp.abs(u) == error) & (idle == 0)

    subset, sure = least_subset(always, n, m - low, low, kernel, matches)
    return subset.astype(jnp.uint32), sure
