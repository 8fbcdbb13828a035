r"""What theory says about random subset sums, to be held against what is measured.

The lemma (Lueker, Random Struct. Algorithms 12 (1998) 51-62; Pensia et al. 2020): for :math:`|t| \le 1` and
:math:`X_1, ..., X_m` uniform on [-1, 1], :math:`m \ge C \log(1 / \min(\delta, \epsilon))` variables have
with probability at least :math:`1 - \delta` a subset whose sum is within :math:`\epsilon` of t. It fails
for two reasons: *coverage* (the variables of t's sign do not add up to t) and *resolution* (no sum comes
close).
"""

import math

import numpy as np
from jaxtyping import Float

# Above what uniform variables imply for 6 <= m <= 24 and epsilon = 0.01 (at most 2.73); products need 4.1.
C = 3.0
DISTRIBUTIONS = ("uniform", "normal", "product")


def draw(distribution: str, shape: tuple[int, ...], rng: np.random.Generator) -> Float[np.ndarray, "*shape"]:
    """Random variables: uniform on [-1, 1], standard normal, or products of two uniforms (2L)."""
    if distribution == "uniform":
        return _uniform(shape, rng)
    if distribution == "product":
        return _uniform(shape, rng) * _uniform(shape, rng)
    if distribution == "normal":
        return rng.standard_normal(shape, np.float32)
    raise ValueError(f"unknown distribution {distribution!r}: choose one of {', '.join(DISTRIBUTIONS)}")


def _uniform(shape, rng):
    return 2 * rng.random(shape, np.float32) - 1


def interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's confidence interval (95 % for z = 1.96) of a probability estimated by ``successes / trials``.

    >>> interval(0, 100)
    (0.0, 0.037)
    """
    p, shrink = successes / trials, z * z / trials
    centre = (p + shrink / 2) / (1 + shrink)
    half = z / (1 + shrink) * math.sqrt(p * (1 - p) / trials + shrink / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def coverage_failure(m: int, t: float) -> float:
    r"""Probability that m uniform variables cannot reach t: :math:`2^{-m} L_m(-|t|)`, Laguerre's
    polynomial, :math:`|t| \le 1`.

    With K positive variables, binomial with 1/2, their sum stays below t with probability :math:`t^K / K!`.

    >>> round(coverage_failure(15, 1.0), 4)
    0.0072
    """
    if abs(t) > 1:
        raise ValueError(f"the formula holds for |t| <= 1, got {t}")
    return sum(math.comb(m, k) * abs(t) ** k / math.factorial(k) for k in range(m + 1)) / 2**m


def mean_coverage_failure(m: int) -> float:
    """`coverage_failure` averaged over a target uniform on [-1, 1].

    >>> round(mean_coverage_failure(15), 4)
    0.0019
    """
    return sum(math.comb(m, k) / math.factorial(k + 1) for k in range(m + 1)) / 2**m


def resolution_failure(m: int, failure: float) -> float:
    """The part of a measured failure rate that is not `mean_coverage_failure`: no sum comes close enough."""
    return max(0.0, failure - mean_coverage_failure(m))


def implied_constant(m: int, epsilon: float, failure: float) -> float:
    r"""The C of the lemma that data imply: :math:`m / \log(1 / \min(\delta, \epsilon))` with the measured
    failure as :math:`\delta`.

    >>> round(implied_constant(15, 0.01, 0.0042), 2)
    2.74
    """
    return m / math.log(1 / min(max(failure, 1e-300), epsilon))


def required_multiplicity(epsilon: float, delta: float, *, problems: int = 1, constant: float = C) -> int:
    r"""Variables m that the lemma asks for, :math:`\lceil C \log(N / \min(\delta, N \epsilon)) \rceil`.

    A network of N ``problems`` fails with probability at most delta if each fails with at most delta / N
    (union bound). C is fitted to measurements, so for small delta / N this is an extrapolation.

    >>> required_multiplicity(0.01, 0.01), required_multiplicity(0.01, 0.01, problems=4_100_000)
    (14, 60)
    """
    if not (0 < epsilon < 1 and 0 < delta < 1 and problems >= 1):
        raise ValueError(f"need 0 < epsilon, delta < 1 and problems >= 1, got {epsilon}, {delta}, {problems}")
    return math.ceil(constant * math.log(1 / min(delta / problems, epsilon)))
