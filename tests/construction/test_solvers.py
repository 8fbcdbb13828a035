"""What each solver of the front door chooses: exactly k variables, at most one, the nearest, the smallest."""

from itertools import combinations

import jax
import numpy as np
import pytest

from slth import Best, Robust, Single, Smallest, Target, construct
from slth.source import parameter
from tests.construction.nets import PLAIN, source_of, target_of
from tests.subset_sum.reference import brute_force

TARGET = Target(*target_of(PLAIN["vectors"]))
M = 8


def last_layer(made, source):
    """(random weights, kept ones, target weights) of the copies of each input of the last layer."""
    kept, random = np.asarray(made.mask["c"]["kernel"]), np.asarray(parameter(source, "c/kernel"), np.float64)
    weights = np.asarray(made.params["c"]["kernel"], np.float64)
    for i, copies in enumerate(made.columns["b"]):
        yield random[copies], kept[copies], weights[i]


@pytest.mark.parametrize("solver", [Best(size=3), Robust(noise="fixed", price=1e-12, size=3)], ids=repr)
def test_each_weight_has_exactly_so_many_and_the_best_of_them(solver):
    source = source_of(TARGET.network, M)
    for v, chosen, weights in last_layer(construct(TARGET, source, solver), source):
        assert (chosen.sum(0) == 3).all()
        sums = np.array([v[list(three)].sum(0) for three in combinations(range(M), 3)])
        least = np.abs(sums - weights).min(0)
        np.testing.assert_allclose(np.abs((v * chosen).sum(0) - weights), least, atol=1e-6)


def test_a_weight_of_zero_still_has_none():
    kernel = np.zeros_like(TARGET.params["c"]["kernel"])
    zero = Target(TARGET.network, {**TARGET.params, "c": {**TARGET.params["c"], "kernel": kernel}})
    made = construct(zero, source_of(TARGET.network, M), Best(size=3))
    constant = made.columns["b"].size
    assert not np.asarray(made.mask["c"]["kernel"])[:constant].any()


def test_at_most_one_of_a_weight_is_the_nearest_one():
    source = source_of(TARGET.network, M)
    for v, chosen, weights in last_layer(construct(TARGET, source, Single()), source):
        sums = np.concatenate([np.zeros((1, len(weights))), v])
        assert chosen.sum(0).max() == 1
        least = np.abs(sums - weights).min(0)
        np.testing.assert_allclose(np.abs((v * chosen).sum(0) - weights), least, atol=1e-6)


@pytest.mark.parametrize("objective", ["smallest", "best"])
@pytest.mark.parametrize("tolerance", [0.01, 0.2])
def test_the_tolerance_is_in_units_of_the_source_s_scale(objective, tolerance):
    solver = {"smallest": Smallest, "best": Best}[objective](tolerance=tolerance)
    source = source_of(TARGET.network, M)
    made = construct(TARGET, source, solver)
    scale = np.sqrt(6 * M / source.network.layers[4].features)  # He's, of what the last layer reads
    unsolved = 0
    for v, chosen, weights in last_layer(made, source):
        best = brute_force(v, weights, objective, tolerance=tolerance * scale)
        subset = (best >> np.arange(M)[:, None]) & 1
        assert np.array_equal(chosen.sum(0), subset.sum(0))
        error = np.abs((v * subset).sum(0) - weights)
        np.testing.assert_allclose(np.abs((v * chosen).sum(0) - weights), error, atol=1e-6)
        unsolved += (error > tolerance * scale).sum()
    (record,) = (record for record in made.records if record.path == "c")
    assert unsolved <= record.stats.unsolved <= unsolved + len(made.params["c"]["bias"])
    assert (tolerance == 0.01) == (unsolved > 0)


def test_a_construction_keeps_no_bias_that_the_target_lacks():
    bare = jax.tree.map(np.asarray, TARGET.params)
    bare = {name: own | {"bias": np.zeros_like(own["bias"])} for name, own in bare.items()}
    made = construct(Target(TARGET.network, bare), source_of(TARGET.network, M), Best())
    assert made.stats.problems == sum(
        copies * slots * np.count_nonzero(made.params[name]["kernel"])
        for name, copies, slots in (("a", M, 2), ("b", M, 1), ("c", 1, 1))
    )
