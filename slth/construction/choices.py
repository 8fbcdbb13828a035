"""One subset for each problem of a batch: the rules by which a weight's variables are chosen.

A rule takes variables x (m, n) and targets t (n,), and returns the kept variables (m, n) and whether some
subset is within the tolerance (n,).
"""

import numpy as np
from jaxtyping import Bool, Float

from slth.construction.biases import solve_in_units
from slth.subset_sum import Objective, unpack

Kept = tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, " n"]]


def choose_subset(
    x: Float[np.ndarray, "m n"],
    t: Float[np.ndarray, " n"],
    objective: Objective,
    *,
    tolerance: float,
    size: int | None = None,
) -> Kept:
    """The smallest or the best subset of each problem."""
    solution = solve_in_units(x, t, objective, tolerance=tolerance, size=size)
    return np.asarray(unpack(solution.mask, len(x))), np.array(solution.solved)


def choose_robust(
    x: Float[np.ndarray, "m n"],
    t: Float[np.ndarray, " n"],
    price: Float[np.ndarray, "m n"],
    *,
    tolerance: float,
    size: int | None = None,
) -> Kept:
    """The subset of least squared error plus prices; a problem it leaves far off may still be within reach."""
    solution = solve_in_units(x, t, Objective.ROBUST, tolerance=tolerance, size=size, price=price)
    reached = np.asarray(solution.solved).copy()
    far = np.flatnonzero(~reached)
    if len(far):
        best = solve_in_units(x[:, far], t[far], Objective.BEST, tolerance=tolerance, size=size)
        reached[far] = best.solved
    return np.asarray(unpack(solution.mask, len(x))), reached


def choose_single(x: Float[np.ndarray, "m n"], t: Float[np.ndarray, " n"], *, tolerance: float) -> Kept:
    """The nearest variable of each problem, or none where 0 is nearer; the first of equals."""
    nearest = np.abs(t - x).argmin(0)
    error = np.abs(t - x[nearest, np.arange(len(t))])
    kept = np.zeros(x.shape, bool)
    kept[nearest, np.arange(len(t))] = error < np.abs(t)
    return kept, np.minimum(error, np.abs(t)) <= tolerance


def noise_price(error: Float[np.ndarray, "m n"], rms: Float[np.ndarray, " n"]) -> Float[np.ndarray, "m n"]:
    """E² / R² of each variable: only the ratio matters, so activations of any size give prices in range."""
    return np.minimum(error / np.maximum(rms**2, 1e-30), 2.0**40)
