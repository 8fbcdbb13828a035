r"""Masks of rounded kernels: which integers they stand for, and back.

A kernel's *front* is the layer whose channels are its rows. Rows whose channel keeps one weight
:math:`\alpha_r` of one input, and no bias, are in the *group* of this input (and of the sign of
:math:`\alpha_r`, unless groups join both). At each tap and column the kept subset of a group has the sum
:math:`S = \sum_r \alpha_r v_r` and, for a step D, stands for the integer

.. math:: q(S) = \lfloor (2 S + D) / (2 D) \rfloor

if it is the *chosen* one: of all subsets of this q the one of the least :math:`|S - q D|`, of equals the
smallest number (bit k = k-th row). Such a mask is a function of the integers, and they cost fewer bits.

Weights are multiples of 2^-24, so sums are integers in units of 2^-48; D is in this unit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64

MOST_MEMBERS = 10
"""Most rows of a group."""
UNIT = 2.0**-48
"""Products of two parameters of a source are whole multiples of this."""
LARGEST_STEP = 1 << 50
LARGEST_PRODUCT = 2.0**8
"""Bound of a product of two weights."""
LARGEST_SUM = 1 << 60
"""Bound of a sum in units of 2^-48: that of ten products, and half a step."""
SUMS = 1 << 18
"""Sums that are held at a time."""

Integers = Int16[np.ndarray, "groups entries"]
Live = tuple[Bool[np.ndarray, " taps"], Bool[np.ndarray, " rows"], Bool[np.ndarray, " columns"]]
"""Which taps, rows and columns of a parameter keep an entry."""
View = Bool[np.ndarray, "taps rows columns"]
Weights = Float32[np.ndarray, "taps rows columns"]


def multiples(sums: Int64[np.ndarray, "..."], step: int) -> Int64[np.ndarray, "..."]:
    """q of each sum."""
    return (2 * sums + step) // (2 * step)


class Front(NamedTuple):
    """The layer whose channels are a kernel's rows."""

    kernel: View
    """What it keeps."""
    biases: Bool[np.ndarray, " columns"]
    """Whether a channel keeps its bias."""
    weights: Weights


class Kernel(NamedTuple):
    """What integers say of a kernel: its groups, step and live taps and columns."""

    members: Int64[np.ndarray, "groups most"]
    """Rows of each group, ascending; -1 for none."""
    alone: Bool[np.ndarray, " rows"]
    """Whether a row is live and in no group."""
    alpha: Float64[np.ndarray, " rows"]
    taps: Int64[np.ndarray, " live_taps"]
    columns: Int64[np.ndarray, " live_columns"]
    step: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, live taps and live columns."""
        return len(self.members), len(self.taps), len(self.columns)

    @property
    def entries(self) -> int:
        """Integers of a group."""
        return len(self.taps) * len(self.columns)


def kernel_of(front: Front, live: Live, step: int, *, join: bool) -> Kernel:
    """The groups of a kernel's rows.

    Args:
      live: which taps, rows and columns keep an entry.
      join: whether a group has rows of both signs of alpha.
    Raises: ValueError where there is no group, or one of more than `MOST_MEMBERS` rows.
    """
    taps, rows, columns = live
    kept = front.kernel.reshape(-1, len(rows))
    entry = kept.argmax(0)
    alpha = front.weights.reshape(kept.shape)[entry, np.arange(len(rows))].astype(np.float64)
    grouped = rows & (np.count_nonzero(kept, 0) == 1) & ~front.biases
    alone, grouped = rows & ~grouped, np.flatnonzero(grouped)
    key = 2 * entry[grouped] + (alpha[grouped] < 0) * (not join)
    _, group, counts = np.unique(key, return_inverse=True, return_counts=True)
    if not 0 < counts.max(initial=0) <= MOST_MEMBERS:
        raise ValueError(f"a group of {counts.max(initial=0)} rows: 1 to {MOST_MEMBERS} are allowed")
    order = np.argsort(group, kind="stable")
    place = np.arange(len(grouped)) - np.repeat(np.cumsum(counts) - counts, counts)
    members = np.full((len(counts), counts.max()), -1)
    members[group[order], place] = grouped[order]
    return Kernel(members, alone, alpha, np.flatnonzero(taps), np.flatnonzero(columns), step)


def integers_of(kernel: Kernel, weights: Weights, mask: View, largest: int) -> Integers:
    """The integers that a mask stands for.

    Raises: ValueError where a subset is not the chosen one or stands for more than ``largest``.
    """
    numbers = np.zeros((len(kernel.members), kernel.entries), np.int16)
    for k, rows in enumerate(kernel.members.T):
        kept = mask[np.ix_(kernel.taps, rows, kernel.columns)] & (rows >= 0)[:, None]
        numbers |= kept.transpose(1, 0, 2).reshape(numbers.shape).astype(np.int16) << k
    integers = np.zeros_like(numbers)
    for part, products in _products(kernel, weights, numbers):
        kept = numbers.reshape(-1)[part]
        sums = np.where(kept[:, None] >> np.arange(products.shape[1]) & 1, products, 0).sum(1)
        values = multiples(sums, kernel.step)
        if np.abs(values).max() > largest or (_chosen(products, values, kernel.step) != kept).any():
            raise ValueError("a subset that is not the chosen one")
        integers.reshape(-1)[part] = values
    return integers


def keep(kernel: Kernel, weights: Weights, integers: Integers, mask: View) -> None:
    """Keep the chosen subsets of integers in a mask.

    Raises: ValueError where no subset stands for an integer.
    """
    numbers = np.zeros_like(integers)
    for part, products in _products(kernel, weights, integers):
        values = integers.reshape(-1)[part].astype(np.int64)
        found = _chosen(products, values, kernel.step)
        if (found < 0).any():
            raise ValueError(f"an integer {values[found < 0][0]} that no subset stands for")
        numbers.reshape(-1)[part] = found
    for k, rows in enumerate(kernel.members.T):
        kept = (numbers[rows >= 0] >> k & 1).reshape(-1, *kernel.shape[1:])
        mask[np.ix_(kernel.taps, rows[rows >= 0], kernel.columns)] = kept.transpose(1, 0, 2)


def _products(
    kernel: Kernel, weights: Weights, entries: Integers
) -> Iterator[tuple[Int64[np.ndarray, " part"], Int64[np.ndarray, "part most"]]]:
    """Where entries are not 0, part by part: flat indices, and products of the group's members."""
    size = max(1, SUMS >> kernel.members.shape[1])
    nonzero = np.flatnonzero(entries)
    for first in range(0, len(nonzero), size):
        part = nonzero[first : first + size]
        group, tap, column = np.unravel_index(part, kernel.shape)
        rows = kernel.members[group]
        factors = weights[kernel.taps[tap, None], rows, kernel.columns[column, None]]
        products = np.where(rows >= 0, kernel.alpha[rows] * factors, 0)  # exact: 24 bits times 24 bits
        if not np.abs(products).max() < LARGEST_PRODUCT:
            raise ValueError(f"a product of weights that is not below {LARGEST_PRODUCT:g}")
        yield part, (products / UNIT).astype(np.int64)


def _chosen(
    products: Int64[np.ndarray, "part most"], values: Int64[np.ndarray, " part"], step: int
) -> Int64[np.ndarray, " part"]:
    """Number of the subset that is chosen for each integer; -1 where there is none."""
    most = products.shape[1]
    reach = LARGEST_SUM // step
    away = np.empty((len(products), 1 << most), np.int64)
    away[:, 0] = -step * np.clip(values, -reach, reach)
    for k in range(most):
        np.add(away[:, : 1 << k], products[:, k, None], out=away[:, 1 << k : 2 << k])
    far = 2 * away >= step
    np.abs(away, out=away)
    away[far] = np.iinfo(np.int64).max
    found = away.argmin(1)
    least = np.take_along_axis(away, found[:, None], 1)[:, 0]
    return np.where(least <= step // 2, found, -1)
