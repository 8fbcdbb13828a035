"""What a subset of N numbers loses on a Gaussian weight, beside the bound: ``python -m benchmarks.rate``.

The bound is the rate-distortion function of a Gaussian, D = 4^-N of its variance for N bits. Three
numbers for each N: the nearest of the 2^N sums of products of two uniform numbers, and of uniform
numbers, each with the scale that suits best; and a weight rounded to multiples of a step with an
entropy of N bits, which `slth.Rounded` realises. The last line is the time.
"""

import time

import numpy as np

from slth.construction.steps import entropy
from slth.subset_sum import solve

WEIGHTS = 20_000
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def of_subsets(rng: np.random.Generator, count: int, *, products: bool) -> float:
    """The least mean squared error over the scales."""
    weights = rng.normal(size=WEIGHTS).astype(np.float32)
    numbers = rng.uniform(-1, 1, (count, WEIGHTS))
    if products:
        numbers = numbers * rng.uniform(-1, 1, numbers.shape) * 2
    errors = [
        np.asarray(solve((scale * numbers).astype(np.float32), weights, "best").error, np.float64)
        for scale in SCALES
    ]
    return min(float((error**2).mean()) for error in errors)


def of_rounding(rng: np.random.Generator, bits: float) -> float:
    """The mean squared error at the step whose multiples have this entropy."""
    weights = rng.normal(size=50 * WEIGHTS)
    low, high = -12.0, 3.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(weights, 2.0**middle) > bits else (low, middle)
    step = 2.0**high
    whole = np.rint(weights / step)
    # The reader of a rounded weight may put it where its cell's mean is.
    _, cell = np.unique(whole, return_inverse=True)
    means = np.bincount(cell, weights) / np.bincount(cell)
    return float(((weights - means[cell]) ** 2).mean())


def main() -> None:
    """One row for each number of bits."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    print("bits   bound D      subset, products   subset, uniform   rounded, same entropy")
    for bits in (1, 2, 3, 4, 6, 8):
        products, uniform = (of_subsets(rng, bits, products=kind) for kind in (True, False))
        rounded = of_rounding(rng, bits)
        print(f"{bits:<6} {4.0**-bits:<12.2e} {products:<18.2e} {uniform:<17.2e} {rounded:.2e}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
