"""What a construction is to do, fixed before the first problem is solved."""

import math
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.construction.balance import Balanced, balance, skip_kernel
from slth.construction.checks import check, check_reach
from slth.construction.fit import DEPTH, MEASURED, UNPREDICTED, Fit, fit_of
from slth.construction.noise import Seen, seen_on
from slth.construction.solvers import Robust, Solver
from slth.construction.state import Read
from slth.construction.steps import sensitivities, steps
from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.graph import (
    Map,
    Skip,
    Sum,
    behind,
    by_layer,
    flattening,
    graph,
    is_homogeneous,
    is_nonnegative,
    linear_maps,
    sums,
    value_shapes,
)
from slth.nn.layers import Activation, Conv, Linear
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.source import Source, layer_scale
from slth.source.layout import Layout, LinearLayout, Univariate, terms_of
from slth.source.widths import first_activation
from slth.target import Target
from slth.types import Batch, Params

ROOM = 2**30
"""Bytes that the largest of the ticket's values may take where copies are measured: on so many images."""


class MapPlan(NamedTuple):
    """A linear map of the target, or a skip solved as one, by the source's layer of this path."""

    path: str
    layer: Linear
    values: Params
    """Kernel and bias of the balanced target."""
    reads: int
    read: Read
    front: Univariate | None
    """The univariate layer that the map reads through: its own in 2L, the network's first in L+1 where it
    reads the input."""
    scale: float
    """The unit of its weights (`weight_scale`)."""
    step: float
    """What its weights are rounded to multiples of; 0 where they are not."""


class NodePlan(NamedTuple):
    """One node: a sum of linear maps and of what is carried; without maps there is nothing to solve."""

    number: int
    """Of the node among the target's steps."""
    path: str
    maps: tuple[MapPlan, ...]
    carried: tuple[tuple[Skip, Skip], ...]
    """What the source adds from copy to copy, as the target does: the target's and the source's skips."""
    copies: int
    need: float
    """Largest |bias| / scale among later nodes, which the node's constants must reach."""
    groups: int = 1
    """Groups that its outputs are in: each is a problem of its own (`slth.construction.groups`)."""


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
    """Calibration images; of many large ones only some (`ROOM`), where copies are measured on them."""
    fit: Fit
    """How large the balanced weights are."""
    seen: Seen | None
    """The balanced target on these images."""

    @property
    def info(self) -> ActivationInfo:
        """What is known of the activation of univariate layers."""
        return activation_info(self.activation.kind, self.activation.slope)

    @property
    def looks(self) -> bool:
        """Whether the target's activations are looked at one by one: beside the ticket's, or by univariate
        layers of 2L that are not piecewise linear. Otherwise `seen` is enough."""
        univariate = self.layout.depth == "2L" and not self.info.homogeneous
        return self.images is not None and (self.solver.runs_ticket or univariate)

    @property
    def measured(self) -> bool:
        """Whether each weight is chosen for copies as the calibration images show them."""
        return getattr(self.solver, "measures", False)

    @property
    def absorbs(self) -> bool:
        """Whether constants take up what the weights of every layer miss of the means, tap by tap."""
        return self.fit.absorbs

    @property
    def center(self) -> bool:
        """Whether activations count about their means, which constants carry (see `centred`)."""
        return self.absorbs or centred(self.target.network, self.source.network, self.layout)


def centred(target: Network, source: Network, layout: Layout) -> bool:
    """Whether any construction with images counts activations about their means, which constants carry.

    So it is where phi(0) may differ from 0 and where the source's hidden layers have biases of their own.
    """
    wide = linear_maps(source)
    return not is_homogeneous(target) or any(
        wide[entry.path].layer.use_bias for node in layout.nodes for entry in node.maps
    )


def weight_scale(source: Source, entry: LinearLayout) -> float:
    """The unit of a layer's weights: the source's scale of it. In 2L a weight is a sum of products with the
    univariate layer's weights, and products of two uniform numbers are half as large as one: the unit is that
    scale times half the scale of the univariate layer.
    """
    return layer_scale(source, entry.path) * (layer_scale(source, entry.front.path) / 2 if entry.front else 1)


@in_32_bits()
def plan_of(
    target: Target,
    source: Source,
    solver: Solver,
    images: Float[Array | np.ndarray, "n *shape"] | None = None,
    *,
    fit: float | None = None,
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
    bits = getattr(solver, "bits", None)  # of a solver that rounds
    scales = {entry.path: weight_scale(source, entry) for node in layout.nodes for entry in node.maps}
    means = False if images is None else getattr(solver, "means", False)
    if fit is not None or images is None or bits is not None or not _predictable(network):
        chosen = Fit(UNPREDICTED.value if fit is None else fit, None, bool(means))
    else:
        chosen = fit_of(target, source, layout, scales, images, means)
        if solver.solves_rows:  # what is predicted is the error of weights chosen one by one
            chosen = chosen._replace(predicted=None)
    balanced = balance(network, target.params, scales, fit=chosen.value)
    layers = by_layer(balanced.params)
    needs = _needs(layout, layers, scales)
    fine = {} if bits is None or images is None else _steps(network, balanced, layers, bits, images)
    carries = {step.name: step.skips for step in sums(source.network)}

    def mapped(entry: LinearLayout, term: Map | Skip) -> MapPlan:
        if isinstance(term, Map):
            layer, values = term.layer, layers[term.path]
            if isinstance(layer, Conv) and layer.groups > entry.groups:  # the source's layer has one group
                kernel = layer.whole(values["kernel"], value_shapes(network)[term.reads][-1])
                layer, values = replace(layer, groups=1), {**values, "kernel": kernel}
        else:
            *space, cin = value_shapes(network)[term.reads]
            kernel = skip_kernel(term, layers, cin).astype(np.float32)
            wide = linear_maps(source.network)[entry.path].layer
            layer = replace(wide, features=kernel.shape[1], use_bias=False)
            values = {"kernel": np.expand_dims(kernel, tuple(range(len(space))))}
        front = layout.front_of(network, entry, term)
        read = _read(network, term.reads, nonnegative=nonnegative)
        own = fine.get(entry.path)
        if own is None:  # a skip: its weights themselves are among the multiples
            own = float(np.abs(values["kernel"]).max()) if fine else 0.0
        return MapPlan(entry.path, layer, values, term.reads, read, front, scales[entry.path], own)

    nodes = {}
    for node in layout.nodes:
        step = graph(network)[node.step]
        assert isinstance(step, Sum)
        terms = terms_of(step)
        maps = tuple(mapped(entry, terms.pop(entry.path)) for entry in node.maps)
        for entry in maps:
            check_reach(entry.path, entry.values)
        # A skip that no layer of the source stands for is carried.
        skips = (term for term in terms.values() if isinstance(term, Skip))
        carried = tuple(zip(skips, carries[step.name], strict=True))
        need = needs[maps[0].path] if maps else 0.0
        nodes[node.step] = NodePlan(node.step, step.path, maps, carried, node.copies, need, node.groups)
    solver = _decided(solver, chosen, network)
    x = None if images is None else jnp.asarray(images[: _room(source, solver)], jnp.float32)
    seen = None if images is None else seen_on(network, balanced.params, images)
    return Plan(target, source, solver, layout, balanced, first_activation(network), nodes, x, chosen, seen)


def _decided(solver: Solver, fit: Fit, network: Network) -> Solver:
    """The solver with what its settings leave to the prediction."""
    if not isinstance(solver, Robust) or solver.noise is not None:
        return solver
    large = fit.predicted is None or fit.predicted > MEASURED
    return replace(solver, noise="measured" if large and _deep(network) else "propagated")


def _room(source: Source, solver: Solver) -> int | None:
    """Calibration images that copies are measured on; None for all of them."""
    if not getattr(solver, "measures", False):
        return None
    return max(1, ROOM // (4 * max(math.prod(shape) for shape in value_shapes(source.network))))


def _predictable(network: Network) -> bool:
    """Whether the error of the outputs is worth a prediction (`slth.construction.fit`)."""
    return is_homogeneous(network) and _deep(network)


def _deep(network: Network) -> bool:
    """Whether errors build up in it."""
    return len(sums(network)) >= DEPTH


def _steps(
    network: Network, balanced: Balanced, layers: dict[str, Params], bits: float, images: Batch
) -> dict[str, float]:
    """What the weights of each layer are rounded to multiples of."""
    kernels = {path: np.asarray(layers[path]["kernel"]) for path in linear_maps(network)}
    found = sensitivities(network, balanced.params, balanced.factor, images)
    return steps(kernels, found, bits)


def _read(target: Network, value: int, *, nonnegative: bool) -> Read:
    """How a map reads a value: flattened or not, and whether it can be negative.

    Args:
      nonnegative: whether the network's inputs cannot be.
    """
    before, flat = behind(target, value), flattening(target, value)
    if before.name or any(isinstance(layer, Activation) for layer in before.layers):
        nonnegative = is_nonnegative(target, value)
    return Read(flat.shape if flat else value_shapes(target)[value], flat and flat.layer, nonnegative)


def _needs(layout: Layout, layers: dict[str, Params], scales: dict[str, float]) -> dict[str, float]:
    """For every linear layer, the largest |bias| / scale of the layers behind it."""
    needs, largest = {}, 0.0
    for entry in reversed([entry for node in layout.nodes for entry in node.maps]):
        needs[entry.path] = largest
        bias = np.asarray(layers.get(entry.path, {}).get("bias", 0.0))
        largest = max(largest, float(np.abs(bias).max()) / scales[entry.path])
    return needs
