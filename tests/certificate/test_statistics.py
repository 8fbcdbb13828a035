"""Confidence statements against SciPy, against their definitions, and by simulation of their coverage."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from slth.certificate import statistics


@pytest.mark.parametrize("trials", [1, 2, 3, 10, 360, 1017, 10_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_clopper_pearson_is_scipys_exact_interval(trials: int, confidence: float):
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        found = statistics.clopper_pearson(successes, trials, confidence)
        wanted = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, "exact")
        np.testing.assert_allclose(found, (wanted.low, wanted.high), rtol=1e-9, atol=1e-12)


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(1e-6, 1 - 1e-6))
def test_upper_tail_is_scipys_survival_function(n: int, share: float, p: float):
    k = round(share * (n + 1))
    wanted = scipy.stats.binom.sf(k - 1, n, p)
    assert statistics.upper_tail(k, n, p) == pytest.approx(wanted, rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.97, 1.0])
def test_the_interval_covers_every_probability_often_enough(n: int, p: float):
    """Exactly: the binomial weights of the counts whose interval holds p add up to 95 % at least."""
    held = [k for k in range(n + 1) if (i := statistics.clopper_pearson(k, n)).low <= p <= i.high]
    assert scipy.stats.binom.pmf(held, n, p).sum() >= 0.95


@pytest.mark.parametrize("rank, trials", [(1, 1), (1, 50), (25, 50), (50, 50), (1000, 1017)])
def test_covered_share_is_a_quantile_of_the_beta_distribution(rank: int, trials: int):
    wanted = scipy.stats.beta.ppf(0.05, rank, trials - rank + 1)
    assert statistics.covered_share(rank, trials) == pytest.approx(wanted, rel=1e-9)


def test_the_quantile_bound_is_the_least_rank_that_serves():
    for n, level in ((60, 0.5), (299, 0.99), (1017, 0.99), (1017, 0.9)):
        errors = np.random.default_rng(n).exponential(size=n)
        found = statistics.quantile_bound(errors, level)
        assert found.rank is not None
        assert found.bound == np.sort(errors)[found.rank - 1]
        tails = scipy.stats.binom.sf([found.rank - 1, found.rank - 2], n, level)
        assert tails[0] <= 0.05 < tails[1]


def test_too_few_images_bound_no_high_quantile():
    """0.99^298 > 0.05 > 0.99^299: 299 images are needed for the 0.99 quantile, whatever they show."""
    assert statistics.quantile_bound(np.zeros(298), 0.99) == (0.99, None, None)
    assert statistics.quantile_bound(np.zeros(299), 0.99) == (0.99, 299, 0.0)


@pytest.mark.parametrize("kind", ["continuous", "ties"])
def test_quantile_bounds_hold_as_often_as_they_claim(kind: str):
    """4,000 draws of 100 errors: at 95 % confidence a bound may fail in 5 %; 6.5 % is a 4.4 sigma event."""
    rng = np.random.default_rng(7)
    level, trials, n = 0.8, 4000, 100
    draws = rng.exponential(size=(trials, n))
    quantile = -np.log(1 - level)
    if kind == "ties":
        draws, quantile = np.ceil(draws), np.ceil(quantile)
    bounds = [statistics.quantile_bound(errors, level).bound for errors in draws]
    failed = np.mean([bound is None or bound < quantile for bound in bounds])
    assert failed < 0.065
    if kind == "continuous":  # the least rank that serves is not far from the confidence asked for
        assert failed > 0.02


BAD = {  # what is wrong: (call, what is said)
    "no images": (lambda: statistics.clopper_pearson(0, 0), "at least one"),
    "too many": (lambda: statistics.clopper_pearson(5, 4), "successes <= 4"),
    "rank 0": (lambda: statistics.covered_share(0, 4), "rank from 1 to 4"),
    "certain": (lambda: statistics.clopper_pearson(1, 4, 1.0), "confidence"),
    "level": (lambda: statistics.quantile_bound(np.ones(3), 1.0), "level"),
    "NaN": (lambda: statistics.quantile_bound(np.array([0.0, np.nan]), 0.5), "1 of 2 errors"),
}


@pytest.mark.parametrize("call, said", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(call, said: str):
    with pytest.raises(ValueError, match=said):
        call()
