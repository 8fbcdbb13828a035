"""Concatenations by what they are made of, so that blocks nest: dense blocks, as programs write them."""

from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from slth.types import Shape

MOST_PARTS = 128
"""Parts of a concatenation that are looked at one by one."""
MOST_KNOWN = 64
"""Earlier concatenations with the same first part that are looked at."""
T = TypeVar("T", bound=Hashable)


def sides_of(reads: Sequence[T], common: Callable[[T, T], T]) -> list[list[T]]:
    """The values of a concatenation, neighbours together that are made of one value behind the common one.

    (x, a, b(a)) is (x, (a, b(a))): there a is read within one side, and sides may be nested further.

    Args:
      common: the last value through which everything goes that two values are made of.

    Example:
      >>> from slth.interop.joins import sides_of
      >>> def common(one, other):
      ...     return one if other.startswith(one) else other if one.startswith(other) else "x"
      >>> sides_of(["x", "a", "ab", "c"], common)
      [['x'], ['a', 'ab'], ['c']]
    """
    root = reduce(common, reads)
    sides: list[list[T]] = []
    for one in reads:
        if sides and root not in (one, sides[-1][-1], common(sides[-1][-1], one)):
            sides[-1].append(one)
        else:
            sides.append([one])
    return sides


def channel_numbers(constant: np.ndarray, axis: int) -> Float[np.ndarray, " c"] | None:
    """The number of each channel of a constant, by its axis; None where some differ within one.

    Example:
      >>> import numpy as np
      >>> from slth.interop.joins import channel_numbers
      >>> channel_numbers(np.array([[[1.0, 1.0], [3.0, 3.0]]]), 1).tolist()
      [1.0, 3.0]
    """
    numbers = np.moveaxis(constant, axis, 0).reshape(constant.shape[axis], -1)
    return None if (numbers != numbers[:, :1]).any() else numbers[:, 0]


def with_constants(parts: Sequence[int | Float[np.ndarray, " c"]]) -> tuple[Shape, Float[np.ndarray, " c"]]:
    """A concatenation of values and constants, as channels of the values' own concatenation and a shift.

    Args:
      parts: of each value its number of channels, of each constant its numbers.
    Returns: channels by number, -1 for one of zeros (as of `slth.nn.Subsample`), and what is added to each.

    Example:
      >>> import numpy as np
      >>> from slth.interop.joins import with_constants
      >>> channels, shift = with_constants([2, np.array([5.0]), 1])
      >>> channels, shift.tolist()
      ((0, 1, -1, 2), [0.0, 0.0, 5.0, 0.0])
    """
    channels: list[int] = []
    start = 0
    for part in parts:
        if isinstance(part, int):
            channels += range(start, start + part)
            start += part
        else:
            channels += [-1] * len(part)
    shift = [np.zeros(part) if isinstance(part, int) else part for part in parts]
    return tuple(channels), np.concatenate(shift)


class Joins(Generic[T]):
    """The concatenations that are read so far.

    The layers of a dense block may each concatenate all values before them, (x, a), (x, a, b), (x, a, b, c),
    and none of these nests in another. With earlier ones in place of their parts, ((x, a), b), each does.

    Example:
      >>> from slth.interop.joins import Joins
      >>> joins = Joins()
      >>> joins.keep("xa", ["x", "a"])
      >>> joins.grouped(["x", "a", "b"]), joins.grouped(["x", "a"]), joins.grouped(["b", "x"])
      (('xa', 'b'), ('xa',), ('b', 'x'))
    """

    def __init__(self) -> None:
        self.parts: dict[T, tuple[T, ...]] = {}
        self.known: dict[T, list[T]] = {}

    def keep(self, value: T, reads: Sequence[T]) -> None:
        """Keep a concatenation for later ones."""
        parts = self._parts(reads)
        if len(parts) <= MOST_PARTS:
            self.parts[value] = parts
            self.known.setdefault(parts[0], []).append(value)

    def grouped(self, reads: Sequence[T]) -> tuple[T, ...]:
        """What a concatenation reads, with the longest runs that earlier ones have made in their place."""
        parts = self._parts(reads)
        if len(parts) > MOST_PARTS:
            return tuple(reads)
        found: list[T] = []
        place = 0
        while place < len(parts):
            run = self._run(parts, place)
            found.append(parts[place] if run is None else run)
            place += 1 if run is None else len(self.parts[run])
        return tuple(found)

    def _parts(self, reads: Sequence[T]) -> tuple[T, ...]:
        return tuple(part for one in reads for part in self.parts.get(one, (one,)))

    def _run(self, parts: tuple[T, ...], place: int) -> T | None:
        """The longest earlier concatenation of parts from a place on."""
        known = self.known.get(parts[place], [])[-MOST_KNOWN:]
        fits = (one for one in known if parts[place : place + len(self.parts[one])] == self.parts[one])
        return max(fits, key=lambda one: len(self.parts[one]), default=None)
