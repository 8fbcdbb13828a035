"""One subset for each problem of a batch: the rules by which a weight's variables are chosen."""

import numpy as np
from jaxtyping import Bool, Float32, UInt32

from slth.construction.variables import Weights, solve_weights
from slth.subset_sum import Objective

Kept = tuple[UInt32[np.ndarray, "words n"], Bool[np.ndarray, " n"]]
"""The kept variables of each problem (`slth.construction.variables.Sums`), and whether some subset is within
the tolerance."""
Price = Float32[np.ndarray, "m pairs"]
"""Of each variable of each pair, in units of its squared random weight."""


def choose_subset(
    weights: Weights, objective: Objective, size: int | None, price: Price | None = None
) -> Kept:
    """The subset of each problem that the objective asks for."""
    solution = solve_weights(weights, objective, size=size, price=price)
    return np.asarray(solution.mask)[None], np.asarray(solution.solved)


def choose_robust(weights: Weights, price: Price, size: int | None = None) -> Kept:
    """The subset of least squared error plus prices; what it leaves far off may still be within reach."""
    kept, reached = choose_subset(weights, Objective.ROBUST, size, price)
    far = np.flatnonzero(~reached)
    _, reached[far] = choose_subset(weights.some(far), Objective.BEST, size)
    return kept, reached
