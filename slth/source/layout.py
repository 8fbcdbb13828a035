r"""The layout of a source: which of its layers and channels stand for what of the target.

The source of L + 1 mirrors its target and has one more layer, in front of the target's first linear layer:

* *univariate* channels phi(alpha x_i) of one input each (all other inputs pruned), N for each input and sign,
  and constant channels phi(beta) (all inputs pruned);
* a hidden node with c outputs becomes one with m c + K channels: channel ``j m + k`` is copy k of output j,
  the last K channels are constants;
* the last node keeps its width: one copy of each output.

The source of 2L has a univariate layer in front of *every* linear layer, and the layers themselves keep the
target's widths. Univariate layers make constants afresh, so none is carried.

Source: Burkholz, ICML 2022, theorem on L + 1 layers (widths m (c + 1), which is K = m); Malach et al. 2020,
Pensia et al. 2020 and da Cunha et al. 2022 for two layers for each.
"""

from dataclasses import dataclass

from slth.nn.graph import Map, Step, Sum, graph, linear_maps, value_shapes
from slth.nn.network import Network
from slth.types import Shape

UNIVARIATE = "univariate"
"""Name of the first layer of L + 1; in 2L the univariate layer of ``path`` is ``"<path>.univariate"``."""
SKIP = "skip"
"""Name of the 1x1 convolution that stands for a skip without weights of its own."""
MOST_CONSTANTS = 64
"""K of a univariate layer of 2L is twice the number of channels of an input and sign, and at most this."""


@dataclass(frozen=True)
class Univariate:
    """A layer of univariate channels: 2 N c of them (signs are random: about N for each), then 2 K biases."""

    path: str
    inputs: int
    """c, the channels that it reads."""
    copies: int
    """N, channels for each input and sign."""
    constants: int
    """K, constants wanted: half of the 2 K channels with a bias are 0 behind a ReLU."""

    @property
    def first_constant(self) -> int:
        """Number of the first channel with a bias."""
        return 2 * self.copies * self.inputs

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


@dataclass(frozen=True)
class NodeLayout:
    """What realises one node of the target."""

    step: int
    """Number of the node among the target's steps (`slth.nn.graph`)."""
    maps: tuple[LinearLayout, ...]
    """The target's maps in order, then its skips where they are solved as 1x1 convolutions."""
    copies: int
    """Source channels for each output: m, or 1 of the network's outputs and in 2L."""
    constants: int
    """K, channels behind the copies."""


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


def layout_of(target: Network, network: Network, multiplicity: int) -> Layout:
    """The layout that a source's widths and names imply, for files that hold no more than its network.

    Args:
      target: spec of the target, without batch norm.
      network: spec of a source of L + 1 or 2L (`slth.source.source_network`).
      multiplicity: m.
    Returns: the layout; `slth.Source.of` gives the one that its source was made with.
    Raises: ValueError where the source is not one of this target, naming the layer, what was expected and
      what to do.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> source = slth.Source.of(target, copies=5)
      >>> slth.source.layout_of(target.network, source.network, 5).nodes == source.layout.nodes
      True
    """
    wide, shapes = linear_maps(network), value_shapes(network)
    doubled = UNIVARIATE not in wide
    nodes = []
    last = [number for number, step in enumerate(graph(target)) if isinstance(step, Sum)][-1]
    for path in linear_maps(target):
        _check_present(path, wide)
    for number, step in enumerate(graph(target)):
        if not isinstance(step, Sum):
            continue
        paths = [entry.path for entry in step.maps]
        if step.skips and (solved := f"{step.name}/skip/{SKIP}") in wide:
            paths.append(solved)
        maps = tuple(LinearLayout(path, _front(path, wide, shapes) if doubled else None) for path in paths)
        copies = 1 if doubled or number == last else multiplicity
        constants = 0 if number == last else wide[step.path].layer.features - copies * step.features
        nodes.append(NodeLayout(number, maps, copies, constants))
    known = {entry.path for node in nodes for entry in node.maps} | {
        one.path for one in Layout(multiplicity, None, tuple(nodes)).univariate
    }
    for path in wide:
        if path not in known and path != UNIVARIATE:
            raise ValueError(
                f"source: its layer {path} realises no layer of the target: make the source with "
                "slth.Source.of(target)"
            )
    for node in nodes:
        _check_widths(graph(target)[node.step], node, wide)
    first = None
    if not doubled:
        layer, inputs = wide[UNIVARIATE].layer, shapes[wide[UNIVARIATE].reads][-1]
        constants = (nodes[0].constants or multiplicity) if layer.use_bias else 0
        first = Univariate(UNIVARIATE, inputs, (layer.features - 2 * constants) // (2 * inputs), constants)
    return Layout(multiplicity, first, tuple(nodes))


def _check_present(path: str, wide: dict[str, Map]) -> None:
    if path not in wide:
        raise ValueError(
            f"source: it has no layer {path}, which the target has: make the source of this target with "
            "slth.Source.of(target)"
        )


def _check_widths(step: Step, node: NodeLayout, wide: dict[str, Map]) -> None:
    """Layers of one node have one width, with room for all copies, and the target's geometry."""
    assert isinstance(step, Sum)
    expected = step.features * node.copies + max(node.constants, 0)
    least = "at least " if node.copies > 1 else ""
    for entry in node.maps:
        found = wide[entry.path].layer
        if node.constants < 0 or found.features != expected:
            raise ValueError(
                f"source: layer {entry.path} has {found.features} channels, expected {least}"
                f"{step.features * node.copies}, {node.copies} for each output: make the source of this "
                "target and multiplicity with slth.Source.of(target, copies=...)"
            )
    for entry in step.maps:
        layer = wide[entry.path].layer
        for name in ("kernel", "stride", "padding", "dilation"):
            mine, theirs = (getattr(one, name, "none") for one in (entry.layer, layer))
            if mine != theirs:
                raise ValueError(
                    f"source: layer {entry.path} has {name} {theirs}, and the target's has {mine}: "
                    "make the source of "
                    "this target with slth.Source.of(target)"
                )


def _front(path: str, wide: dict[str, Map], shapes: tuple[Shape, ...]) -> Univariate:
    """The univariate layer in front of a layer of 2L, whose width says how it is split."""
    name = f"{path}.{UNIVARIATE}"
    _check_present(name, wide)
    layer, inputs = wide[name].layer, shapes[wide[name].reads][-1]
    if not layer.use_bias:
        return Univariate(name, inputs, layer.features // (2 * inputs), 0)
    if layer.features <= MOST_CONSTANTS * (inputs + 2):
        copies = layer.features // (2 * (inputs + 2))
        return Univariate(name, inputs, copies, 2 * copies)
    return Univariate(name, inputs, (layer.features - 2 * MOST_CONSTANTS) // (2 * inputs), MOST_CONSTANTS)
