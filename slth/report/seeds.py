"""Means over seeds and how far they can be trusted."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Mean(NamedTuple):
    """A mean over n runs and its interval; None where n is too small for one.

    Example:
      >>> from slth import report
      >>> report.mean_of([0.5]).low is None
      True
    """

    n: int
    mean: float | None
    low: float | None
    high: float | None


def mean_of(values: Sequence[float | None], confidence: float = 0.95) -> Mean:
    r"""Mean and interval :math:`\bar x \pm t_{n-1} s / \sqrt n` by Student's t, s divided by n − 1.

    The interval holds for independent values that are roughly normal. One value has no interval.

    Args:
      values: one for each seed; None and what is not finite are left out, and n counts the rest.
      confidence: of the interval, between 0 and 1.

    Raises: ValueError where the confidence is not between 0 and 1.

    Example:
      >>> from slth import report
      >>> report.mean_of([1.0, 2.0, 3.0, None])
      Mean(n=3, mean=2.0, low=-0.484138, high=4.484138)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    known = np.asarray([value for value in values if value is not None and math.isfinite(value)], float)
    n = len(known)
    if n == 0:
        return Mean(0, None, None, None)
    mean = float(known.mean())
    if n == 1:
        return Mean(1, mean, None, None)
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1) * known.std(ddof=1) / math.sqrt(n))
    return Mean(n, mean, mean - reach, mean + reach)
