"""One network out of another: every layer replaced by a rule, blocks kept as blocks.

The numbers of values that a rule sees are those of `slth.nn.graph`, so that a rule can look up what a reader
of the graph has found.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from slth.nn.layers import ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Subsample
from slth.types import Shape


@dataclass(frozen=True)
class Place:
    """A layer, or a whole residual block, and where it stands."""

    layer: Layer
    path: str
    """Names joined by "/"; for a layer without a name the path of what is around it."""
    reads: int
    """Number of the value it reads."""
    shape: Shape
    """Of one example of that value."""


Rule = Callable[[Place, tuple[Layer, ...]], tuple[Layer, ...]]
"""The new sequence up to and with a layer, from its place and the new sequence before it."""


class Sides(NamedTuple):
    """The two sequences of a residual block; an empty skip is the identity."""

    branch: tuple[Layer, ...]
    skip: tuple[Layer, ...]


BlockRule = Callable[[Place, Sides, int], Sides]
"""A block's new sides, from its place, its sides as rewritten so far, and the number of its sum's value."""


def _same(place: Place, sides: Sides, value: int) -> Sides:
    return sides


def rewrite(network: Network, rule: Rule, block_rule: BlockRule = _same) -> Network:
    """The network whose layers are those that the rules make of the given one's.

    Args:
      rule: for every layer that is no block, first to last, a block's branch before its skip.
      block_rule: for every block, after its sides; it may replace a skip altogether.
    Returns: the new network; its input shape is the old one's.

    Example:
      >>> from slth import nn
      >>> def smooth(place, before):
      ...     layer = place.layer
      ...     return (*before, nn.Activation("gelu") if isinstance(layer, nn.Activation) else layer)
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> nn.rewrite(network, smooth).layers[1].kind
      'gelu'
    """
    count = 0  # values made so far

    def sequence(layers: tuple[Layer, ...], value: int, shape: Shape, path: str) -> tuple[Layer, ...]:
        """The new layers of a block's side (whose last layer may join the block's sum), or of the network."""
        nonlocal count
        done: tuple[Layer, ...] = ()
        for index, layer in enumerate(layers, start=1):
            place = Place(layer, path + getattr(layer, "name", ""), value, shape)
            if isinstance(layer, Residual):
                done = (*done, block(place, layer))
            else:
                done = rule(place, done)
                # Behind the network's own last layer no value is counted, and none is asked for.
                joins = index == len(layers) and isinstance(layer, Conv | Dense | ChannelScale | Subsample)
                count += not joins
            value, shape = count, layer.output_shape(shape)
        return done

    def block(place: Place, layer: Residual) -> Residual:
        nonlocal count
        branch = sequence(layer.branch, place.reads, place.shape, f"{place.path}/branch/")
        skip = sequence(layer.skip, place.reads, place.shape, f"{place.path}/skip/")
        count += 1
        sides = block_rule(place, Sides(branch, skip), count)
        return replace(layer, branch=sides.branch, skip=sides.skip)

    return replace(network, layers=sequence(network.layers, 0, network.input_shape, ""))
