"""Rows of bits, each coded with its density: a row has a class k, and its bits are 1 with probability k / 64.

Rows come in batches. The whole bytes of all rows of one class of a batch, and then of their last bits as one
sequence, are symbols of the range coder (`slth.coding.rans`); the bits behind the last whole byte are plain.
How many rows a batch has, and of which classes, may depend on the batches before.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from slth.coding import rans
from slth.coding.bits import Reader, Writer
from slth.coding.packed import Runs

CLASS_BITS, WIDTH_BITS = 6, 3
# What a 1 costs in class k: -log2(k / 64), in units of 2^-16 bit. A 0 costs what a 1 does in class 64 - k.
COSTS = np.array([round(-math.log2(k / 64) * 2**16) for k in range(1, rans.CLASSES)], np.int64)
PRICES = np.array([COSTS, COSTS[::-1]])
# A row is cheaper in class k + 1 than in k where more than this share of its bits are ones; costs are convex.
# Shares are quotients of integers so small that float64 orders them as they are.
SHARES = np.diff(COSTS[::-1]) / (np.diff(COSTS[::-1]) - np.diff(COSTS))
# Windows of classes that numbers of w bits tell apart: w, first and last class, less 1.
WINDOWS = np.array(
    [
        (width, first, first + span - 1)
        for width in range(CLASS_BITS + 1)
        for span in [min(1 << width, len(COSTS))]
        for first in range(len(COSTS) - span + 1)
    ]
).T

Counts = Int64[np.ndarray, " rows"]
Classes = UInt8[np.ndarray, " rows"]


class RowWriter:
    """Codes batches of rows."""

    def __init__(self, plain: Writer) -> None:
        self.plain = plain
        self.whole: list[list[np.ndarray]] = [[] for _ in range(rans.CLASSES)]
        self.last: list[list[np.ndarray]] = [[] for _ in range(rans.CLASSES)]
        self.parts: list[tuple[int, rans.Bytes]] = []

    def add(self, bits: Bool[np.ndarray, "rows ..."], classes: Classes) -> None:
        """Rows of the batch that is open, all of one length."""
        order = np.argsort(classes, kind="stable")
        bits = bits[order].reshape(len(classes), -1)
        whole = bits.shape[1] // 8 * 8
        self.add_runs(Runs(np.packbits(bits[:, :whole], 1), bits[:, whole:].T), classes[order])

    def add_runs(self, runs: Runs, classes: Classes) -> None:
        """As `add`, of rows in the order of their classes."""
        for k, here in _slices(classes):
            self.whole[k].append(runs.whole[here].reshape(-1))
            self.last[k].append(runs.last[:, here].reshape(-1))

    def close(self) -> None:
        """End the batch."""
        for k, (whole, last) in enumerate(zip(self.whole, self.last, strict=True)):
            if last:
                bits = np.concatenate(last)
                end = len(bits) // 8 * 8
                self.parts.append((k, np.concatenate([*whole, np.packbits(bits[:end])])))
                self.plain.bits(bits[end:])
                whole.clear()
                last.clear()

    def code(self) -> tuple[int, bytes]:
        """Number of lanes, and the range code of all batches."""
        return rans.lanes((k, len(symbols)) for k, symbols in self.parts), rans.encode(self.parts)


class RowReader:
    """Decodes batches of rows."""

    def __init__(self, plain: Reader, symbols: rans.Decoder) -> None:
        self.plain, self.symbols = plain, symbols

    def batch(self, rows: list[tuple[UInt8[np.ndarray, "_"], int]]) -> list[Bool[np.ndarray, "_ _"]]:
        """The next batch.

        Args:
          rows: (classes, bits of each row) of groups of rows of one length.
        Returns: the bits of each group, of shape (rows, bits of a row).
        """
        found = []
        groups = self.runs([(classes, *divmod(size, 8)) for classes, size in rows])
        for (classes, size), runs in zip(rows, groups, strict=True):
            bits = np.empty((len(classes), size), bool)
            order = np.argsort(classes, kind="stable")
            bits[order] = np.concatenate([np.unpackbits(runs.whole, 1).view(bool), runs.last.T], 1)
            found.append(bits)
        return found

    def runs(self, rows: list[tuple[UInt8[np.ndarray, "_"], int, int]]) -> list[Runs]:
        """As `batch`, of rows of so many bytes and so many bits, and in the order of their classes."""
        counts = np.zeros((2, rans.CLASSES), np.int64)
        for classes, *sizes in rows:
            counts += np.outer(sizes, np.bincount(classes, minlength=rans.CLASSES))
        wholes, lasts = {}, {}
        for k in np.flatnonzero(counts.any(0)).tolist():
            size, bits = counts[:, k].tolist()
            symbols = self.symbols.take(k, size + bits // 8)
            wholes[k] = symbols[:size]
            lasts[k] = np.concatenate([np.unpackbits(symbols[size:]).view(bool), self.plain.bits(bits % 8)])
        found = []
        for classes, size, bits in rows:
            here = [(k, rows_of.stop - rows_of.start) for k, rows_of in _slices(classes)]
            whole = [_cut(wholes, k, count * size).reshape(count, size) for k, count in here]
            last = [_cut(lasts, k, count * bits).reshape(bits, count) for k, count in here]
            found.append(Runs(np.concatenate(whole), np.concatenate(last, 1)))
        return found


def _cut(streams: dict[int, np.ndarray], k: int, count: int) -> np.ndarray:
    """The next of a class."""
    part, streams[k] = streams[k][:count], streams[k][count:]
    return part


def _slices(classes: Classes) -> Iterator[tuple[int, slice]]:
    """Which rows have each class, where rows are sorted by it."""
    first = 0
    for k, count in enumerate(np.bincount(classes).tolist()):
        if count:
            yield k, slice(first, first + count)
            first += count


def cheapest(ones: Counts, sizes: Counts) -> tuple[int, int, int, Classes]:
    """The cheapest code of rows' densities.

    Args:
      ones: number of ones of each row; of 1 row at least.
      sizes: number of bits of each row.
    Returns: cost in units of 2^-16 bit, least class, bits of each class's difference from it, and classes.
    """
    best = np.searchsorted(SHARES, ones / sizes)
    # Ones, zeros and cost of the rows that are cheapest in each class, and what those before them have.
    found = np.array([np.bincount(best, part, len(COSTS)) for part in (ones, sizes - ones)]).astype(np.int64)
    before = np.zeros((3, len(COSTS) + 1), np.int64)
    np.cumsum([*found, (found * PRICES).sum(0)], 1, out=before[:, 1:])
    below = (before[:2, :-1] * PRICES).sum(0)
    above = ((before[:2, -1:] - before[:2, 1:]) * PRICES).sum(0)
    widths, firsts, lasts = WINDOWS
    inside = before[2, lasts + 1] - before[2, firsts]
    totals = (widths * len(ones) << 16) + below[firsts] + inside + above[lasts]
    window = int(totals.argmin())
    width, first, last = WINDOWS[:, window].tolist()
    return int(totals[window]), first + 1, width, (best.clip(first, last) + 1).astype(np.uint8)


def write_classes(ones: Any, sizes: Any, writer: Writer) -> Classes:
    """Write the cheapest classes of rows, and return them."""
    _, least, width, classes = cheapest(ones, np.broadcast_to(sizes, ones.shape))
    writer.numbers(least, CLASS_BITS)
    writer.numbers(width, WIDTH_BITS)
    writer.numbers(classes - least, width)
    return classes


def read_classes(path: str, rows: int, reader: Reader) -> Classes:
    """What `write_classes` wrote of so many rows of a parameter."""
    least, width = reader.number(CLASS_BITS), reader.number(WIDTH_BITS)
    classes = least + reader.numbers(rows, width)
    if not (least > 0 and classes.max() < rans.CLASSES):
        raise ValueError(f"mask: {path} has a row of no class")
    return classes.astype(np.uint8)
