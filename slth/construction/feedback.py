"""Rounding with feedback: what each rounded weight misses is made up for by those that follow.

Source: GPTQ (Frantar et al., ICLR 2023), after optimal brain surgery.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Factor = Float[np.ndarray, "n n"]
Row = Float[np.ndarray, " rows"]


def factor_of(gram: Float[np.ndarray, "n n"]) -> Factor:
    """The upper factor of the inverse of a Gram matrix: row i says what input i tells of the later ones, once
    the earlier ones are done; 1 / its diagonal squared is the variance that is left of input i."""
    return np.linalg.cholesky(np.linalg.inv(gram)).T


def fed_back(
    weights: Float[np.ndarray, "n rows"], factor: Factor, choose: Callable[[int, Row], Row]
) -> Float[np.ndarray, "n rows"]:
    """Round one input after the other, for all rows.

    Args:
      choose: (number of the input, what its weights should be by now) -> what they become.
    """
    left, done = weights.copy(), np.empty_like(weights)
    for i, row in enumerate(factor):
        done[i] = choose(i, left[i])
        left[i + 1 :] -= np.outer(row[i + 1 :], (left[i] - done[i]) / row[i])
    return done
