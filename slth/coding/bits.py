"""Bits one after the other, written and read."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

Bits = Bool[np.ndarray, " bits"]


class Writer:
    """Bits one after the other."""

    def __init__(self) -> None:
        self.parts: list[Bits] = []

    def bits(self, values: Any) -> None:
        """Booleans, in row-major order."""
        self.parts.append(np.asarray(values, bool).reshape(-1))

    def numbers(self, values: Any, width: int) -> None:
        """Numbers of ``width`` bits each, the most significant bit first."""
        numbers = np.asarray(values)
        self.bits(numbers[..., None] >> np.arange(width - 1, -1, -1, dtype=numbers.dtype) & 1)

    def packed(self) -> bytes:
        """All of them, eight a byte, the first in the most significant bit."""
        return np.packbits(np.concatenate(self.parts)).tobytes() if self.parts else b""


class Reader:
    """Bits of bytes, one after the other."""

    def __init__(self, code: bytes) -> None:
        self.code, self.position = code, 0

    def bits(self, count: int) -> Bits:
        """The next ``count`` booleans.

        Raises: ValueError where there are no more.
        """
        first, last = self.position // 8, -(-(self.position + count) // 8)
        if last > len(self.code):
            raise ValueError("mask: its code is cut off")
        found = np.unpackbits(np.frombuffer(self.code, np.uint8, last - first, first)).view(bool)
        start = self.position - 8 * first
        self.position += count
        return found[start : start + count]

    def flag(self) -> bool:
        """The next bit."""
        return bool(self.bits(1)[0])

    def numbers(self, count: int, width: int) -> Int64[np.ndarray, " count"]:
        """The next ``count`` numbers of ``width`` bits each."""
        return self.bits(count * width).reshape(count, width) @ (1 << np.arange(width - 1, -1, -1))

    def number(self, width: int) -> int:
        """The next number of ``width`` bits."""
        return int(self.numbers(1, width)[0])

    def end(self) -> int:
        """Number of the byte behind what has been read.

        Raises: ValueError where a bit that fills the last byte is set.
        """
        if self.bits(-self.position % 8).any():
            raise ValueError("mask: a bit that fills a byte of its code is set")
        return self.position // 8
