r"""Range coding of bytes whose bits are independent and equally likely: interleaved rANS in integers.

A byte of *class* k, 1 <= k <= 63, has eight bits that are 1 with probability k / 64 each. Every class has a
table of 256 frequencies with sum 2^16. Symbol t belongs to lane t mod L, and a lane is an integer x in
[2^16, 2^32) from which symbols are popped as from a stack:

    slot = x mod 2^16;  s = the symbol with cumulative(s) <= slot < cumulative(s) + frequency(s)
    x <- frequency(s) (x // 2^16) + slot - cumulative(s);  where x < 2^16, x <- 2^16 x + the next word

Lanes take their words in their order, step by step. Only integers are used, so every machine writes the same
bytes. docs/ticket_format.md specifies the whole format.

Source: J. Duda, "Asymmetric numeral systems", arXiv:1311.2540; F. Giesen, "Interleaved entropy coders",
arXiv:1402.3392.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32

SCALE = 16
TOTAL = 1 << SCALE
"""Sum of the frequencies of a class, and the least state of a lane."""
CLASSES = 64
SYMBOLS_PER_LANE = 4096
MOST_LANES = 4096

Bytes = UInt8[np.ndarray, " symbols"]


class Tables(NamedTuple):
    """The model of all classes: rows are classes, class 0 is empty."""

    frequency: UInt32[np.ndarray, "64 256"]
    start: UInt32[np.ndarray, "64 256"]
    """Cumulative frequency of the symbols before."""
    symbol: UInt8[np.ndarray, "64 65536"]
    """The symbol of each slot."""


@cache
def tables() -> Tables:
    """Frequencies of the 63 classes: ``max(1, k^ones (64 - k)^(8 - ones) >> 32)``, the rest to the likeliest.

    The likeliest byte is 0 for k <= 32 and 255 for k > 32.
    """
    ones = np.bitwise_count(np.arange(256, dtype=np.uint8)).astype(np.int64)
    frequency = np.zeros((CLASSES, 256), np.uint32)
    for k in range(1, CLASSES):
        row = np.maximum(1, k**ones * (64 - k) ** (8 - ones) >> 32)
        row[0 if k <= 32 else 255] += TOTAL - row.sum()
        frequency[k] = row
    start = (np.cumsum(frequency, 1) - frequency).astype(np.uint32)
    symbol = np.zeros((CLASSES, TOTAL), np.uint8)
    for k in range(1, CLASSES):
        symbol[k] = np.repeat(np.arange(256, dtype=np.uint8), frequency[k])
    return Tables(frequency, start, symbol)


def lanes(symbols: int) -> int:
    """L: one lane for every 4,096 symbols begun, 4,096 at most."""
    return min(MOST_LANES, -(-symbols // SYMBOLS_PER_LANE))


def encode(symbols: Bytes, classes: Bytes) -> bytes:
    """The code of symbols whose classes the reader knows: L states (uint32), then words (uint16).

    Args:
      symbols: the bytes.
      classes: the class of each, 1 to 63.
    Returns: little-endian states of the lanes and words in the order in which `Decoder` reads them.
    """
    count = lanes(len(symbols))
    model = tables()
    index = classes.astype(np.intp) * 256 + symbols
    frequency, start = model.frequency.reshape(-1)[index], model.start.reshape(-1)[index]
    state = np.full(count, TOTAL, np.uint32)
    words = []
    for first in reversed(range(0, len(symbols), max(count, 1))):
        f, c = frequency[first : first + count], start[first : first + count]
        x = state[: len(f)]
        full = (x >> SCALE) >= f
        words.append(x[full].astype("<u2"))
        np.right_shift(x, SCALE, out=x, where=full)
        quotient = x // f
        x += quotient * (np.uint32(TOTAL) - f) + c
    return state.astype("<u4").tobytes() + b"".join(word.tobytes() for word in reversed(words))


class Decoder:
    """The symbols of a code, taken part by part; what is taken may depend on what was."""

    def __init__(self, code: bytes, count: int) -> None:
        """A code of so many lanes."""
        if len(code) < 4 * count or len(code) % 2:
            raise ValueError("mask: its code is cut off")
        self.state = np.frombuffer(code, "<u4", count).astype(np.intp)
        self.words = np.frombuffer(code, "<u2", offset=4 * count).astype(np.intp)
        self.lane = self.read = 0

    def take(self, classes: Bytes) -> Bytes:
        """The next symbols, of these classes.

        Raises: ValueError where the code is too short.
        """
        count = len(self.state)
        if len(classes) and not count:
            raise ValueError("mask: its code is cut off")
        model = tables()
        symbol = model.symbol.reshape(-1)
        frequency, start = (table.reshape(-1).astype(np.intp) for table in (model.frequency, model.start))
        out = np.zeros(len(classes), np.uint8)
        first = 0
        while first < len(classes):
            at = classes[first : first + count - self.lane].astype(np.intp)
            x = self.state[self.lane : self.lane + len(at)]
            slot = x & (TOTAL - 1)
            found = symbol.take((at << SCALE) | slot)
            out[first : first + len(at)] = found
            at <<= 8
            at |= found
            x >>= SCALE
            x *= frequency.take(at)
            x += slot
            x -= start.take(at)
            need = (x < TOTAL).nonzero()[0]
            fresh = self.words[self.read : self.read + len(need)]
            if len(fresh) < len(need):
                raise ValueError("mask: its code is cut off")
            x[need] = (x.take(need) << SCALE) | fresh
            self.read += len(need)
            first += len(at)
            self.lane = (self.lane + len(at)) % count
        return out

    def end(self) -> None:
        """Check that all is taken.

        Raises: ValueError where the code is longer than its symbols, or is none that `encode` writes.
        """
        if self.read != len(self.words) or (self.state != TOTAL).any():
            raise ValueError("mask: its code is none that is written")
