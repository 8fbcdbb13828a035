"""Brute force in NumPy: the oracle of the tests, deliberately plain and in another arithmetic.

Everything is a Python-simple loop over subsets in 64-bit integers or floats; use it for a few thousand
problems of up to about fifteen variables.
"""

import numpy as np
from jaxtyping import Float, Int

GRID = 2.0**24


def subsets(m: int) -> Int[np.ndarray, "s m"]:
    """All 0/1 vectors of length ``m``, row ``b`` being the binary digits of ``b``, lowest first."""
    return (np.arange(2**m)[:, None] >> np.arange(m)) & 1


def costs(
    x: Float[np.ndarray, " m"],
    t: float,
    objective: str,
    *,
    tolerance: float = 0.01,
    residual_price: float = 1.0,
    price: Float[np.ndarray, " m"] | None = None,
    gram: Float[np.ndarray, "m m"] | None = None,
    linear: Float[np.ndarray, " m"] | None = None,
) -> list[np.ndarray]:
    """The quantities that ``objective`` minimises in turn, one array over all subsets each.

    Values are read as float64, so ``x`` and ``t`` on the grid 2**-24 give exact sums.
    """
    b = subsets(len(x if gram is None else linear))
    if objective == "quadratic":
        g, c = gram.astype(np.float64), linear.astype(np.float64)
        return [np.einsum("si,ij,sj->s", b, g, b) - 2 * b @ c]
    error = np.abs(float(t) - b @ x.astype(np.float64))
    if objective == "best":
        return [error]
    if objective == "smallest":
        within = error <= tolerance
        return [np.where(within, b.sum(1), len(x) + 1), error]
    if objective == "robust":
        q = np.zeros(len(x)) if price is None else price.astype(np.float64)
        return [float(residual_price) * error**2 + b @ q]
    raise ValueError(f"unknown objective {objective!r}")


def brute_force(x: Float[np.ndarray, " m"], t: float, objective: str, *, size: int | None = None, **terms) -> int:
    """Mask of the optimal subset; ties go to fewer variables, then to the smaller mask."""
    keys = costs(x, t, objective, **terms)
    count = subsets(int(np.log2(len(keys[0])))).sum(1)
    masks = np.arange(len(count))
    order = np.lexsort((masks, count, *reversed(keys)))
    if size is not None:
        order = order[count[order] == size]
    return int(order[0])
