"""The classes of rows: the cheapest, by trying all."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slth.coding import rows


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=12))
def test_the_cheapest_classes_are_those_of_a_search(pairs):
    """Of equal costs the smallest width, then the smallest least class; for each row the smallest class."""
    sizes = np.array([size for _, size in pairs])
    ones = np.minimum([count for count, _ in pairs], sizes)
    costs = ones[:, None] * rows.COSTS + (sizes - ones)[:, None] * rows.COSTS[::-1]
    best = None
    for width in range(7):
        for least in range(1, 65 - min(2**width, 63)):
            window = costs[:, least - 1 : least - 1 + 2**width]
            cost = int(window.min(1).sum()) + (width * len(pairs) << 16)
            if best is None or cost < best[0]:
                best = cost, least, width, (window.argmin(1) + least).tolist()
    *found, classes = rows.cheapest(ones, sizes)
    assert (*found, classes.tolist()) == best


def test_rows_of_half_ones_are_of_the_class_in_the_middle():
    assert rows.cheapest(np.full(5, 30), np.full(5, 60))[3].tolist() == [32] * 5
