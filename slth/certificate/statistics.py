r"""What n held-out images show, and what they do not: exact statements about images never looked at.

A worst case says something of every input, and often too little; a test set says something of *most* inputs
drawn as its images were. Both statements here are exact for every n, with no normal approximation, as long as
the images are independent draws that played no part in making the ticket.
"""

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
LEVELS = (0.5, 0.9, 0.99)


class Interval(NamedTuple):
    """A confidence interval of a probability."""

    low: float
    high: float


class Quantile(NamedTuple):
    """An upper confidence bound of a quantile of the error."""

    level: float
    """p: the statement is about a share p of all images."""
    rank: int | None
    """The bound is the rank-th smallest of the errors; None where n images are too few for any."""
    bound: float | None


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    r"""The exact interval of a probability p after k successes in n trials: all p that an equal-tailed
    binomial test does not refuse,

    .. math:: P[\mathrm{Bin}(n, p) \ge k] \ge \alpha / 2, \quad P[\mathrm{Bin}(n, p) \le k] \ge \alpha / 2

    with :math:`\alpha = 1 -` ``confidence``. It covers p with at least that confidence whatever p is.

    Raises: ValueError if not 0 <= k <= n, n >= 1 and 0 < confidence < 1.
    Source: Clopper and Pearson, Biometrika 26 (1934) 404-413.

    >>> low, high = clopper_pearson(1008, 1017)
    >>> round(low, 4), round(high, 4)
    (0.9833, 0.9959)
    """
    _check(trials, confidence)
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= {trials}, got {successes}")
    low, above = (
        _share(k, trials, (1 - confidence) / 2)
        for k in (successes, trials - successes)  # P[Bin(n, p) <= k] = P[Bin(n, 1 - p) >= n - k]
    )
    return Interval(low, 1 - above)


def covered_share(rank: int, trials: int, confidence: float = CONFIDENCE) -> float:
    r"""The share of all images whose error is, with the confidence wanted, at most the rank-th smallest seen:
    the p with :math:`P[\mathrm{Bin}(n, p) \ge r] = \alpha`, and :math:`\alpha^{1/n}` for the largest of n.

    Raises: ValueError if not 1 <= rank <= n and 0 < confidence < 1.

    >>> round(covered_share(1017, 1017), 5)
    0.99706
    """
    _check(trials, confidence)
    if not 1 <= rank <= trials:
        raise ValueError(f"expected a rank from 1 to {trials}, got {rank}")
    return _share(rank, trials, 1 - confidence)


def quantile_bound(errors: Float[np.ndarray, " n"], level: float, confidence: float = CONFIDENCE) -> Quantile:
    r"""A bound of the error that at least a share ``level`` of all images keep, with the confidence wanted.

    The rank-th smallest :math:`X_{(r)}` of n errors is below the quantile :math:`q_p` only if r or more
    errors do, and each does with probability at most p: the least r with
    :math:`P[\mathrm{Bin}(n, p) \ge r] \le \alpha` serves, for every distribution, ties included.

    Args:
      errors: one number for each image, shape (n,).
      level: p, in (0, 1).
    Returns: `Quantile`; its bound is None where even the largest error does not serve
      (:math:`n < \log \alpha / \log p`).
    Raises: ValueError for no errors, one that is not a number, a level or a confidence outside (0, 1).
    Source: order statistics, e.g. David and Nagaraja, Order Statistics (2003), section 7.1.

    >>> quantile_bound(np.arange(1.0, 101.0), 0.9)
    Quantile(level=0.9, rank=96, bound=96.0)
    >>> quantile_bound(np.arange(1.0, 101.0), 0.99).bound is None
    True
    """
    _check(len(errors), confidence)
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    if np.isnan(errors).any():
        raise ValueError(f"{int(np.isnan(errors).sum())} of {len(errors)} errors are not a number")
    ranks, alpha = range(1, len(errors) + 1), 1 - confidence
    below = bisect_left(ranks, True, key=lambda rank: upper_tail(rank, len(errors), level) <= alpha)
    if below == len(errors):
        return Quantile(level, None, None)
    return Quantile(level, ranks[below], float(np.sort(errors)[below]))


def upper_tail(k: int, n: int, p: float) -> float:
    r""":math:`P[\mathrm{Bin}(n, p) \ge k]`, summed in logarithms.

    >>> upper_tail(9, 10, 0.5)
    0.0107421875
    """
    if k <= 0 or p >= 1:
        return 1.0
    if k > n or p <= 0:
        return 0.0
    # log C(n, i) from its first value by the ratios of its neighbours.
    i = np.arange(k, n + 1)
    first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    steps = np.log((n - i[:-1]) / (i[:-1] + 1.0))
    log = first + np.concatenate([[0.0], np.cumsum(steps)]) + i * math.log(p) + (n - i) * math.log1p(-p)
    largest = float(log.max())
    return min(math.exp(largest + math.log(float(np.exp(log - largest).sum()))), 1.0)


def _share(k: int, n: int, alpha: float) -> float:
    """The largest p with P[Bin(n, p) >= k] <= alpha, among floats."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if upper_tail(k, n, middle) > alpha else (middle, high)
    return low


def _check(trials: int, confidence: float) -> None:
    if trials < 1:
        raise ValueError("there are no images: a statement about all of them needs at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}")
