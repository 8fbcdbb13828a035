"""Rows of bits, each coded with its density: a row has a class k, and its bits are 1 with probability k / 64.

Rows come in batches. The bits of all rows of one class of a batch are one sequence, whose bytes are symbols
of the range coder (`slth.coding.rans`); the bits behind the last whole byte, and all of class 32, are plain.
How many rows a batch has, and of which classes, may depend on the batches before.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from slth.coding import rans
from slth.coding.bits import Bits, Reader, Writer

PLAIN = 32
"""The class of density 1/2, whose bits are written as they are."""
CLASS_BITS, WIDTH_BITS = 6, 3
# What a 1 costs in class k: -log2(k / 64), in units of 2^-16 bit. A 0 costs what a 1 does in class 64 - k.
COSTS = np.array([round(-math.log2(k / 64) * 2**16) for k in range(1, rans.CLASSES)], np.int64)

Counts = Int64[np.ndarray, " rows"]
Classes = UInt8[np.ndarray, " rows"]


class RowWriter:
    """Codes batches of rows."""

    def __init__(self, plain: Writer) -> None:
        self.plain = plain
        self.parts: list[list[Bits]] = [[] for _ in range(rans.CLASSES)]
        self.symbols: list[np.ndarray] = [np.zeros(0, np.uint8)]
        self.classes: list[np.ndarray] = [np.zeros(0, np.uint8)]

    def add(self, bits: Bool[np.ndarray, "rows ..."], classes: Classes) -> None:
        """Rows of the batch that is open, all of one length."""
        for k in np.unique(classes).tolist():
            self.parts[k].append(bits[classes == k].reshape(-1))

    def close(self) -> None:
        """End the batch."""
        for k, parts in enumerate(self.parts):
            if parts:
                bits = np.concatenate(parts)
                parts.clear()
                whole = 0 if k == PLAIN else len(bits) // 8 * 8
                self.symbols.append(np.packbits(bits[:whole]))
                self.classes.append(np.full(whole // 8, k, np.uint8))
                self.plain.bits(bits[whole:])

    def code(self) -> tuple[int, bytes]:
        """Number of lanes, and the range code of all batches."""
        symbols = np.concatenate(self.symbols)
        return rans.lanes(len(symbols)), rans.encode(symbols, np.concatenate(self.classes))


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
        counts = np.zeros(rans.CLASSES, np.int64)
        for classes, size in rows:
            counts += np.bincount(classes, minlength=rans.CLASSES) * size
        lengths = counts // 8
        lengths[PLAIN] = 0
        symbols = self.symbols.take(np.repeat(np.arange(rans.CLASSES, dtype=np.uint8), lengths))
        parts = [np.unpackbits(part).view(bool) for part in np.split(symbols, np.cumsum(lengths)[:-1])]
        rest = (counts - 8 * lengths).tolist()
        streams = [
            np.concatenate([part, self.plain.bits(count)]) for part, count in zip(parts, rest, strict=True)
        ]
        taken = [0] * rans.CLASSES
        found = []
        for classes, size in rows:
            bits = np.zeros((len(classes), size), bool)
            for k in np.unique(classes).tolist():
                here = classes == k
                count = int(here.sum()) * size
                bits[here] = streams[k][taken[k] : taken[k] + count].reshape(-1, size)
                taken[k] += count
            found.append(bits)
        return found


def cheapest(ones: Counts, sizes: Counts) -> tuple[int, int, int, Classes]:
    """The cheapest code of rows' densities.

    Args:
      ones: number of ones of each row; of 1 row at least.
      sizes: number of bits of each row.
    Returns: cost in units of 2^-16 bit, least class, bits of each class's difference from it, and classes.
    """
    most = int(sizes.max()) + 1
    pairs, rows, counts = np.unique(ones * most + sizes, return_inverse=True, return_counts=True)
    found, size = np.divmod(pairs, most)
    costs = found[:, None] * COSTS + (size - found)[:, None] * COSTS[::-1]
    best: tuple[int, int, int] | None = None
    for width in range(CLASS_BITS + 1):
        span = min(1 << width, len(COSTS))
        views = np.lib.stride_tricks.sliding_window_view(costs, span, 1)
        totals = counts @ views.min(-1) + (width * len(ones) << 16)
        least = int(totals.argmin())
        if best is None or totals[least] < best[0]:
            best = int(totals[least]), least, width
    assert best is not None
    cost, least, width = best
    window = costs[:, least : least + (1 << width)]
    return cost, least + 1, width, (least + 1 + window.argmin(1)[rows]).astype(np.uint8)


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
