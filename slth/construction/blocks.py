"""Which block of source channels carries which target channel: dealt out for the output layer's sake.

A weight of the output layer has a single subset-sum problem: no other copy of the output can stand in for one
that misses. With 2^-m of all problems having no variable of the right sign, a large layer always has some.
But the names of the hidden channels are free: any block of m source channels may carry any target channel.
So the blocks are dealt out such that the output layer's problems come out well.
"""

import numpy as np
from jaxtyping import Float, Int

from slth.construction.independent import sums
from slth.construction.state import Part
from slth.source.drawn import Drawn
from slth.subset_sum import solve

LIMIT = 5_000_000
"""Most problems solved to compare the blocks; a larger network keeps the natural order."""
HIDDEN = 0.1
"""What a missed weight of the hidden layer itself counts: its other copies can stand in for it."""


def order_for_output(
    part: Part,
    weight: Float[np.ndarray, "taps c cout"],
    random: Drawn,
    m: int,
) -> Int[np.ndarray, " c"]:
    """``order[i]``: the block of m source channels that carries target channel i, for a small squared error.

    Args:
      part: the last hidden layer, whose rows the blocks are.
      weight: the output layer of the (balanced) target.
      random: the same layer of the source; its first c m channels are the blocks.
    """
    channels = weight.shape[1]
    copies = np.arange(m)
    out_taps, reads, outputs = np.nonzero(weight)
    output_goal = weight[out_taps, reads, outputs]
    slots = part.stream.slots
    target = part.goal
    taps, which, row = (np.repeat(a, m) for a in np.nonzero(target))
    copy = np.tile(copies, len(taps) // m)
    hidden_goal = target[taps, which, row]
    if (len(output_goal) + len(hidden_goal)) * channels > LIMIT or channels == 1:
        return np.arange(channels)
    members = slots.members[which, :15].T
    cost = np.empty((channels, channels))
    for block in range(channels):
        x = random.at(out_taps, block * m + copies[:, None], outputs)
        cost[:, block] = _squares(x, output_goal, reads, channels)
        x = part.random.at(taps, members, block * m + copy) * slots.gain[which, :15].T
        cost[:, block] += HIDDEN * _squares(x, hidden_goal, row, channels)
    return assign(cost)


def _squares(
    x: Float[np.ndarray, "m n"], t: Float[np.ndarray, " n"], group: Int[np.ndarray, " n"], groups: int
) -> Float[np.ndarray, " groups"]:
    return sums(group, np.asarray(solve(x, t, "best").error, np.float64) ** 2, groups)


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
