r"""A target in float64, behind the layers that stand before its first linear one, and where its values lie.

A step is a sum of linear maps, a concatenation, or a layer without parameters. A skip is a linear map too, a
1x1 convolution, whether the source solves it or carries it. A convolution of several groups keeps the kernel
that it has, and says which channels each output reads. Inputs are points (arrays) or ranges (`Range`, rounded
outward); the same functions follow either through the network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float, Int

from slth import nn
from slth.certificate.arithmetic import UNIT, Inputs, Kernel, Values, correlate, gamma, is_max, moved, terms
from slth.certificate.slopes import evaluate, reach
from slth.construction import Construction
from slth.construction.balance import skip_kernel
from slth.nn.graph import by_layer, graph, value_shapes
from slth.nn.layers import Activation, Conv, Dense, Linear
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Upsample
from slth.source.layout import SKIP, leading, terms_of
from slth.types import Params

Fixed: TypeAlias = Activation | Flatten | GlobalMax | GlobalMean | Pool | Upsample
"""A layer without parameters."""


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


@dataclass(frozen=True, eq=False)
class Map(nn.Map):
    """A linear map on its way into a sum; a skip without weights is named as if it were solved.

    Its layer has one group: ``inputs`` says what a kernel of several reads.
    """

    weight: Kernel
    inputs: Inputs

    def of(self, outputs: Int[np.ndarray, " _"]) -> "Map":
        """The map with these outputs."""
        inputs = None if self.inputs is None else self.inputs[:, outputs]
        return replace(self, weight=self.weight[..., outputs], inputs=inputs)


class Sum(NamedTuple):
    """A sum of linear maps and of a bias."""

    path: str
    maps: tuple[Map, ...]
    bias: Float[np.ndarray, "*space cout"]
    rounding: Float[np.ndarray, "*space cout"]
    """Bound of the rounding of ``bias``."""


class Join(NamedTuple):
    """A concatenation of values."""

    reads: tuple[int, ...]


class Apply(NamedTuple):
    """A layer without parameters."""

    layer: Fixed
    reads: int
    rounding: Float[np.ndarray, "*space channels"] | float = 0.0
    """Bound of the rounding of the constants that a ticket has behind it."""


Step: TypeAlias = Sum | Join | Apply


class Lowered(NamedTuple):
    """A target's steps; value 0 stands behind the leading layers, step i makes value i + 1."""

    lead: tuple[Fixed, ...]
    """Layers before the first linear one, flattening aside: source and target apply them alike."""
    steps: tuple[Step, ...]


def lower(made: Construction, params: Params) -> Lowered:
    """The steps of a construction's target.

    Args:
      params: the target's, balanced or not.
    """
    network, layers = made.target.network, by_layer(params)
    lead: list[Fixed] = []
    lowered: list[Step] = []
    place = [0]
    for number, step in enumerate(graph(network)):
        if isinstance(step, nn.Sum):
            lowered.append(_sum(network, step, layers, place))
        elif isinstance(step, nn.Join):
            lowered.append(Join(tuple(place[value] for value in step.reads)))
        elif not isinstance(step.layer, Fixed):
            raise ValueError(f"certificate: {step.layer} is no layer of a construction (fold batch norm)")
        elif number >= leading(network) or isinstance(step.layer, Flatten):
            lowered.append(Apply(step.layer, place[step.value]))
        else:
            lead.append(step.layer)
        place.append(len(lowered))
    return Lowered(tuple(lead), tuple(lowered))


def _sum(network: nn.Network, step: nn.Sum, layers: dict[str, Params], place: list[int]) -> Sum:
    maps, bias = [], np.zeros(step.features)
    for path, term in terms_of(step).items():
        if isinstance(term, nn.Map):
            layer, kernel = term.layer, np.asarray(layers[path]["kernel"], np.float64)
            bias = bias + np.asarray(layers[path].get("bias", 0.0), np.float64)
            layer, inputs = ungrouped(layer, value_shapes(network)[term.reads][-1])
        else:
            *space, cin = value_shapes(network)[term.reads]
            ones, inputs = (1,) * len(space), None
            layer = Dense(SKIP, step.features, use_bias=False)
            if space:
                stride = getattr(term.layer, "stride", ones)
                layer = Conv(SKIP, step.features, ones, stride, use_bias=False)
            kernel = skip_kernel(term, layers, cin).reshape(*ones, cin, -1)
        maps.append(Map(path, layer, place[term.reads], kernel, inputs))
    return Sum(step.path, tuple(maps), bias, 8 * UNIT * np.abs(bias))


def ungrouped(layer: Linear, cin: int) -> tuple[Linear, Inputs]:
    """A layer as one of one group, and what its outputs read of so many channels."""
    if not isinstance(layer, Conv) or layer.groups == 1:
        return layer, None
    return replace(layer, groups=1, beside=(0, 0)), layer.inputs(cin)


def mean_rounding(x: Values) -> float:
    """Relative rounding of a mean over some positions."""
    return gamma(math.prod(x.shape[1:-1]))


def applied(layer: Fixed, x: X) -> X:
    """What a layer without parameters makes of points or ranges."""
    if not isinstance(x, Range):
        return evaluate(layer, x) if isinstance(layer, Activation) else moved(layer, x)
    if isinstance(layer, Activation):
        return between(*reach(layer, x.low, x.high))
    if is_max(layer):
        return between(moved(layer, x.low), moved(layer, x.high))
    mid, rad = (moved(layer, a) for a in x)
    slack = 0.0 if isinstance(layer, Flatten) else mean_rounding(x.mid)
    return Range(mid, rad + slack * moved(layer, x.size))


def mapped(entry: Map, x: X) -> X:
    """What a linear map makes of points or ranges."""
    if not isinstance(x, Range):
        return correlate(entry.layer, x, entry.weight, entry.inputs)
    slack = gamma(terms(entry.weight))
    # gamma of every product, and as much again for weights that are rounded themselves
    rad = absolute(entry, x.rad + 2 * slack * x.size) * (1 + slack)
    mid = mapped(entry, x.mid) if x.mid.any() else np.zeros_like(rad)
    return Range(mid, rad)


def absolute(entry: Map, x: Values) -> Values:
    """Sums of |weights| times x."""
    return correlate(entry.layer, x, np.abs(entry.weight), entry.inputs)


def summed(step: Sum, values: Sequence[X]) -> X:
    """A node's values, from points or ranges of all values before it."""
    total = Range(step.bias, step.rounding) if isinstance(values[0], Range) else step.bias
    for entry in step.maps:
        total = total + mapped(entry, values[entry.reads])
    return total  # pyright: ignore[reportReturnType]


def follow(steps: Sequence[Step], x: X) -> list[X]:
    """Points or ranges of every value, from those of value 0."""
    values = [x]
    for step in steps:
        match step:
            case Sum():
                values.append(summed(step, values))
            case Join(reads):
                values.append(joined([values[value] for value in reads]))
            case Apply(layer, reads):
                values.append(applied(layer, values[reads]))
    return values


def joined(values: Sequence[X]) -> X:
    """The channels of several values, one after the other."""
    if isinstance(values[0], Range):
        return Range(*(np.concatenate(ends, -1) for ends in zip(*values, strict=True)))
    return np.concatenate(values, -1)


def led(lead: tuple[Fixed, ...], x: Values) -> Values:
    """Points behind the leading layers."""
    for layer in lead:
        x = applied(layer, x)
    return x


def behind(lead: tuple[Fixed, ...], low: Values, high: Values) -> tuple[Values, Values]:
    """Least and largest values behind the leading layers, rounded outward, but not below 0 by rounding."""
    for layer in lead:
        if isinstance(layer, Activation):
            low, high = reach(layer, low, high)
            continue
        slack = 0.0 if is_max(layer) else mean_rounding(low)
        low, high = (
            moved(layer, a) + sign * slack * moved(layer, np.abs(a)) for a, sign in ((low, -1), (high, 1))
        )
    return low, high
