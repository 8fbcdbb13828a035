r"""The layout of a source: which of its layers and channels stand for what of the target.

The source of L + 1 mirrors its target and has one more layer, in front of the target's first linear layer:

* *univariate* channels phi(alpha x_i) of one input each (all other inputs pruned), N for each input and sign,
  and constant channels phi(beta) (all inputs pruned);
* a hidden node with c outputs becomes one with m c + K channels: channel ``j m + k`` is copy k of output j,
  the last K channels are constants;
* the last node keeps its width: one copy of each output.

The source of 2L has a univariate layer in front of *every* linear layer, and the layers themselves keep the
target's widths. Univariate layers make constants afresh, so none is carried.

A concatenation has the copies of all its sides, then the constants of one of them. A grouped convolution has
the groups of the target's, each with its copies, and constants beside them that all groups read.

Where what a univariate layer reads cannot be negative, its weights may be positive alone: N channels for each
input are then enough.

Source: Burkholz, ICML 2022, theorem on L + 1 layers (widths m (c + 1), which is K = m); Malach et al. 2020,
Pensia et al. 2020 and da Cunha et al. 2022 for two layers for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from slth.nn.graph import (
    Join,
    Map,
    Pointwise,
    Skip,
    Sum,
    behind,
    flattening,
    graph,
    is_nonnegative,
    sums,
    value_shapes,
)
from slth.nn.layers import ChannelScale, Conv
from slth.nn.network import Network
from slth.nn.pooling import Pool
from slth.nn.spec import Stateless
from slth.types import Shape

UNIVARIATE = "univariate"
"""Name of the first layer of L + 1; in 2L the univariate layer of ``path`` is ``"<path>.univariate"``."""
SKIP = "skip"
"""Name of the 1x1 convolution that stands for a skip without weights of its own."""
MOST_CONSTANTS = 64
"""K of a univariate layer of 2L is twice the number of channels of an input and sign, and at most this."""


@dataclass(frozen=True)
class Univariate:
    """A layer of univariate channels: 2 N c of them (signs are random: about N for each), or N c of positive
    weight, then 2 K biases."""

    path: str
    inputs: int
    """c, the channels that it reads."""
    copies: int
    """N, channels for each input and sign."""
    constants: int
    """K, constants wanted: half of the 2 K channels with a bias are 0 behind a ReLU."""
    positive: bool = False
    """Whether its weights are positive."""
    groups: int = 1
    """Those of the convolution behind it: channels of a group read inputs of this group alone."""

    @property
    def first_constant(self) -> int:
        """Number of the first channel with a bias."""
        return (1 if self.positive else 2) * self.copies * self.inputs

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.first_constant + 2 * self.constants


@dataclass(frozen=True)
class LinearLayout:
    """A layer of the source that realises one linear map of the target."""

    path: str
    front: Univariate | None
    """The univariate layer in front of it, in 2L."""
    groups: int = 1
    """Groups of the layer: the target's, or 1 where its inputs are the channels of `Layout.first`, which may
    stand for any input."""


@dataclass(frozen=True)
class NodeLayout:
    """What realises one node of the target."""

    step: int
    """Number of the node among the target's steps (`slth.nn.graph`)."""
    maps: tuple[LinearLayout, ...]
    """The target's maps in order, then its skip where that is solved as a 1x1 convolution; none where a
    branch that ends in an activation is added to a carried skip."""
    copies: int
    """Source channels for each output: m, or 1 of the network's outputs and in 2L."""
    constants: int
    """K, channels behind the copies."""

    @property
    def groups(self) -> int:
        """Groups that the node's outputs are in."""
        return max((entry.groups for entry in self.maps), default=1)


@dataclass(frozen=True)
class Layout:
    """Which layers and channels of a source stand for what of its target.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> source.layout.depth, source.layout.first.path
      ('L+1', 'univariate')
      >>> [(node.maps[0].path, node.copies, node.constants) for node in source.layout.nodes]
      [('a', 5, 24), ('b', 1, 0)]
    """

    multiplicity: int
    first: Univariate | None
    """The layer in front of all others, in L + 1; None in 2L."""
    nodes: tuple[NodeLayout, ...]

    @property
    def depth(self) -> str:
        """Either "L+1" or "2L"."""
        return "2L" if self.first is None else "L+1"

    @property
    def univariate(self) -> tuple[Univariate, ...]:
        """All univariate layers, in order."""
        fronts = (entry.front for node in self.nodes for entry in node.maps)
        return tuple(one for one in (self.first, *fronts) if one is not None)

    def terms(self, target: Network) -> Iterator[tuple[LinearLayout, Map | Skip]]:
        """Every layer of the source that realises a term of one of the target's sums, with this term."""
        for node in self.nodes:
            step = graph(target)[node.step]
            assert isinstance(step, Sum)
            terms = terms_of(step)
            yield from ((entry, terms[entry.path]) for entry in node.maps)  # other skips are carried

    def front_of(self, target: Network, entry: LinearLayout, term: Map | Skip) -> Univariate | None:
        """The univariate layer that a layer of the source reads through: in L + 1 where its term reads the
        target's input."""
        return entry.front or (None if behind(target, term.reads).name else self.first)


def terms_of(step: Sum) -> dict[str, Map | Skip]:
    """The terms of a sum by the paths of the source's layers for them (of a skip: where it is solved)."""
    maps = {one.path: one for one in step.maps}
    return maps | {f"{step.name}/{one.side}/{SKIP}": one for one in step.skips}


def constant_side(target: Network, join: Join) -> int:
    """Number of the side of a concatenation whose constants are kept: the last one where they are the same at
    every position. Behind a mean that counts padding they are not."""

    def uneven(layer: Pointwise) -> bool:
        return isinstance(layer, Pool) and layer.count_padding and any(map(any, layer.padding))

    even = (
        number
        for number, value in enumerate(join.reads)
        if not any(map(uneven, behind(target, value).layers))
    )
    return max(even, default=0)


def leading(target: Network) -> int:
    """Number of layers before the first linear layer or block."""
    return sum(1 for _ in takewhile(lambda layer: isinstance(layer, Stateless), target.layers))


def unflattened(target: Network, value: int) -> Shape:
    """Shape of a value, or of that before it which a univariate layer reads in its place."""
    flat = flattening(target, value)
    return value_shapes(target)[value] if flat is None else flat.shape


def made_layout(
    target: Network, m: int, copies: int, constants: int, skip: str, depth: str, *, positive: bool
) -> Layout:
    """The layout of the source with these settings (see `source_network`).

    Args:
      positive: whether univariate weights are positive where what they read cannot be below 0.
    """
    doubled = depth == "2L"
    fresh = min(2 * copies, MOST_CONSTANTS) if doubled and constants else constants

    def univariate(path: str, value: int, groups: int = 1) -> Univariate:
        alone = positive and is_nonnegative(target, value)
        return Univariate(path, unflattened(target, value)[-1], copies, fresh, alone, groups)

    def linear(path: str, term: Map | Skip) -> LinearLayout:
        groups = term.layer.groups if isinstance(term.layer, Conv) else 1
        if doubled:
            return LinearLayout(path, univariate(f"{path}.{UNIVARIATE}", term.reads, groups), groups)
        return LinearLayout(path, None, groups if behind(target, term.reads).name else 1)

    nodes = []
    for number, step in enumerate(graph(target)):
        if isinstance(step, Sum):
            solved = skip == "random" or any(isinstance(one.layer, ChannelScale) for one in step.skips)
            maps = tuple(
                linear(path, term)
                for path, term in terms_of(step).items()
                if isinstance(term, Map) or (solved and term.side == "skip")
            )
            once = doubled or step == sums(target)[-1]
            nodes.append(NodeLayout(number, maps, *((1, 0) if once else (m, constants))))
    first = None if doubled else univariate(UNIVARIATE, leading(target))
    return Layout(m, first, tuple(nodes))
