"""Exactly k of m variables a weight: `Solver.size`."""

from itertools import combinations

import numpy as np
import pytest

from slth.construct import Solver, construct
from slth.source import parameter
from tests.construct.nets import PLAIN, images, source_of, target_of

TARGET, PARAMS = target_of(PLAIN["vectors"])
M = 8


def test_each_weight_has_exactly_so_many_and_the_best_of_them():
    source = source_of(TARGET, M)
    made = construct(TARGET, PARAMS, source, Solver(size=3))
    kept, random = np.asarray(made.mask["c"]["kernel"]), np.asarray(parameter(source, "c/kernel"), np.float64)
    weights = np.asarray(made.params["c"]["kernel"], np.float64)
    for i, copies in enumerate(made.columns["b"]):
        v, chosen = random[copies], kept[copies]
        assert (chosen.sum(0) == 3).all()
        sums = np.array([v[list(three)].sum(0) for three in combinations(range(M), 3)])
        least = np.abs(sums - weights[i]).min(0)
        np.testing.assert_allclose(np.abs((v * chosen).sum(0) - weights[i]), least, atol=1e-6)


def test_a_weight_of_zero_still_has_none():
    zero = {**PARAMS, "c": {**PARAMS["c"], "kernel": np.zeros_like(PARAMS["c"]["kernel"])}}
    made = construct(TARGET, zero, source_of(TARGET, M), Solver(size=3))
    constant = made.columns["b"].size
    assert not np.asarray(made.mask["c"]["kernel"])[:constant].any()


@pytest.mark.parametrize("solver", [Solver(method="compensated", size=3), Solver(objective="single", size=3)])
def test_other_methods_refuse_it(solver):
    with pytest.raises(ValueError, match=r"solver.size=3 needs solver.method=independent and objective"):
        construct(TARGET, PARAMS, source_of(TARGET, M), solver, images(TARGET, 4))
