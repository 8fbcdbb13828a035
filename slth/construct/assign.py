"""Which source channels serve as copies of which target channel: chosen by what the output layer can do with them.

A weight of the output layer has a single subset-sum problem: no other copy of the output can stand in for one that
misses. With 2^-m of all problems having no variable of the right sign, a large layer always has some. But the
names of the hidden channels are free: any block of m source channels may carry any target channel. So the blocks
are dealt out such that the output layer's problems come out well.
"""

import numpy as np
from jaxtyping import Float, Int

from slth.subset_sum import solve

LIMIT = 5_000_000
"""Most problems solved to compare the blocks; a larger output layer keeps the natural order."""


def order_for_output(
    weight: Float[np.ndarray, "taps cin cout"], random: Float[np.ndarray, "taps source_cin cout"], m: int
) -> Int[np.ndarray, " cin"]:
    """``order[i]``: the block of m source channels that carries target channel i, least total squared error.

    Args:
      weight: the output layer of the (balanced) target.
      random: the same layer of the source; its first cin m channels are the blocks.
    """
    cin = weight.shape[1]
    taps, which, out = np.nonzero(weight)
    if len(taps) * cin > LIMIT or cin == 1:
        return np.arange(cin)
    wanted = weight[taps, which, out]
    cost = np.empty((cin, cin))
    for block in range(cin):
        x = random[taps, block * m + np.arange(m)[:, None], out]
        error = np.asarray(solve(x, wanted, "best").error, np.float64)
        cost[:, block] = np.bincount(which, weights=error**2, minlength=cin)
    return assign(cost)


def assign(cost: Float[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """A permutation p with a small sum of cost[i, p[i]]: greedy, then swaps of two while any helps.

    Not always the least one, but never worse than any single swap away; cost O(n^2) a pass.
    """
    n = len(cost)
    order = np.full(n, -1)
    free = np.ones(n, bool)
    for i in np.argsort(-cost.min(1)):  # the hardest to please first
        order[i] = np.flatnonzero(free)[np.argmin(cost[i, free])]
        free[order[i]] = False
    while True:
        here = cost[np.arange(n), order]
        swapped = cost[:, order]  # swapped[i, k]: i takes k's block
        gain = here[:, None] + here[None] - swapped - swapped.T
        i, k = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[i, k] <= 1e-15:
            return order
        order[[i, k]] = order[[k, i]]
