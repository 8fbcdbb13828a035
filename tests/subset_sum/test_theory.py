"""Theory against simulation, and against the published samples where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from slth.subset_sum import solve, theory

PUBLISHED = Path(os.environ.get("SLTH_DATA", "../shared/data"))


def test_coverage_is_laguerre():
    for m, t in ((1, 0.3), (8, 1.0), (15, -0.5)):
        np.testing.assert_allclose(
            theory.coverage_failure(m, t), 2.0**-m * special.eval_laguerre(m, -abs(t)), rtol=1e-12
        )
    nodes = np.linspace(0, 1, 20001)
    np.testing.assert_allclose(
        theory.mean_coverage_failure(12),
        np.trapezoid([theory.coverage_failure(12, t) for t in nodes], nodes),
        rtol=1e-6,
    )


def test_coverage_against_simulation():
    """Within 4 standard errors: a false alarm in 16,000 seeds."""
    m, n = 8, 200_000
    rng = np.random.default_rng(0)
    x, t = theory.draw("uniform", (m, n), rng), theory.draw("uniform", (n,), rng)
    unreached = (np.maximum(x * np.sign(t), 0).sum(0) < np.abs(t)).mean()
    p = theory.mean_coverage_failure(m)
    assert abs(unreached - p) < 4 * np.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(
    "m, distribution, expected", [(12, "uniform", 0.023), (15, "uniform", 0.0042), (15, "product", 0.035)]
)
def test_failure_of_the_slide(m, distribution, expected):
    n, rng = 200_000, np.random.default_rng(m)
    t = theory.draw("uniform", (n,), rng)
    out = solve(theory.draw(distribution, (m, n), rng), t, "smallest", tolerance=0.01)
    low, high = theory.interval(int((~out.solved).sum()), n)
    assert low * 0.97 < expected < high * 1.03  # expected is rounded to two digits


def test_interval_covers():
    """Of 400 intervals for p = 0.01, 95 % contain it; fewer than 362 has probability below 1e-3."""
    counts = np.random.default_rng(0).binomial(5000, 0.01, 400)
    covered = sum(low <= 0.01 <= high for low, high in (theory.interval(int(k), 5000) for k in counts))
    assert covered >= 362


def test_lemma_constant_holds_where_measured():
    for m, epsilon, failure in (
        (8, 0.01, 0.29),
        (10, 0.01, 0.080),
        (12, 0.01, 0.023),
        (15, 0.01, 0.0042),
        (18, 0.01, 0.0008),
        (20, 0.01, 0.00025),
    ):
        assert theory.implied_constant(m, epsilon, failure) < theory.C
        delta = max(failure, epsilon)
        assert theory.required_multiplicity(min(epsilon, 0.5), min(delta, 0.5)) >= 1
    assert theory.required_multiplicity(0.01, 0.0042) >= 15


@pytest.mark.parametrize("bad", [(0, 0.1, 1), (0.1, 1, 1), (0.1, 0.1, 0)])
def test_required_multiplicity_refuses(bad):
    with pytest.raises(ValueError, match="need 0 < epsilon, delta < 1 and problems >= 1"):
        theory.required_multiplicity(bad[0], bad[1], problems=bad[2])


def test_unknown_distribution():
    with pytest.raises(ValueError, match="choose one of uniform, normal, product"):
        theory.draw("cauchy", (1,), np.random.default_rng(0))


@pytest.mark.parametrize(
    "distribution, name", [("uniform", "official_subset_stats"), ("product", "official_subset_2l_stats")]
)
def test_sizes_and_failures_equal_the_published(distribution, name):
    """Chi-square of solved sizes and of failures against the authors' 100,000 samples, at level 1e-3 each."""
    file = PUBLISHED / f"{name}_m15_eps0.01.npz"
    if not file.is_file():
        pytest.skip(f"published samples are not at hand: {file}")
    published = np.load(file)
    solved = np.abs(published["error"]) <= 0.01
    n = 300_000
    rng = np.random.default_rng(11)
    out = solve(theory.draw(distribution, (15, n), rng), theory.draw("uniform", (n,), rng), "smallest")

    def counts(sizes):
        return np.bincount(np.minimum(sizes.astype(int), 5), minlength=6)

    table = np.array([counts(published["subset_size"][solved]), counts(out.size[out.solved])])
    assert stats.chi2_contingency(table).pvalue > 1e-3
    failed = [[(~solved).sum(), solved.sum()], [(~out.solved).sum(), out.solved.sum()]]
    assert stats.chi2_contingency(np.array(failed)).pvalue > 1e-3
