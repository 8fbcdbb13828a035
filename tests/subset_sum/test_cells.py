"""Subsets that stand for multiples of a step, against all subsets in exact integers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slth.subset_sum.cells import NONE, all_sums, cells


def by_hand(variables: list[int], step: int, q: int) -> tuple[int, int] | None:
    """Sum and number of the subset that stands for q."""
    found = []
    for bits in product((0, 1), repeat=len(variables)):
        total = sum(v for v, bit in zip(variables, bits, strict=True) if bit)
        if (2 * total + step) // (2 * step) == q:
            found.append((abs(total - q * step), sum(bit << k for k, bit in enumerate(bits)), total))
    return (min(found)[2], min(found)[1]) if found else None


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=6),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_the_nearest_of_each_cell_stands_for_it(variables: list[int], step: int, most: int):
    found = cells(np.array(variables, np.int64)[:, None], step, most)
    for q in range(-most, most + 1):
        total, number = found.sums[q + most, 0], found.subsets[q + most, 0]
        expected = by_hand(variables, step, q)
        assert (None if total == NONE else (total, number)) == expected


def test_problems_do_not_disturb_each_other():
    variables = np.random.default_rng(0).integers(-(2**44), 2**44, (7, 3000))
    whole = cells(variables, 2**41, 9)
    some = cells(variables[:, 1500:1510], 2**41, 9)
    assert (whole.sums[:, 1500:1510] == some.sums).all()
    assert (whole.subsets[:, 1500:1510] == some.subsets).all()
    assert (whole.sums[9] == 0).all(), "the empty subset stands for 0"


@pytest.mark.parametrize("count", [0, 3])
def test_sums_come_in_the_order_of_their_numbers(count: int):
    variables = np.array([[1], [10], [100]])[:count]
    assert all_sums(variables)[:, 0].tolist() == [0, 1, 10, 11, 100, 101, 110, 111][: 2**count]
