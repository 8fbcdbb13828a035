r"""Integers as bits: the lowest s bits of \|q\| and the sign of q are plain, what is above them is unary.

With :math:`h = \lfloor |q| / 2^s \rfloor`, plane j holds the bit [h > j] of each integer of h >= j: a row of
bits for each row of integers, coded with its density (`slth.coding.rows`). A plane is a batch, of all arrays.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16, Int64

from slth.coding.bits import Bits, Reader, Writer
from slth.coding.rows import Counts, RowReader, RowWriter, cheapest, read_classes, write_classes

SHIFT_BITS = 3
MOST_PLANES = 64
LARGEST = MOST_PLANES * 2 ** (2**SHIFT_BITS - 1) - 1
"""The largest integer that has a code."""

Integers = Int16[np.ndarray, "rows entries"]


class Form(NamedTuple):
    """What the reader knows of an array of integers."""

    path: str
    rows: int
    entries: int
    shift: int


def cheapest_shift(integers: Integers) -> int:
    """The s whose planes and plain bits cost least; of equal ones the smallest."""
    sizes = np.abs(integers)
    costs = {}
    for shift in range(2**SHIFT_BITS):
        if sizes.max() >> shift < MOST_PLANES:
            planes = _planes(sizes >> shift)
            costs[shift] = sum(cheapest(ones[live > 0], live[live > 0])[0] for ones, live, _ in planes)
            costs[shift] += shift * sizes.size << 16
    return min(costs, key=lambda shift: costs[shift])


def encode(arrays: list[tuple[Int16[np.ndarray, "_ _"], int]], plain: Writer, rows: RowWriter) -> None:
    """Write arrays of integers, each with its shift."""
    planes = [_planes(np.abs(integers) >> shift) for integers, shift in arrays]
    while found := [plane for plane in (next(one, None) for one in planes) if plane]:
        for ones, sizes, bits in found:
            live = sizes > 0
            classes = write_classes(ones[live], sizes[live], plain)
            rows.add(bits, np.repeat(classes, sizes[live]))
        rows.close()
    for integers, shift in arrays:
        plain.numbers(np.abs(integers) & (1 << shift) - 1, shift)
        plain.bits(integers[integers != 0] < 0)


def decode(forms: list[Form], plain: Reader, rows: RowReader) -> list[Int16[np.ndarray, "_ _"]]:
    """The integers that `encode` wrote."""
    found = [np.zeros(form.rows * form.entries, np.int16) for form in forms]
    sizes = [np.full(form.rows, form.entries) for form in forms]
    alive: list[Int64[np.ndarray, " alive"] | None] = [None] * len(forms)
    for _ in range(MOST_PLANES):
        open_ones = [n for n, counts in enumerate(sizes) if counts.any()]
        if not open_ones:
            break
        batch = []
        for n in open_ones:
            live = sizes[n] > 0
            classes = read_classes(forms[n].path, int(live.sum()), plain)
            batch.append((np.repeat(classes, sizes[n][live]), 1))
        for n, bits in zip(open_ones, rows.batch(batch), strict=True):
            before = alive[n]
            alive[n] = now = np.flatnonzero(bits) if before is None else before[bits[:, 0]]
            found[n][now] += 1
            sizes[n] = np.bincount(now // forms[n].entries, minlength=forms[n].rows)
    for form, counts, integers in zip(forms, sizes, found, strict=True):
        if counts.any():
            raise ValueError(f"mask: {form.path} has an integer of more than {MOST_PLANES} planes")
        integers <<= form.shift
        integers |= plain.numbers(len(integers), form.shift).astype(np.int16)
        nonzero = np.flatnonzero(integers)
        integers[nonzero[plain.bits(len(nonzero))]] *= -1
    return [integers.reshape(form.rows, form.entries) for form, integers in zip(forms, found, strict=True)]


def _planes(high: Integers) -> Iterator[tuple[Counts, Counts, Bits]]:
    """Of each plane: ones and bits of each row, and all bits."""
    rows, values = np.nonzero(high)[0], high[high > 0]
    sizes, bits = np.full(len(high), high.shape[1]), (high > 0).reshape(-1)
    plane = 0
    while len(bits):
        ones = np.bincount(rows, minlength=len(high))
        yield ones, sizes, bits
        plane += 1
        bits, sizes = values > plane, ones
        rows, values = rows[bits], values[bits]
