r"""Range coding of bytes whose bits are independent and equally likely: interleaved rANS in integers.

A byte of *class* k, 1 <= k <= 63, has eight bits that are 1 with probability k / 64 each. Every class has a
table of 256 frequencies with sum 2^16. Symbols come in parts of one class each. Symbol t of a part belongs to
lane t mod L, and a lane is an integer x in [2^16, 2^32) from which symbols are popped as from a stack:

    slot = x mod 2^16;  s = the symbol with cumulative(s) <= slot < cumulative(s) + frequency(s)
    x <- frequency(s) (x // 2^16) + slot - cumulative(s);  where x < 2^16, x <- 2^16 x + the next word

Lanes take their words in their order, step by step. Only integers are used, so every machine writes the same
bytes. docs/ticket_format.md specifies the whole format.

What is done for each step is as few and as cheap NumPy calls as possible: they take nearly all the time.

Source: J. Duda, "Asymmetric numeral systems", arXiv:1311.2540; F. Giesen, "Interleaved entropy coders",
arXiv:1402.3392.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32

SCALE = 16
TOTAL = 1 << SCALE
"""Sum of the frequencies of a class, and the least state of a lane."""
CLASSES = 64
LANE_BYTES = 448
"""Expected bytes of the words of a lane; its state takes four more."""
MOST_LANES = 8191
CHUNK = 1 << 15
"""Symbols whose tables are looked up at once: these fit a core's cache."""

# Arrays of no axis, with which a NumPy call begins sooner than with numbers.
_SHIFT, _LEAST = np.array(SCALE, np.uint32), np.array(TOTAL, np.uint32)

Bytes = UInt8[np.ndarray, "_"]
Steps = UInt8[np.ndarray, "steps lanes"]


class Tables(NamedTuple):
    """The model of a class."""

    frequency: UInt32[np.ndarray, "256"]
    start: UInt32[np.ndarray, "256"]
    """Cumulative frequency of the symbols before."""
    symbol: UInt8[np.ndarray, "65536"]
    """The symbol of each slot."""


@cache
def tables(k: int) -> Tables:
    """The model of class k: ``max(1, k^ones (64 - k)^(8 - ones) >> 32)``, the rest to the likeliest.

    The likeliest byte is 0 for k <= 32 and 255 for k > 32.
    """
    symbols = np.arange(256, dtype=np.uint8)
    ones = np.bitwise_count(symbols).astype(np.int64)
    frequency = np.maximum(1, k**ones * (64 - k) ** (8 - ones) >> 32)
    frequency[0 if k <= 32 else 255] += TOTAL - frequency.sum()
    start = np.cumsum(frequency) - frequency
    return Tables(frequency.astype(np.uint32), start.astype(np.uint32), np.repeat(symbols, frequency))


def lanes(counts: Iterable[tuple[int, int]]) -> int:
    """L: one lane for every `LANE_BYTES` expected, begun, `MOST_LANES` at most.

    Args:
      counts: class and number of symbols of each part. A symbol of class k is expected to take 8 H(k / 64)
        bits, here in units of 1/64 bit.
    """
    bits = sum(count * _entropy(k) for k, count in counts)
    return min(MOST_LANES, -(-bits // (64 * 8 * LANE_BYTES)))


@cache
def _entropy(k: int) -> int:
    p = k / 64
    return round(-64 * 8 * (p * math.log2(p) + (1 - p) * math.log2(1 - p)))


def encode(parts: list[tuple[int, Bytes]]) -> bytes:
    """The code of parts whose classes and sizes the reader knows: L states (uint32), then words (uint16).

    Args:
      parts: class, 1 to 63, and symbols of each.
    Returns: little-endian states of the lanes and words in the order in which `Decoder` reads them.
    """
    count = lanes((k, len(symbols)) for k, symbols in parts)
    state = np.full(count, TOTAL, np.uint32)
    words: list[np.ndarray] = [np.zeros(0, np.uint32)]
    for k, symbols in reversed(parts):
        for steps in reversed(_steps(symbols, count)):
            _push(state[: steps.shape[1]], steps, k, words)
    return state.astype("<u4").tobytes() + np.concatenate(words[::-1]).astype("<u2").tobytes()


def _push(x: UInt32[np.ndarray, " lanes"], symbols: Steps, k: int, words: list[np.ndarray]) -> None:
    """Push symbols of class k, the last step first; words are in the order of writing."""
    model, index = tables(k), symbols.astype(np.intp)
    frequency, start = model.frequency.take(index), model.start.take(index)
    rows = zip(frequency << SCALE, frequency, TOTAL - frequency, start, strict=True)
    full, quotient = np.empty(x.shape, bool), np.empty_like(x)
    for bound, f, gap, c in reversed(list(rows)):
        np.greater_equal(x, bound, full)
        writing = full.nonzero()[0]
        word = x.take(writing)
        words.append(word)
        x[writing] = word >> _SHIFT
        np.floor_divide(x, f, quotient)
        np.multiply(quotient, gap, quotient)
        np.add(x, quotient, x)
        np.add(x, c, x)


class Decoder:
    """The symbols of a code, taken part by part; what is taken may depend on what was."""

    def __init__(self, code: bytes | memoryview, count: int) -> None:
        """A code of so many lanes."""
        if len(code) < 4 * count or len(code) % 2:
            raise ValueError("mask: its code is cut off")
        self.state = np.frombuffer(code, "<u4", count).copy()
        self.words = np.frombuffer(code, "<u2", offset=4 * count).astype(np.uint32)
        self.read = 0

    def take(self, k: int, count: int) -> Bytes:
        """The symbols of the next part, of this class.

        Raises: ValueError where the code is too short.
        """
        if count and not len(self.state):
            raise ValueError("mask: its code is cut off")
        symbols = np.empty(count, np.uint8)
        for steps in _steps(symbols, len(self.state)):
            self._pop(steps, k)
        return symbols

    def _pop(self, symbols: Steps, k: int) -> None:
        """Fill in symbols of class k."""
        model = tables(k)
        gaps = TOTAL - model.frequency
        x = self.state[: symbols.shape[1]]
        low = x.view("<u2")[::2]
        slot, index = (np.empty(x.shape, np.intp) for _ in range(2))
        high, gap, start = (np.empty_like(x) for _ in range(3))
        small = np.empty(x.shape, bool)
        for row in symbols:
            slot[:] = low
            model.symbol.take(slot, out=row, mode="clip")  # the default mode would copy
            index[:] = row
            gaps.take(index, out=gap, mode="clip")
            model.start.take(index, out=start, mode="clip")
            np.right_shift(x, _SHIFT, high)
            np.multiply(high, gap, high)
            np.add(high, start, high)
            np.subtract(x, high, x)
            np.less(x, _LEAST, small)
            reading = small.nonzero()[0]
            end = self.read + len(reading)
            if end > len(self.words):
                raise ValueError("mask: its code is cut off")
            x[reading] = (x.take(reading) << _SHIFT) | self.words[self.read : end]
            self.read = end

    def end(self) -> None:
        """Check that all is taken.

        Raises: ValueError where the code is longer than its symbols, or is none that `encode` writes.
        """
        if self.read != len(self.words) or (self.state != TOTAL).any():
            raise ValueError("mask: its code is none that is written")


def _steps(symbols: Bytes, count: int) -> list[Steps]:
    """Views of a part's symbols: chunks of whole steps of so many lanes, then the last step."""
    if not len(symbols):
        return []
    whole = len(symbols) // count * count
    steps = symbols[:whole].reshape(-1, count)
    chunk = max(1, CHUNK // count)
    chunks = [steps[first : first + chunk] for first in range(0, len(steps), chunk)]
    return [*chunks, symbols[None, whole:]] if whole < len(symbols) else chunks
