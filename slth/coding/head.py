"""The head of a code as it is read: what of each parameter holds kept weights, and how these are coded.

`slth.coding.mask.encode` writes it.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from slth.coding import dealing, planes
from slth.coding.bits import Bits, Reader
from slth.coding.rounded import Live
from slth.coding.rows import Classes, read_classes
from slth.types import Shape

STEP_BITS = 50

Shapes = Mapping[str, Shape]
Values = Callable[[str], Float32[np.ndarray, "..."]]


class Rounding(NamedTuple):
    """How a kernel is rounded."""

    front: str
    """The layer whose channels are its rows."""
    join: bool
    """Whether groups have rows of both signs."""
    shift: int
    """Low bits of an integer that are plain."""


class Block(NamedTuple):
    """The part of a parameter's mask that holds kept weights; a kernel's rows are its inputs."""

    taps: Bits
    rows: Bits
    columns: Bits
    classes: Classes | None = None
    """Class of each row that holds a kept weight."""
    rounding: Rounding | None = None
    """Set where the kernel is rounded. Without this and classes, each column keeps one weight."""
    inputs: Int[np.ndarray, " live_columns"] | None = None
    """The row of the one weight of each column, where the head says it; else plain bits do."""

    @property
    def live(self) -> Live:
        """Which taps, rows and columns hold a kept weight."""
        return self.taps, self.rows, self.columns

    @property
    def size(self) -> int:
        """Bits of a row: taps times columns that hold kept weights."""
        return int(self.taps.sum()) * int(self.columns.sum())

    @property
    def number_bits(self) -> int:
        """Bits of the number of a row."""
        return int(self.rows.sum() - 1).bit_length()


def read_head(
    shapes: Shapes, reader: Reader, values: Values | None = None
) -> tuple[dict[str, int], dict[str, Block]]:
    """The head of a code: steps, and what of each parameter holds kept weights (left out where none is)."""
    steps, blocks = {}, {}
    known = Channels()
    left = dealing.MOST_DEALT
    for path, shape in shapes.items():
        taps, rows, columns = (np.zeros(size, bool) for size in view(shape))
        expected, front = known.before(path, len(rows))
        if len(shape) > 1 and reader.flag():
            steps[path] = reader.number(STEP_BITS) + 1
        if reader.flag():
            taps = reader.bits(len(taps)) if len(taps) > 1 else ~taps
            dealt = may_be_dealt(shape, path in steps) and reader.flag()
            first = reader.number(len(columns).bit_length()) if len(shape) == 1 else 0
            if first > len(columns):
                raise ValueError(f"mask: {path} has no column {first}")
            if not dealt:
                columns[first:] = reader.bits(len(columns) - first)
            if len(rows) == 1:
                rows = ~rows
            elif reader.flag():
                if expected is None:
                    raise ValueError(f"mask: {path} has no layer before it whose channels it could read")
                rows = expected
            else:
                rows = reader.bits(len(rows))
            inputs = None
            if dealt:
                found, missing = dealing.read(path, len(columns), reader)
                left -= found.channels
                if left < 0:
                    raise ValueError(f"mask: more than {dealing.MOST_DEALT} channels are dealt, as of {path}")
                inputs = dealing.inputs_of(given(values, path)(path).reshape(-1, len(columns)), found)
                if (inputs[missing] < 0).any():
                    raise ValueError(f"mask: {path} lacks a column that is not dealt")
                inputs[missing] = -1
                columns = (inputs >= 0) & rows[inputs]
                inputs = inputs[columns]
            if not (taps.any() and rows.any() and columns.any()):
                raise ValueError(f"mask: {path} is said to keep weights, and in no place")
            blocks[path] = Block(taps, rows, columns, inputs=inputs)
            if path in steps and reader.flag():
                before = blocks.get(f"{front}/kernel")
                if before is None or before.rounding is not None:
                    raise ValueError(f"mask: {path} is rounded, and no layer before it holds its inputs")
                rounding = Rounding(front, reader.flag(), reader.number(planes.SHIFT_BITS))
                blocks[path] = blocks[path]._replace(rounding=rounding)
            elif not (dealt or (len(rows) > 1 and reader.flag())):
                classes = read_classes(path, int(rows.sum()), reader)
                blocks[path] = blocks[path]._replace(classes=classes)
            elif taps.sum() > 1:
                raise ValueError(f"mask: {path} has several taps and one number for each column")
        known.see(path, columns)
    return steps, blocks


class Channels:
    """The layers before a kernel: the rows to expect are the channels of the last one that has as many."""

    def __init__(self) -> None:
        self.by_size: dict[int, tuple[Bits, str]] = {}
        self.layer, self.live = "", np.zeros(0, bool)

    def before(self, path: str, size: int) -> tuple[Bits | None, str]:
        """Live channels and path of the last layer with so many, the path's own aside."""
        layer = path.rpartition("/")[0]
        if layer != self.layer:
            self.by_size[len(self.live)] = self.live, self.layer
            self.layer, self.live = layer, np.zeros(0, bool)
        return self.by_size.get(size, (None, ""))

    def see(self, path: str, columns: Bits) -> None:
        """A layer's channels hold something where its kernel or its bias keeps a parameter."""
        self.live = columns if not self.live.size else self.live | columns


def view(shape: Shape) -> tuple[int, int, int]:
    """(taps, rows, columns) of a parameter: a kernel's inputs are rows; a bias is one row."""
    *taps, rows, columns = (1, 1, *shape) if len(shape) == 1 else shape
    return math.prod(taps), rows, columns


def may_be_dealt(shape: Shape, step: bool) -> bool:
    """Whether the head says of a parameter, with a step or none, whether its channels are dealt."""
    return len(shape) > 1 and not step and math.prod(shape[:-2]) == 1


def given(values: Values | None, path: str) -> Values:
    """The source's parameters."""
    if values is None:
        raise ValueError(f"mask: {path} is coded by the source's parameters: give them (values)")
    return values
