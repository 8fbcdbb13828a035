"""The largest of many scores, in exact numbers: of a network, and of each layer."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from slth.types import AnyArray, Shape

Densities = Mapping[str, float]
"""Kept / total of each kernel, by the path of its layer."""
Scores = Mapping[str, Shaped[AnyArray, "..."]]
"""A number for each weight, larger = rather kept; arrays of the kernels' shapes by the path of the layer."""


def checked(path: str, scores: Scores, shape: Shape) -> Float[np.ndarray, " weights"]:
    """The scores of a layer in float64, one after the other."""
    got = np.asarray(scores[path], np.float64) if path in scores else None
    if got is None or got.shape != shape:
        raise ValueError(
            f"scores: {path}: expected an array of the kernel's shape {shape}, got "
            f"{None if got is None else got.shape}"
        )
    if not np.isfinite(got).all():
        bad = int((~np.isfinite(got)).sum())
        raise ValueError(
            f"scores: {path}: {bad} of {got.size} are not finite: look at the parameters and the batch"
        )
    return got.reshape(-1)


def top(
    scores: Float[np.ndarray, " weights"], allowed: Bool[np.ndarray, " weights"], count: int
) -> Bool[np.ndarray, " weights"]:
    """Which are the ``count`` largest of the allowed scores, of equals the first."""
    chosen = np.zeros(allowed.size, bool)
    places = np.flatnonzero(allowed)
    if count == 0:
        return chosen
    values = scores[places]
    last = np.partition(values, -count)[-count]
    above = places[values > last]
    chosen[above] = True
    chosen[places[values == last][: count - above.size]] = True
    return chosen


def counts_of(
    sizes: dict[str, int], densities: Densities, total: int, least: dict[str, int], most: dict[str, int]
) -> dict[str, int]:
    """Numbers of kept weights by layer: densities times sizes, within the bounds, rounded to the total.

    The largest remainders are rounded up; of equals the first layer's.
    """
    if set(densities) != set(sizes) or not all(0 <= share <= 1 for share in densities.values()):
        raise ValueError(
            f"densities: expected a number from 0 to 1 for each of {list(sizes)}, got {densities}"
        )
    wanted = {path: densities[path] * size for path, size in sizes.items()}
    if abs(sum(wanted.values()) - total) > max(1.0, 1e-6 * total):
        raise ValueError(
            f"densities: keep {sum(wanted.values()):.0f} weights, and the density asks for {total}: give "
            "densities that fit (slth.pruning.Given scales them)"
        )
    counts = {path: min(max(math.floor(value), least[path]), most[path]) for path, value in wanted.items()}
    while (spare := total - sum(counts.values())) != 0:
        step, bound = (1, most) if spare > 0 else (-1, least)
        free = [path for path in sizes if counts[path] != bound[path]]
        path = max(free, key=lambda one: step * (wanted[one] - counts[one]))
        counts[path] += step
    return counts
