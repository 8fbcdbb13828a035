r"""A target in float64, behind the layers that stand before its first linear one, and where its values lie.

A step is a sum of linear maps and of what a skip carries, or a layer without parameters. Its inputs are
points (arrays) or ranges (`Range`, rounded outward); the same functions follow either through the network.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Kernel, Values, carried, correlate, gamma, is_max, moved, terms
from slth.certificate.slopes import evaluate, reach
from slth.construction import Construction
from slth.construction.balance import skip_kernel
from slth.nn.graph import by_layer, graph, linear_maps, value_shapes
from slth.nn.layers import Activation, ChannelScale, Conv, Linear
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.source.layout import Layout, NodeLayout
from slth.types import Params, Shape

Fixed: TypeAlias = Activation | Pool | GlobalMean | Flatten
"""A layer without parameters."""
PRODUCT = 1e-14
"""Relative rounding of a mean."""


class Range(NamedTuple):
    """Values within ``mid`` +- ``rad``, entry by entry."""

    mid: Float[np.ndarray, "n *shape"]
    rad: Float[np.ndarray, "n *shape"]

    @property
    def low(self) -> Float[np.ndarray, "n *shape"]:
        """Lower ends."""
        return self.mid - self.rad

    @property
    def high(self) -> Float[np.ndarray, "n *shape"]:
        """Upper ends."""
        return self.mid + self.rad

    @property
    def size(self) -> Float[np.ndarray, "n *shape"]:
        """R, the largest magnitudes."""
        return np.abs(self.mid) + self.rad

    def __add__(self, other: "Range") -> "Range":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The range of a sum, with the rounding of a few such sums."""
        mid, rad = self.mid + other.mid, self.rad + other.rad
        return Range(mid, (rad + gamma(0) / 4 * np.abs(mid)) * (1 + gamma(0) / 4))

    def widened(self, rad: Float[np.ndarray, "..."] | float) -> "Range":
        """The range with a larger radius."""
        return Range(self.mid, self.rad + rad)


X = TypeVar("X", Range, np.ndarray)


def between(low: Values, high: Values) -> Range:
    """The range from low to high, rounded outward."""
    mid = low / 2 + high / 2
    rad = np.maximum(high - mid, mid - low)
    return Range(mid, rad * (1 + 4 * UNIT))


class Map(NamedTuple):
    """A linear map on its way into a sum."""

    path: str
    layer: Linear
    reads: int
    """Number of the value it reads."""
    weight: Kernel


class Carry(NamedTuple):
    """A skip without parameters: output channels are input channels, or 0 for -1."""

    reads: int
    stride: Shape
    channels: Int[np.ndarray, " cout"]


class Sum(NamedTuple):
    """A sum of linear maps, of what a skip carries and of a bias."""

    path: str
    maps: tuple[Map, ...]
    carry: Carry | None
    bias: Float[np.ndarray, "*space cout"]
    rounding: Float[np.ndarray, "*space cout"]
    """Bound of the rounding of ``bias``."""


class Apply(NamedTuple):
    """A layer without parameters."""

    layer: Fixed
    reads: int


Step: TypeAlias = Sum | Apply


class Lowered(NamedTuple):
    """A target's steps; value 0 stands behind the leading layers, step i makes value i + 1."""

    lead: tuple[Fixed, ...]
    """Layers before the first linear one, flattening aside: source and target apply them alike."""
    steps: tuple[Step, ...]


def layout(made: Construction) -> Layout:
    """The layout of a construction's source.

    Raises: ValueError if the source is not one of the target.
    """
    return made.source.layout_for(made.target.network)


def lower(made: Construction, params: Params) -> Lowered:
    """The steps of a construction's target; skips that its source solves are maps.

    Args:
      params: the target's, balanced or not.
    """
    steps, layers = graph(made.target.network), by_layer(params)
    first = next(number for number, step in enumerate(steps) if isinstance(step, nn.Sum))
    nodes = {node.step: node for node in layout(made).nodes}
    lead: list[Fixed] = []
    lowered: list[Step] = []
    place = [0]
    for number, step in enumerate(steps):
        if isinstance(step, nn.Sum):
            lowered.append(_sum(made, nodes[number], step, layers, place))
        elif number >= first or isinstance(step.layer, Flatten):
            lowered.append(Apply(_fixed(step.layer), place[step.value]))
        else:
            lead.append(_fixed(step.layer))
        place.append(len(lowered))
    return Lowered(tuple(lead), tuple(lowered))


def _fixed(layer: object) -> Fixed:
    if not isinstance(layer, Activation | Pool | GlobalMean | Flatten):
        raise ValueError(f"certificate: {layer} is no layer of a construction (fold batch norm)")
    return layer


def _sum(
    made: Construction, node: NodeLayout, step: nn.Sum, layers: dict[str, Params], place: list[int]
) -> Sum:
    maps, bias, carry = [], np.zeros(step.features), None
    for entry in step.maps:
        values = layers[entry.path]
        kernel = np.asarray(values["kernel"], np.float64)
        maps.append(Map(entry.path, entry.layer, place[entry.reads], kernel))
        bias = bias + np.asarray(values.get("bias", 0.0), np.float64)
    shapes = value_shapes(made.target.network)
    solved = [entry.path for entry in node.maps[len(maps) :]]
    for skip in step.skips:
        *space, cin = shapes[skip.reads]
        if solved:
            layer = linear_maps(made.source.network)[solved[0]].layer
            kernel = skip_kernel(skip, layers, cin)
            ones = (1,) * len(layer.kernel) if isinstance(layer, Conv) else ()
            layer = replace(layer, features=step.features, use_bias=False)
            maps.append(Map(solved[0], layer, place[skip.reads], kernel.reshape(*ones, *kernel.shape)))
        else:
            assert not isinstance(skip.layer, ChannelScale)  # a source solves these
            stride = (1,) * len(space) if skip.layer is None else skip.layer.stride
            channels = np.arange(cin) if skip.layer is None else np.array(skip.layer.channels)
            carry = Carry(place[skip.reads], stride, channels)
    return Sum(step.path, tuple(maps), carry, bias, 8 * UNIT * np.abs(bias))


def applied(layer: Fixed, x: X) -> X:
    """What a layer without parameters makes of points or ranges."""
    if not isinstance(x, Range):
        return evaluate(layer, x) if isinstance(layer, Activation) else moved(layer, x)
    if isinstance(layer, Activation):
        return between(*reach(layer, x.low, x.high))
    if is_max(layer):
        return between(moved(layer, x.low), moved(layer, x.high))
    mid, rad = (moved(layer, a) for a in x)
    return Range(mid, rad if isinstance(layer, Flatten) else rad + PRODUCT * moved(layer, x.size))


def mapped(entry: Map, x: X) -> X:
    """What a linear map makes of points or ranges."""
    if not isinstance(x, Range):
        return correlate(entry.layer, x, entry.weight)
    slack = gamma(terms(entry.weight))
    # gamma of every product, and as much again for weights that are rounded themselves
    rad = correlate(entry.layer, x.rad + 2 * slack * x.size, np.abs(entry.weight)) * (1 + slack)
    mid = correlate(entry.layer, x.mid, entry.weight) if x.mid.any() else np.zeros_like(rad)
    return Range(mid, rad)


def summed(step: Sum, values: Sequence[X]) -> X:
    """A node's values, from points or ranges of all values before it."""
    total = Range(step.bias, step.rounding) if isinstance(values[0], Range) else step.bias
    for entry in step.maps:
        total = total + mapped(entry, values[entry.reads])
    if step.carry is not None:
        reads, stride, channels = step.carry
        x = values[reads]
        if isinstance(x, Range):
            total = total + Range(*(carried(stride, channels, a) for a in x))
        else:
            total = total + carried(stride, channels, x)
    return total  # pyright: ignore[reportReturnType]


def follow(steps: Sequence[Step], x: X) -> list[X]:
    """Points or ranges of every value, from those of value 0."""
    values = [x]
    for step in steps:
        values.append(
            summed(step, values) if isinstance(step, Sum) else applied(step.layer, values[step.reads])
        )
    return values


def behind(lead: tuple[Fixed, ...], low: Values, high: Values) -> tuple[Values, Values]:
    """Least and largest values behind the leading layers, rounded outward, but not below 0 by rounding."""
    for layer in lead:
        if isinstance(layer, Activation):
            low, high = reach(layer, low, high)
            continue
        slack = 0.0 if is_max(layer) else PRODUCT
        low, high = (
            moved(layer, a) + sign * slack * moved(layer, np.abs(a)) for a, sign in ((low, -1), (high, 1))
        )
    return low, high
