"""The live part of a mask with eight columns a byte: what is done bit by bit takes longer than the coding.

The live ones of the columns 8 g to 8 g + 7 are a *whole* byte where they are eight, else *last* bits.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from slth.coding.bits import Bits
from slth.coding.rounded import Live, View

Packed = UInt8[np.ndarray, "taps rows bytes"]


class Runs(NamedTuple):
    """The live columns at each live tap of each live row: of a *run*."""

    whole: UInt8[np.ndarray, "runs bytes"]
    last: Bool[np.ndarray, "bits runs"]


class Eights(NamedTuple):
    """Eights of columns."""

    whole: slice | Int64[np.ndarray, " bytes"]
    """Which are whole; a slice, of which NumPy makes a view, where they are the first."""
    parts: Int64[np.ndarray, " parts"]
    """Which have some live columns, and some that are not."""
    last: Int64[np.ndarray, " bits"]
    """The live columns of these parts."""
    size: tuple[int, int]
    """Bytes and last bits of a run."""


def eights_of(live: Bits) -> Eights:
    """How the live columns are coded."""
    eights = np.packbits(live)
    whole = (eights == 255).nonzero()[0]
    parts = ((eights > 0) & (eights < 255)).nonzero()[0]
    last = np.unpackbits(eights[parts]).nonzero()[0]
    first = not len(whole) or whole[-1] == len(whole) - 1
    return Eights(slice(len(whole)) if first else whole, parts, last, (len(whole), len(last)))


def live_of(packed: Packed, columns: int) -> tuple[Live, Int64[np.ndarray, " live_rows"]]:
    """Which taps, rows and columns of a mask keep something, and how many entries each row keeps."""
    ones = np.bitwise_count(packed).sum(2, dtype=np.uint32)
    live = np.unpackbits(np.bitwise_or.reduce(packed, (0, 1)), count=columns).view(bool)
    by_row = ones.sum(0, dtype=np.int64)
    rows = by_row > 0
    return (ones.any(1), rows, live), by_row[rows]


def pack(packed: Packed, live: Live, order: Int64[np.ndarray, " runs"]) -> Runs:
    """The runs of a mask, of which runs row by row are taken in this order."""
    taps, rows, columns = live
    eights = eights_of(columns)
    row, tap = np.divmod(order, taps.sum())
    runs = packed[taps.nonzero()[0][tap], rows.nonzero()[0][row]]
    parts = runs[:, eights.parts].T[eights.last >> 3]
    last = parts >> (7 - (eights.last & 7)).astype(np.uint8)[:, None] & 1
    return Runs(runs[:, eights.whole], last.view(bool))


def unpack(runs: Runs, live: Live, order: Int64[np.ndarray, " runs"]) -> View:
    """The mask of runs."""
    taps, rows, columns = live
    eights = eights_of(columns)
    row, tap = np.divmod(order, taps.sum())
    packed = np.zeros((len(taps), len(rows), -(-len(columns) // 8)), np.uint8)
    bits = np.zeros((len(eights.parts), 8, len(order)), np.uint8)
    bits.reshape(-1, len(order))[eights.last] = runs.last
    bits <<= np.arange(7, -1, -1, dtype=np.uint8)[:, None]
    found = np.zeros((len(order), packed.shape[2]), np.uint8)
    found[:, eights.whole] = runs.whole
    found[:, eights.parts] = np.bitwise_or.reduce(bits, 1).T
    packed[taps.nonzero()[0][tap], rows.nonzero()[0][row]] = found
    return np.unpackbits(packed, axis=2, count=len(columns)).view(bool)
