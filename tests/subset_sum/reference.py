"""Brute force in NumPy: the oracle of the tests, deliberately plain and in another arithmetic (float64).

It holds all ``2**m`` subsets of all problems at once: for a few thousand problems of up to twelve variables.
"""

import numpy as np
from jaxtyping import Float, Int


def subsets(m: int) -> Int[np.ndarray, "s m"]:
    """All 0/1 vectors of length ``m``, row ``b`` being the binary digits of ``b``, lowest first."""
    return (np.arange(2**m)[:, None] >> np.arange(m)) & 1


def costs(
    x: Float[np.ndarray, "m n"] | None,
    t: Float[np.ndarray, " n"] | None,
    objective: str,
    *,
    tolerance: float = 0.01,
    residual_price: Float[np.ndarray, " n"] | float = 1.0,
    price: Float[np.ndarray, "m n"] | float = 0.0,
    gram: Float[np.ndarray, "m m n"] | None = None,
    linear: Float[np.ndarray, "m n"] | None = None,
) -> list[Float[np.ndarray, "s n"]]:
    """The quantities that ``objective`` minimises one after the other, for every subset and problem.

    Sums of values on the grid 2**-24 are exact here too.
    """
    if objective == "quadratic":
        assert gram is not None
        assert linear is not None
        b = subsets(linear.shape[0]).astype(np.float64)
        return [np.einsum("si,ijn,sj->sn", b, gram, b, optimize=True) - 2 * b @ linear]
    assert x is not None
    assert t is not None
    b = subsets(x.shape[0]).astype(np.float64)
    error = np.abs(t - b @ x.astype(np.float64))
    if objective == "best":
        return [error]
    if objective == "smallest":
        return [np.where(error <= tolerance, b.sum(1)[:, None], x.shape[0] + 1), error]
    if objective == "robust":
        return [residual_price * error**2 + b @ np.broadcast_to(price, x.shape).astype(np.float64)]
    raise ValueError(f"unknown objective {objective!r}")


def brute_force(x, t, objective: str, *, size: int | None = None, **terms) -> Int[np.ndarray, " n"]:
    """Optimal masks; ties go to fewer variables, then to the smaller mask. Arguments as `costs`."""
    keys = costs(x, t, objective, **terms)
    count = subsets((len(keys[0]) - 1).bit_length()).sum(1)
    alive = (
        np.ones(keys[0].shape, bool)
        if size is None
        else np.broadcast_to((count == size)[:, None], keys[0].shape)
    )
    for key in (*keys, np.broadcast_to(count[:, None], alive.shape)):
        key = np.where(alive, key, np.inf)
        alive = alive & (key == key.min(0))
    return alive.argmax(0)
