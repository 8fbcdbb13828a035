r"""Meet in the middle for 20 < m <= 32: ``2**(m/2)`` sums of each half instead of ``2**m`` subsets.

A subset is a pair of a lower and an upper half. The upper sums are sorted within each size; for every lower
half :math:`a` and size the nearest upper sums to :math:`t - a` from either side are found by bisection.
Equal upper sums of one size are ordered by mask and the first is taken, so the least key over all pairs
found is the least over all pairs: the rules for ties hold exactly, which matters because at m = 28 most
problems have several subsets of the same least error on the grid.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from slth.subset_sum.enumerate import WORST, least, smaller, subset_table
from slth.subset_sum.grid import Snapped


def large_chunk(
    p: Snapped, _: Bool[Array, ""], smallest: bool
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Optimal masks of ``smallest`` or ``best``, one problem after the other (its tables fill the cache)."""
    problems = p._replace(x=jnp.moveaxis(p.x, -1, 0))
    return jax.lax.map(lambda one: large_mask(one, smallest), problems), jnp.ones(p.t.shape, bool)


def large_mask(p: Snapped, smallest: bool) -> UInt32[Array, ""]:
    """Optimal mask of one problem, by the tie rules of `slth.subset_sum.problem.Objective`."""
    x, t, tolerance, _ = p
    m = x.shape[0]
    half = m // 2
    low_sums, high_sums = subset_table(x[:half]), subset_table(x[half:])
    low_masks = np.arange(2**half, dtype=np.uint32)
    low_sizes = np.bitwise_count(low_masks).astype(np.uint32)
    high_sizes = np.bitwise_count(np.arange(2 ** (m - half)))

    best = tuple(jnp.uint32(WORST) for _ in range(4))
    for size in range(m - half + 1):
        members = np.flatnonzero(high_sizes == size).astype(np.uint32)
        sums, masks = jax.lax.sort((high_sums[members], jnp.asarray(members)), num_keys=2)
        first = jnp.searchsorted(sums, sums)  # of the run of equal sums that an entry is in
        after = jnp.searchsorted(sums, t - low_sums)
        last = len(members) - 1
        for place in (jnp.minimum(after, last), first[jnp.maximum(after - 1, 0)]):
            error = jnp.abs(t - low_sums - sums[place]).astype(jnp.uint32)
            total = jnp.asarray(low_sizes + np.uint32(size))
            within = error <= tolerance.astype(jnp.uint32)
            # unsolved pairs come after all solved ones; among themselves they are ordered as for `best`
            group = jnp.where(within, total, np.uint32(m + 1)) if smallest else jnp.zeros_like(error)
            best = smaller(least((group, error, total, (masks[place] << half) | low_masks)), best)
    return best[3]
