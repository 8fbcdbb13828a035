"""One subset for each problem of a batch: the rules by which a weight's variables are chosen."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from slth.construction.biases import solve_in_units
from slth.subset_sum import Objective, unpack

Kept = tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, " n"]]
"""The kept variables of each problem, and whether some subset is within the tolerance."""


class Weights(NamedTuple):
    """Subset-sum problems of n weights of one part, m variables each."""

    x: Float[np.ndarray, "m n"]
    """Variables; 0 for one that cannot be chosen."""
    t: Float[np.ndarray, " n"]
    """Targets."""
    error: Float[np.ndarray, "m n"]
    """v² E² of each variable: the noise that it adds."""
    rms: Float[np.ndarray, " n"]
    """R of the channel that each weight reads."""
    tolerance: float
    """Epsilon in the units of x and t."""
    priced: bool
    """Whether the variables are univariate channels that are not exact."""

    @property
    def noise_price(self) -> Float[np.ndarray, "m n"]:
        """v² E² / R²: only the ratio matters, so activations of any size give prices in range."""
        return np.minimum(self.error / np.maximum(self.rms**2, 1e-30), 2.0**40)

    def some(self, index: np.ndarray, x: Float[np.ndarray, "m n"]) -> "Weights":
        """Some of the problems, with these variables."""
        return Weights(
            x[:, index], self.t[index], self.error[:, index], self.rms[index], self.tolerance, self.priced
        )


def choose_subset(weights: Weights, objective: Objective, size: int | None) -> Kept:
    """The smallest or the best subset of each problem."""
    x, t = weights.x, weights.t
    solution = solve_in_units(x, t, objective, tolerance=weights.tolerance, size=size)
    return np.asarray(unpack(solution.mask, len(x))), np.array(solution.solved)


def choose_robust(weights: Weights, price: Float[np.ndarray, "m n"], size: int | None = None) -> Kept:
    """The subset of least squared error plus prices; what it leaves far off may still be within reach."""
    x, t, tolerance = weights.x, weights.t, weights.tolerance
    solution = solve_in_units(x, t, Objective.ROBUST, tolerance=tolerance, size=size, price=price)
    reached = np.asarray(solution.solved).copy()
    far = np.flatnonzero(~reached)
    if len(far):
        best = solve_in_units(x[:, far], t[far], Objective.BEST, tolerance=tolerance, size=size)
        reached[far] = best.solved
    return np.asarray(unpack(solution.mask, len(x))), reached


def choose_single(weights: Weights) -> Kept:
    """The nearest variable of each problem, or none where 0 is nearer; the first of equals."""
    x, t = weights.x, weights.t
    nearest = np.abs(t - x).argmin(0)
    error = np.abs(t - x[nearest, np.arange(len(t))])
    kept = np.zeros(x.shape, bool)
    kept[nearest, np.arange(len(t))] = error < np.abs(t)
    return kept, np.minimum(error, np.abs(t)) <= weights.tolerance
