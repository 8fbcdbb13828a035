r"""Balancing the target to fit a source that knows nothing of it.

A positively homogeneous phi lets every channel be scaled: with :math:`x'_j = d_j x_j` the network with
:math:`w'_{ji} = w_{ji} d_j / d_i` and :math:`b'_j = b_j d_j` computes the same outputs, up to
their scale :math:`1/\lambda`. Channels joined by a carried skip share one d; the input has d = 1, all
outputs share one. A channel that enters an activation which is not positively homogeneous has d = 1, and so
have the outputs of a network that holds such an activation.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slth.nn.activations import activation_info
from slth.nn.graph import Join, Map, Skip, Sum, by_layer, graph, is_homogeneous, nested, sums, value_shapes
from slth.nn.layers import Activation, ChannelScale
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.source.layout import SKIP
from slth.types import Params

SWEEPS = 60
LIMIT = np.log(1e4)
"""Largest |log d|; without it the scale of a channel without weights would diverge."""

Ids = Int[np.ndarray, " _"]


class Edge(NamedTuple):
    """A linear map as the balance sees it: which scales stand on its two sides, and its weights' sizes."""

    path: str
    size: Float[np.ndarray, "rows cout"]
    """log of the largest |w| over the taps, in units of the source's scale; -inf for no weight."""
    inputs: Int[np.ndarray, "rows _"]
    """One column where all outputs read the same inputs."""
    outputs: Ids


class Balanced(NamedTuple):
    """A target scaled to fit its source: its outputs times ``factor`` (lambda) are the original's."""

    params: Params
    factor: float
    scales: dict[str, Float[np.ndarray, " cout"]]
    """d of each node's outputs, by its path."""


def balance(target: Network, params: Params, scales: dict[str, float], *, fit: float = 1.0) -> Balanced:
    r"""Scale the channels of a target so that its weights fit the source's scales.

    Every free scale d is moved until the largest entry of its rows and the largest entry of its columns are
    equal, each in units of their layer's source scale: Osborne's matrix balancing in the maximum norm, where
    channels that a skip joins share one scale. lambda keeps the output layer's largest weight at about
    ``fit`` times its scale.

    Args:
      target, params: without batch norm.
      scales: source scale of each linear layer by path; of a per-channel skip, that of
        ``"<block>/skip/skip"``.
      fit: largest |w'| / scale of the output layer to aim at.
    Returns: float32 parameters, lambda (1 where some activation is not positively homogeneous) and d.

    Example:
      >>> import jax
      >>> from slth import construction, nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> params = nn.init(network, jax.random.key(0))
      >>> balanced = construction.balance(network, params, {"a": 1.0, "b": 1.0})
      >>> x = jax.numpy.ones((1, 4))
      >>> same = balanced.factor * nn.apply(network, balanced.params, x) - nn.apply(network, params, x)
      >>> bool(abs(same).max() < 1e-5), sorted(balanced.scales)
      (True, ['a', 'b'])

    Source: E. E. Osborne, J. ACM 7 (1960) 338-345, for the balancing.
    """
    edges, nodes, fixed = _ties(target, params, scales)
    count = 1 + max(int(ids.max()) for ids in nodes.values())
    log = np.zeros(count)
    output = int(edges[-1].outputs[0])
    groups = _groups(edges, count, fixed=fixed | {0, output})
    for _ in range(SWEEPS):
        if output not in fixed:
            log[output] = np.log(fit) - (edges[-1].size - log[edges[-1].inputs]).max()
        for members, touching in groups:
            row, column = np.full(count, -np.inf), np.full(count, -np.inf)
            for edge in touching:
                size = edge.size + log[edge.outputs] - log[edge.inputs]
                np.maximum.at(row, edge.outputs, size.max(0))
                shared = edge.inputs.shape[1] == 1
                np.maximum.at(column, edge.inputs, size.max(1, keepdims=True) if shared else size)
            both = np.isfinite(row[members]) & np.isfinite(column[members])
            movable = members[both]
            log[movable] += (column[movable] - row[movable]) / 2
            np.clip(log, -LIMIT, LIMIT, out=log)
    d = np.exp(log)
    scaled = _rescaled(params, edges, d)
    return Balanced(scaled, float(1 / d[output]), {path: d[ids] for path, ids in nodes.items()})


def _groups(edges: list[Edge], count: int, fixed: set[int]) -> list[tuple[Ids, list[Edge]]]:
    """The free scales, gathered by the layers they touch: those of one group never meet in one weight."""
    touched = np.zeros((count, len(edges), 2), bool)
    for number, edge in enumerate(edges):
        touched[edge.inputs, number, 0] = touched[edge.outputs, number, 1] = True
    groups: dict[bytes, list[int]] = {}
    for v in range(count):
        if v not in fixed:
            groups.setdefault(touched[v].tobytes(), []).append(v)
    return [
        (np.array(group), [edges[number] for number in np.flatnonzero(touched[group[0]].any(1))])
        for group in groups.values()
    ]


def _rescaled(params: Params, edges: list[Edge], d: Float[np.ndarray, " ids"]) -> Params:
    layers = by_layer(params)
    for edge in edges:
        before, behind = d[edge.inputs], d[edge.outputs]
        divisor = {"kernel": before, "scale": before[:, 0], "bias": 1.0}
        layers[edge.path] = {
            name: (np.asarray(value, np.float64) / divisor[name] * behind).astype(np.float32)
            for name, value in layers[edge.path].items()
        }
    return nested(layers)


def _ties(
    target: Network, params: Params, scales: dict[str, float]
) -> tuple[list[Edge], dict[str, Ids], set[int]]:
    """Which channels have which scale; scale 0 is the input's.

    Returns: the linear maps in order, the scales of each node's outputs by its path, and those that stay 1.
    """
    layers, shapes = by_layer(params), value_shapes(target)
    edges: list[Edge] = []
    own = _numbers(target)
    fixed = set() if is_homogeneous(target) else {int(own[sums(target)[-1].name][0])}
    values: list[Ids] = [np.zeros(target.input_shape[-1], int)]
    nodes: dict[str, Ids] = {}
    ties: list[Int[np.ndarray, "2 _"]] = []
    for step in graph(target):
        if isinstance(step, Join):
            values.append(np.concatenate([values[value] for value in step.reads]))
            continue
        if not isinstance(step, Sum):
            ids = values[step.value]
            match step.layer:
                case Flatten() | Subsample() as layer:
                    source = layer.sources(shapes[step.value])
                    ids = np.where(source >= 0, ids[source], 0)  # what is zero has any scale
                case Activation(kind, slope) if not activation_info(kind, slope).homogeneous:
                    fixed |= set(ids.tolist())
            values.append(ids)
            continue
        ids = own[step.name]
        for skip in step.skips:  # carried, or solved as weights of 1: the scales at its two ends are one
            if skip.layer is None:
                joined, ids = ids, values[skip.reads]
            elif isinstance(skip.layer, Subsample):
                source = skip.layer.sources(shapes[skip.reads])
                joined, ids = ids, np.where(source >= 0, values[skip.reads][source], ids)
            else:
                continue
            if skip is not step.skips[0]:  # and so are those of a carried branch
                ties.append(np.stack([joined, ids]))
        terms = [
            (skip, skip_kernel(skip, layers, step.features), scales[f"{step.name}/skip/{SKIP}"])
            for skip in step.skips
            if isinstance(skip.layer, ChannelScale)
        ]
        terms += [(entry, layers[entry.path]["kernel"], scales[entry.path]) for entry in step.maps]
        for term, kernel, scale in terms:
            largest = np.abs(np.asarray(kernel, np.float64)).reshape(-1, *kernel.shape[-2:]).max(0)
            with np.errstate(divide="ignore"):
                size = np.log(largest / scale)
            before = values[term.reads]
            index = (
                term.layer.inputs(len(before)) if isinstance(term, Map) else np.arange(len(before))[:, None]
            )
            edges.append(Edge(term.path, size, before[index], ids))
        values.append(ids)
        nodes[step.path] = ids
    if not ties:
        return edges, nodes, fixed
    one = _joined(1 + max(int(ids.max()) for ids in nodes.values()), np.concatenate(ties, 1))
    edges = [edge._replace(inputs=one[edge.inputs], outputs=one[edge.outputs]) for edge in edges]
    return edges, {path: one[ids] for path, ids in nodes.items()}, set(one[list(fixed)].tolist())


def _joined(count: int, ties: Int[np.ndarray, "2 _"]) -> Ids:
    """For each scale the least one that it is tied to, directly or by others."""
    least = np.arange(count)
    while True:
        lower = least[ties].min(0)
        before = least.copy()
        for side in ties:
            np.minimum.at(least, side, lower)
        if (least == before).all():
            return least


def _numbers(target: Network) -> dict[str, Ids]:
    """Scales of each node, by name, as if it had scales of its own.

    The end of a block is numbered before the layers inside. Balancing goes through the scales in this order,
    so the order is part of every ticket's bits.
    """
    order: list[Sum] = []
    for step in sums(target):
        inside = (at for at, other in enumerate(order) if other.name.startswith(f"{step.name}/"))
        order.insert(next(inside, len(order)), step)
    last = sums(target)[-1]
    numbers = {last.name: np.full(last.features, 1)}
    count = 2
    for step in order:
        if step is not last:
            numbers[step.name] = np.arange(count, count + step.features)
            count += step.features
    return numbers


def skip_kernel(skip: Skip, layers: dict[str, Params], cin: int) -> Float[np.ndarray, "cin cout"]:
    """A skip as the kernel of a 1x1 convolution: ones, or a factor for each channel.

    Args:
      layers: the target's parameters by path (`slth.nn.by_layer`).
      cin: channels of the value that the skip reads.
    """
    match skip.layer:
        case Subsample(_, channels):
            return np.where(np.array(channels) >= 0, np.eye(cin)[:, channels], 0)
        case ChannelScale():
            return np.diag(np.asarray(layers[skip.path]["scale"], np.float64))
    return np.eye(cin)
