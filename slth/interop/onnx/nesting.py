"""From values that read each other to slth's layers: one sequence, with blocks where two branches meet."""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple, TypeAlias

import numpy as np

from slth.interop.joins import Joins, sides_of
from slth.interop.onnx.elementwise import MOST, PRODUCTS, recognised
from slth.interop.onnx.model import PRODUCT, Refused
from slth.interop.onnx.values import Affine, Elementwise, Joined, Padding, Slopes, Softmax, Value
from slth.nn.layers import Activation, Conv, Layer
from slth.types import Shape

DEEPEST = 16
"""Blocks within blocks."""
PLACES = np.array([-1e3, -7.0, -1.0, -0.125, 0.0, 0.125, 1.0, 7.0, 1e3])
"""Where functions that differ from channel to channel are compared."""


class Item(NamedTuple):
    """A layer on its way into a sequence."""

    layer: Layer
    params: dict[str, np.ndarray]
    node: str
    shape: Shape
    """Of one example of what it reads."""


class Scaling(NamedTuple):
    """An affine map by channel on its way into a sequence."""

    affine: Affine
    node: str
    shape: Shape


class Block(NamedTuple):
    """A residual block on its way into a sequence."""

    branch: "Items"
    skip: "Items"


class Parts(NamedTuple):
    """A concatenation on its way into a sequence."""

    sides: "tuple[Items, ...]"


Items: TypeAlias = list[Item | Scaling | Block | Parts]


def ordered(end: Value) -> list[Value]:
    """Every value that another one is made of, each after what it reads."""
    done: dict[Value, None] = {}
    waiting = [end]
    while waiting:
        value = waiting[-1]
        missing = [one for one in value.reads if one not in done]
        if missing:
            waiting += missing
        else:
            done[waiting.pop()] = None
    return list(done)


class Nesting:
    """The values behind a network's output, and through which of them every path goes."""

    def __init__(self, end: Value) -> None:
        self.above: dict[Value, Value] = {}  # the next value on the way to the input that all paths share
        self.depth: dict[Value, int] = {}
        self.used: set[Value] = set()
        self.joins: dict[Value, tuple[Value, ...]] = {}  # what each concatenation reads, in nesting order
        joins: Joins[Value] = Joins()
        for value in ordered(end):
            if isinstance(value.operation, Joined):
                self._join(value, joins.grouped(value.reads))
                joins.keep(value, value.reads)
            else:
                self._place(value, value.reads)

    def _place(self, value: Value, reads: tuple[Value, ...]) -> None:
        """Note through which value every path to a value goes."""
        if reads:
            self.above[value] = reduce(self.common, reads)
        self.depth[value] = self.depth[self.above[value]] + 1 if reads else 0

    def _join(self, value: Value, reads: tuple[Value, ...]) -> None:
        """Place a concatenation and those within it."""
        sides = []
        for run in sides_of(reads, self.common):
            if len(run) > 1:
                shape = (*value.shape[:-1], sum(one.shape[-1] for one in run))
                part = Value(value.node, shape, Joined(), tuple(run))
                self._join(part, part.reads)
                run = [part]
            sides += run
        self.joins[value] = tuple(sides)
        self._place(value, reads)

    def common(self, one: Value, other: Value) -> Value:
        """The last value that all paths from the input to two values go through."""
        while one is not other:
            if self.depth[one] < self.depth[other]:
                one, other = other, one
            one = self.above[one]
        return one

    def items(self, end: Value, start: Value, level: int = 0) -> Items:
        """The layers that compute a value from another that all its paths go through."""
        if level > DEEPEST:
            raise Refused(f"{end.node}: blocks lie deeper than {DEEPEST} within each other")
        items: Items = []
        while end is not start:
            item, end = self._last(end, start, level)
            items.append(item)
        return items[::-1]

    def _last(self, end: Value, start: Value, level: int) -> tuple[Item | Scaling | Block | Parts, Value]:
        """The last layer before a value, and what that layer reads."""
        if end in self.used:
            raise Refused(f"{end.node}: it is read from two branches that meet in different places")
        self.used.add(end)
        match end.operation:
            case Elementwise():
                return self._activation(end, start) or self._block(end, level)
            case Padding():
                raise Refused(f"{end.node}: only what a convolution or pooling reads may be padded")
            case Softmax():
                raise Refused(f"{end.node}: softmax is read at the end of a network only")
            case None:
                raise Refused(f"{end.node}: the network's input is read on different paths")
            case Joined():
                root = self.above[end]
                return Parts(tuple(self.items(one, root, level + 1) for one in self.joins[end])), root
            case Slopes(slopes):
                return _with_slopes(slopes, end.node, end.shape), end.reads[0]
            case Affine() as affine:
                return Scaling(affine, end.node, end.reads[0].shape), end.reads[0]
            case operation:
                return Item(operation, end.params, end.node, end.reads[0].shape), end.reads[0]

    def _activation(self, end: Value, start: Value) -> tuple[Item | Scaling | Block, Value] | None:
        """The activation that a group of elementwise nodes is, the largest group first; one with factors for
        each channel may be a PReLU, as ReLU(x) - a ReLU(-x) is."""
        roots, root = [], end
        while root is not start and len(roots) < MOST:
            root = self.above[root]
            group = self._between(end, root)
            if group is None:
                break
            roots.append((root, group))
        for root, group in reversed(roots):
            function = partial(_evaluated, root=root, group=group)
            if any(isinstance(value.operation, Affine) for value in group):
                slopes = _slopes_of(function, root.shape[-1])
                if slopes is not None:
                    return _with_slopes(slopes, end.node, end.shape), root
                continue
            found = recognised(function)
            if isinstance(found, Affine):
                return Scaling(found, end.node, root.shape), root
            if found is not None:
                return Item(found, {}, end.node, root.shape), root
        return None

    def _between(self, end: Value, root: Value) -> list[Value] | None:
        """The values from a root to another, where all of them are elementwise and few; None else."""
        done: dict[Value, None] = {root: None}
        waiting = [end]
        while waiting:
            value = waiting[-1]
            inside = value is root or isinstance(value.operation, Elementwise | Affine)
            if not inside or len(done) > MOST:
                return None
            missing = [one for one in value.reads if one not in done] if value not in done else []
            if missing:
                waiting += missing
            else:
                done[waiting.pop()] = None
        return [value for value in done if value is not root]

    def _block(self, end: Value, level: int) -> tuple[Block, Value]:
        """A sum of two branches."""
        if len(end.reads) == 2 and end.node.startswith(tuple(f"{op} " for op in PRODUCTS)):
            raise Refused(f"{end.node}: {PRODUCT}")
        if not end.node.startswith(("Add ", "Sum ")) or len(end.reads) != 2:
            raise Refused(f"{end.node}: no activation of slth's table computes it")
        root = self.above[end]
        sides = [self.items(one, root, level + 1) for one in end.reads]
        branch, skip = sides if _weight(sides[0]) >= _weight(sides[1]) else sides[::-1]
        return Block(branch, skip), root


def _weight(items: Items) -> int:
    """How many layers with parameters a branch has."""
    count = 0
    for item in items:
        match item:
            case Block(branch, skip):
                count += _weight(branch) + _weight(skip)
            case Parts(sides):
                count += sum(map(_weight, sides))
            case Item():
                count += bool(item.params)
    return count


def _with_slopes(slopes: np.ndarray, node: str, shape: Shape) -> Block:
    """PReLU by channel as a block, a x + (1 - a) relu(x), of one weight for each channel and side."""
    relu = Item(Activation("relu"), {}, node, shape)
    rest, skip = Scaling(Affine(1 - slopes, np.zeros_like(slopes)), node, shape), None
    if len(shape) > 1:  # a depthwise convolution, of which a source has the groups
        ones = (1,) * (len(shape) - 1)
        layer = Conv("slopes", shape[-1], ones, use_bias=False, groups=shape[-1])
        skip = Item(layer, {"kernel": slopes.reshape(*ones, 1, -1)}, node, shape)
    return Block([relu, rest], [skip or Scaling(Affine(slopes, np.zeros_like(slopes)), node, shape)])


def _slopes_of(function: Callable[[np.ndarray], np.ndarray], channels: int) -> np.ndarray | None:
    """The slopes of a PReLU by channel; None where a function is none, or has one slope for all channels."""
    x = np.repeat(PLACES[:, None], channels, 1)
    y = function(x)
    slopes = -y[PLACES == -1].ravel()
    near = np.abs(y - np.where(x >= 0, x, slopes * x)) <= 1e-9 * np.maximum(1, np.abs(x))
    return slopes if near.all() and (slopes != slopes[0]).any() else None


def _evaluated(x: np.ndarray, root: Value, group: list[Value]) -> np.ndarray:
    values = {root: x}
    for value in group:
        read = [values[one] for one in value.reads]
        match value.operation:
            case Elementwise(function):
                values[value] = function(*read)
            case Affine(factor, shift):
                values[value] = factor * read[0] + shift
    return values[group[-1]]
