"""What a construction is to do, fixed before the first problem is solved."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.construction.balance import Balanced, balance, skip_kernel
from slth.construction.checks import check
from slth.construction.solvers import Solver
from slth.construction.state import Read
from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.graph import (
    Skip,
    Sum,
    applied_before,
    by_layer,
    flattening,
    graph,
    is_homogeneous,
    linear_maps,
    sums,
    value_shapes,
)
from slth.nn.layers import Activation, Conv, Dense, Linear
from slth.nn.network import Network
from slth.source import Source, layer_scale
from slth.source.layout import Layout, NodeLayout, Univariate
from slth.source.widths import first_activation
from slth.target import Target
from slth.types import Params


class MapPlan(NamedTuple):
    """A linear map of the target, or a skip solved as one, and the source's layer for it."""

    path: str
    layer: Linear
    values: Params
    """Kernel and bias of the balanced target."""
    source_layer: Linear
    reads: int
    read: Read
    front: Univariate | None
    """The univariate layer that the map reads through: its own in 2L, the network's first in L+1 where it
    reads the input."""


class NodePlan(NamedTuple):
    """One node: a sum of linear maps and of at most one carried skip."""

    number: int
    """Of the node among the target's steps."""
    path: str
    maps: tuple[MapPlan, ...]
    carried: tuple[Skip, Skip] | None
    """A skip that the source carries too: the target's and the source's."""
    features: int
    copies: int
    need: float
    """Largest |bias| / scale among later nodes, which the node's constants must reach."""


class Plan(NamedTuple):
    """Everything that is known of a construction before it starts.

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.construction import plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> plan = plan_of(target, slth.Source.of(target, copies=5), slth.Best())
      >>> plan.layout.depth, plan.center, sorted(plan.nodes)
      ('L+1', False, [0, 2])
    """

    target: Target
    source: Source
    solver: Solver
    layout: Layout
    balanced: Balanced
    activation: Activation
    """Of univariate layers."""
    nodes: dict[int, NodePlan]
    """By number of the step."""
    images: Float[Array, "n *shape"] | None
    """Calibration images."""

    @property
    def info(self) -> ActivationInfo:
        """What is known of the activation of univariate layers."""
        return activation_info(self.activation.kind, self.activation.slope)

    @property
    def center(self) -> bool:
        """Whether activations count about their means, which constants carry (see `centred`)."""
        return centred(self.target.network, self.source.network, self.layout)


def centred(target: Network, source: Network, layout: Layout) -> bool:
    """Whether a construction with images counts activations about their means, which constants carry.

    So it is where phi(0) may differ from 0 and where the source's hidden layers have biases of their own.
    """
    wide = linear_maps(source)
    return not is_homogeneous(target) or any(
        wide[entry.path].layer.use_bias for node in layout.nodes for entry in node.maps
    )


def weight_scale(source: Source, layout: Layout, path: str) -> float:
    """The unit of a layer's weights: the source's scale of it. In 2L a weight is a sum of products with the
    univariate layer's weights, and products of two uniform numbers are half as large as one: the unit is that
    scale times half the scale of the univariate layer.
    """
    front = next(
        (entry.front for node in layout.nodes for entry in node.maps if entry.path == path and entry.front),
        None,
    )
    return layer_scale(source, path) * (layer_scale(source, front.path) / 2 if front is not None else 1.0)


def plan_of(
    target: Target,
    source: Source,
    solver: Solver,
    images: Float[Array | np.ndarray, "n *shape"] | None = None,
    *,
    fit: float = 1.25,
    nonnegative: bool = False,
) -> Plan:
    """The plan of a construction; nothing is drawn or solved yet.

    Args: as of `slth.construct`.
    Raises: ValueError where they do not fit together (`slth.construction.checks`).

    Example:
      >>> import jax, slth
      >>> from slth import nn
      >>> from slth.construction import plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> plan = plan_of(target, slth.Source.of(target, copies=5), slth.Best())
      >>> [(node.path, node.copies) for node in plan.nodes.values()]
      [('a', 5), ('b', 1)]
    """
    check(target, source, solver, images, fit=fit, nonnegative=nonnegative)
    network = target.network
    layout = source.layout_for(network)
    paths = [entry.path for node in layout.nodes for entry in node.maps]
    scales = {path: weight_scale(source, layout, path) for path in paths}
    balanced = balance(network, target.params, scales, fit=fit)
    needs = _needs(layout, balanced.params, scales)
    layers = by_layer(balanced.params)
    nodes = {
        node.step: _node(network, source.network, layout, node, layers, needs, nonnegative)
        for node in layout.nodes
    }
    x = None if images is None else jnp.asarray(images, jnp.float32)
    return Plan(target, source, solver, layout, balanced, first_activation(network), nodes, x)


def _node(
    target: Network,
    source: Network,
    layout: Layout,
    node: NodeLayout,
    layers: dict[str, Params],
    needs: dict[str, float],
    nonnegative: bool,
) -> NodePlan:
    step, wide = graph(target)[node.step], linear_maps(source)
    assert isinstance(step, Sum)
    maps = []
    for number, entry in enumerate(node.maps):
        layer = wide[entry.path].layer
        if number < len(step.maps):
            own = step.maps[number]
            mapped, values, reads = own.layer, layers.get(own.path, {}), own.reads
        else:
            skip = step.skips[0]
            kernel = skip_kernel(skip, layers, value_shapes(target)[skip.reads][-1]).astype(np.float32)
            mapped, reads = _as_linear(layer, kernel.shape[1]), skip.reads
            ones = (1,) * len(layer.kernel) if isinstance(layer, Conv) else ()
            values = {"kernel": kernel.reshape(*ones, *kernel.shape)}
        front = entry.front or (layout.first if _is_raw(target, reads) else None)
        read = _read(target, reads, nonnegative)
        maps.append(MapPlan(entry.path, mapped, values, layer, reads, read, front))
    carried = None
    if len(node.maps) == len(step.maps) and step.skips:
        (other,) = next(one.skips for one in sums(source) if one.name == step.name)
        carried = step.skips[0], other
    return NodePlan(
        node.step, step.path, tuple(maps), carried, step.features, node.copies, needs[node.maps[0].path]
    )


def _as_linear(layer: Linear, features: int) -> Linear:
    """The target's side of a skip that the source solves by ``layer``."""
    if isinstance(layer, Dense):
        return Dense(layer.name, features, use_bias=False)
    return Conv(layer.name, features, layer.kernel, layer.stride, use_bias=False)


def _read(target: Network, value: int, nonnegative: bool) -> Read:
    """How a map reads a value: flattened or not, and whether it can be negative."""
    flat = flattening(target, value)
    shape = value_shapes(target)[value] if flat is None else flat.shape
    for step in applied_before(target, value):
        if isinstance(step.layer, Activation):
            info = activation_info(step.layer.kind, step.layer.slope)
            signed = not (info.homogeneous and info.mu_plus >= 0 >= info.mu_minus)
            return Read(shape, flat and flat.layer, not signed)
    return Read(shape, flat and flat.layer, nonnegative and _is_raw(target, value))


def _is_raw(target: Network, value: int) -> bool:
    """Whether no linear layer stands between the network's input and a value."""
    steps = applied_before(target, value)
    return (steps[-1].value if steps else value) == 0


def _needs(layout: Layout, params: Params, scales: dict[str, float]) -> dict[str, float]:
    """For every linear layer, the largest |bias| / scale of the layers behind it."""
    layers, needs, largest = by_layer(params), {}, 0.0
    for entry in reversed([entry for node in layout.nodes for entry in node.maps]):
        needs[entry.path] = largest
        bias = layers.get(entry.path, {}).get("bias", np.zeros(1))
        largest = max(largest, float(np.abs(np.asarray(bias)).max()) / scales[entry.path])
    return needs
