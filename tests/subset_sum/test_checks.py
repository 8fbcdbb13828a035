"""What `solve` refuses, and that the message names the culprit."""

import numpy as np
import pytest

from slth.subset_sum import solve

X, T = np.full((3, 4), 0.5, np.float32), np.full(4, 0.25, np.float32)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def asymmetric():
    return changed(np.zeros((3, 3, 4), np.float32), (0, 2, 1), 1)


CASES = {
    "NaN": ({"x": changed(X, (1, 2), np.nan)}, r"x\[1, 2\] is nan: need a number in"),
    "infinite": ({"t": changed(T, 3, np.inf)}, r"t\[3\] is inf"),
    "out of range": ({"x": changed(X, (2, 0), -2e6)}, r"x\[2, 0\] is -2000000.0"),
    "shape of t": ({"t": T[:3]}, r"t must have shape \(4,\)"),
    "one axis": ({"x": T}, "x must have shape"),
    "no variable": ({"x": X[:0]}, "1 to 32 variables, got m = 0"),
    "too many": ({"x": np.zeros((33, 4), np.float32)}, "got m = 33"),
    "too many for robust": (
        {"x": np.zeros((21, 4), np.float32), "objective": "robust"},
        "1 to 20 variables, got m = 21",
    ),
    "tolerance": ({"tolerance": -1}, r"tolerance must be in \[0, 32\], got -1"),
    "NaN tolerance": ({"tolerance": float("nan")}, "tolerance"),
    "size": ({"size": 4}, r"size must be in \[0, m = 3\], got 4"),
    "unknown objective": ({"objective": "worst"}, "'worst' is not a valid Objective"),
    "foreign term": ({"price": X}, "price means nothing to objective best"),
    "negative price": ({"objective": "robust", "price": -X}, r"price\[0, 0\] is -0.5"),
    "r of zero": ({"objective": "robust", "residual_price": changed(T, 1, 0)}, r"residual_price\[1\] is 0.0"),
    "too dear for a fixed size": (
        {"objective": "robust", "price": changed(0 * X, (slice(1, 3), 2), 1e4), "size": 2},
        "the 2 cheapest variables of problem 2 have price / residual_price 10000:",
    ),
    "no gram": ({"objective": "quadratic", "linear": X}, "objective quadratic needs gram"),
    "asymmetric": (
        {"objective": "quadratic", "gram": asymmetric(), "linear": X},
        r"gram\[0, 2, 1\] differs from gram\[2, 0, 1\]",
    ),
    "x without t": (
        {"t": None, "objective": "quadratic", "gram": np.zeros((3, 3, 4)), "linear": X},
        "both x and t, or neither",
    ),
}


@pytest.mark.parametrize("change, message", CASES.values(), ids=CASES.keys())
@pytest.mark.usefixtures("unchecked")
def test_refused_before_the_run(change, message):
    arguments = {"x": X, "t": T, **change}
    with pytest.raises(ValueError, match=message):
        solve(**arguments)
