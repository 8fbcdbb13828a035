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
        return self._replace(x=x[:, index], t=self.t[index], error=self.error[:, index], rms=self.rms[index])


def choose_subset(
    weights: Weights, objective: Objective, size: int | None, price: Float[np.ndarray, "m n"] | None = None
) -> Kept:
    """The subset of each problem that the objective asks for."""
    x, t, tolerance = weights.x, weights.t, weights.tolerance
    solution = solve_in_units(x, t, objective, tolerance=tolerance, size=size, price=price)
    return np.asarray(unpack(solution.mask, len(x))), np.array(solution.solved)


def choose_robust(weights: Weights, price: Float[np.ndarray, "m n"], size: int | None = None) -> Kept:
    """The subset of least squared error plus prices; what it leaves far off may still be within reach."""
    kept, reached = choose_subset(weights, Objective.ROBUST, size, price)
    far = np.flatnonzero(~reached)
    _, reached[far] = choose_subset(weights.some(far, weights.x), Objective.BEST, size)
    return kept, reached


def choose_single(weights: Weights) -> Kept:
    """The nearest variable of each problem, or none where 0 is nearer; the first of equals."""
    x, t = weights.x, weights.t
    nearest = np.abs(t - x).argmin(0)
    error = np.abs(t - x[nearest, np.arange(len(t))])
    kept = np.zeros(x.shape, bool)
    kept[nearest, np.arange(len(t))] = error < np.abs(t)
    return kept, np.minimum(error, np.abs(t)) <= weights.tolerance
