"""Masks of rounded kernels from random integers, each by trying all subsets with Python's integers."""

from itertools import product

import numpy as np

from slth import coding
from slth.coding.bits import Reader
from slth.coding.head import read_head

GRID = 2.0**-24


def chosen(products, step):
    """The chosen subset of each integer that has one: {q: number}, bit k of the number for product k."""
    best = {}
    for number in range(2 ** len(products)):
        total = sum(p for k, p in enumerate(products) if number >> k & 1)
        q = (2 * total + step) // (2 * step)
        best[q] = min(best.get(q, (abs(total - q * step), number)), (abs(total - q * step), number))
    return {q: number for q, (_, number) in best.items()}


class Case:
    """A front of univariate channels and a kernel that reads it, kept as random integers say."""

    def __init__(
        self, seed, inputs, channels, taps, columns, step, *, join=False, dead=0.2, most=8, values=None
    ):
        random = np.random.default_rng(seed)
        width = len(channels)
        self.shapes = {
            "u/bias": (width,),
            "u/kernel": (*(1 for _ in taps), inputs, width),
            "a/bias": (columns,),
            "a/kernel": (*taps, width, columns),
        }
        self.values = values or {
            path: (random.integers(-(2**24), 2**24, shape) * GRID).astype(np.float32)
            for path, shape in self.shapes.items()
        }
        self.arrays = {path: np.zeros(shape, bool) for path, shape in self.shapes.items()}
        self.steps = {"a/kernel": step}
        self.arrays["a/bias"] = random.random(columns) < 0.5
        for r, i in enumerate(channels):  # an input, -1: a constant, -2: nothing
            self.arrays["u/bias"][r] = i == -1
            if i >= 0:
                self.arrays["u/kernel"][..., i, r] = True
        alpha = np.rint(self.values["u/kernel"] / GRID).astype(int).reshape(inputs, width)
        weights = np.rint(self.values["a/kernel"] / GRID).astype(int).reshape(-1, width, columns)
        kept = self.arrays["a/kernel"].reshape(weights.shape)
        signs = ((1, -1),) if join else ((1,), (-1,))
        self.integers = []
        live_taps, live_columns = random.random(len(kept)) >= dead, random.random(columns) >= dead
        for i, sign in product(range(inputs), signs):
            rows = [r for r, n in enumerate(channels) if n == i and np.sign(alpha[i, r]) in sign]
            found = np.zeros((len(kept), columns), int)
            for tap, column in product(np.flatnonzero(live_taps), np.flatnonzero(live_columns)):
                subsets = chosen([int(alpha[i, r] * weights[tap, r, column]) for r in rows], step)
                q = random.choice([q for q in subsets if abs(q) <= most])
                found[tap, column] = q
                kept[tap, rows, column] = [subsets[q] >> k & 1 for k in range(len(rows))]
            if found.any():
                self.integers.append(found)
        for r, i in enumerate(channels):
            if i == -1:
                kept[:, r] = (random.random((len(kept), columns)) < 0.4) & live_columns & live_taps[:, None]

    def encode(self, **other):
        return coding.encode(self.shapes, self.arrays, self.steps | other, self.values.__getitem__)

    def decode(self, code):
        return coding.decode(self.shapes, code, self.values.__getitem__)

    def rounding(self, code):
        return read_head(self.shapes, Reader(code))[1]["a/kernel"].rounding
