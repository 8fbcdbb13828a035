"""Blocks of copies dealt to channels: permutations near the best one."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from slth.construction.blocks import assign


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_swap_of_two_helps_and_the_sum_is_near_the_least(n, seed):
    cost = np.random.default_rng(seed).exponential(size=(n, n)) ** 2
    order = assign(cost)
    assert sorted(order) == list(range(n))
    total = cost[np.arange(n), order].sum()
    for i, k in itertools.combinations(range(n), 2):
        swapped = order.copy()
        swapped[[i, k]] = order[[k, i]]
        assert cost[np.arange(n), swapped].sum() >= total - 1e-12
    rows, best = linear_sum_assignment(cost)
    assert total <= 2 * cost[rows, best].sum() + 1e-12


def test_equal_costs_end():
    assert sorted(assign(np.ones((4, 4)))) == [0, 1, 2, 3]
