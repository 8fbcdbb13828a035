"""One network out of another: every layer replaced by a rule, blocks kept as blocks.

The numbers of values that a rule sees are those of `slth.nn.graph`, so that a rule can look up what a reader
of the graph has found.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from slth.nn.layers import Block, ChannelScale, Concat, Conv, Dense, Layer, Residual
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


JoinRule = Callable[[Place, Concat], tuple[Layer, ...]]
"""What takes the place of a concatenation, from its place and the concatenation of its sides as rewritten."""


def _same(place: Place, sides: Sides, value: int) -> Sides:
    return sides


def _alone(place: Place, block: Concat) -> tuple[Layer, ...]:
    return (block,)


def rewrite(
    network: Network, rule: Rule, block_rule: BlockRule = _same, join_rule: JoinRule = _alone
) -> Network:
    """The network whose layers are those that the rules make of the given one's.

    Args:
      rule: for every layer that is no block, first to last, the sides of a block in their order.
      block_rule: for every residual block, after its sides; it may replace a skip altogether.
      join_rule: for every concatenation, after its sides.
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

    def sequence(
        layers: tuple[Layer, ...], value: int, shape: Shape, path: str, *, summed: bool = False
    ) -> tuple[Layer, ...]:
        """The new layers of a block's side, or of the network; the last one may join the block's sum."""
        nonlocal count
        done: tuple[Layer, ...] = ()
        for index, layer in enumerate(layers, start=1):
            place = Place(layer, path + getattr(layer, "name", ""), value, shape)
            if isinstance(layer, Residual):
                done = (*done, block(place, layer))
            elif isinstance(layer, Concat):
                done = (*done, *join(place, layer))
            else:
                done = rule(place, done)
                joins = index == len(layers) and isinstance(layer, Conv | Dense | ChannelScale | Subsample)
                count += not (summed and joins)
            value, shape = count, layer.output_shape(shape)
        return done

    def block(place: Place, layer: Residual) -> Residual:
        nonlocal count
        new = sides_of(place, layer, summed=True)
        count += 1
        sides = block_rule(place, Sides(*new), count)
        return replace(layer, branch=sides.branch, skip=sides.skip)

    def join(place: Place, layer: Concat) -> tuple[Layer, ...]:
        nonlocal count
        new = sides_of(place, layer, summed=False)
        count += 1
        return join_rule(place, replace(layer, parts=new))

    def sides_of(place: Place, layer: Block, *, summed: bool) -> tuple[tuple[Layer, ...], ...]:
        return tuple(
            sequence(inner, place.reads, place.shape, f"{place.path}/{side}/", summed=summed)
            for side, inner in layer.sides.items()
        )

    return replace(network, layers=sequence(network.layers, 0, network.input_shape, ""))
