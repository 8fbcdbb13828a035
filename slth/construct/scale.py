r"""Balancing the target to fit a source that knows nothing of it.

A positively homogeneous phi lets every channel be scaled: with :math:`x'_j = d_j x_j` the network with
:math:`w'_{ji} = w_{ji} d_j / d_i` and :math:`b'_j = b_j d_j` computes the same outputs, up to
their scale :math:`1/\lambda`. Channels joined by a carried skip share one d; the input has d = 1, all
outputs share one.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Int

from slth.nn.layers import ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.source import Source, layer_scale
from slth.types import Params, Shape

SWEEPS = 60
LIMIT = np.log(1e4)
"""Scales stay within this factor of 1 (as a logarithm): a dead channel has no size to fit."""

Ids = Int[np.ndarray, " channels"]


class Edge(NamedTuple):
    """A linear layer as the balance sees it: which scales stand on its two sides, and its weights' sizes."""

    path: str
    size: Float[np.ndarray, "cin cout"]
    """log of the largest |w| over the taps, in units of the source's scale; -inf for no weight."""
    inputs: Ids
    outputs: Ids


class Balanced(NamedTuple):
    """A target scaled to fit its source: its outputs times ``factor`` (lambda) are the original's."""

    params: Params
    factor: float


def balance(target: Network, params: Params, scales: dict[str, float], *, fit: float = 1.0) -> Balanced:
    r"""Scale the channels of a homogeneous target so that its weights fit the source's scales.

    Every scale d is moved until the largest entry of its rows and the largest entry of its columns, each in
    units of their layer's source scale, are equal (Osborne's matrix balancing in the maximum norm, with the
    scales of a residual stream tied); lambda keeps the output layer's largest weight at
    about ``fit`` times its scale.

    Args:
      target, params: without batch norm; every activation positively homogeneous.
      scales: source scale of each linear layer by path; of a per-channel skip, that of
        ``"<block>/skip/skip"``.
      fit: wanted largest |w'| / scale of the output layer.
    Returns: float32 parameters and lambda.
    Source: E. E. Osborne, J. ACM 7 (1960) 338-345, for the balancing.
    """
    edges, count = _edges(target, params, scales)
    log = np.zeros(count)
    outputs = edges[-1].outputs
    groups = _groups(edges, count, fixed=(0, int(outputs[0])))
    for _ in range(SWEEPS):
        log[outputs] = np.log(fit) - (edges[-1].size - log[edges[-1].inputs][:, None]).max()
        for members, touching in groups:
            row, column = np.full(count, -np.inf), np.full(count, -np.inf)
            for edge in touching:
                size = edge.size + log[edge.outputs] - log[edge.inputs][:, None]
                np.maximum.at(row, edge.outputs, size.max(0))
                np.maximum.at(column, edge.inputs, size.max(1))
            both = np.isfinite(row[members]) & np.isfinite(column[members])
            fit_in = members[both]
            log[fit_in] += (column[fit_in] - row[fit_in]) / 2
            np.clip(log, -LIMIT, LIMIT, out=log)
    return _rescaled(params, edges, np.exp(log))


def with_target_scales(source: Source, target: Network, params: Params, share: float) -> Source:
    r"""The source with every layer's scale read off the target: s is ``share`` times its largest \|w\|.

    Layers of products (behind univariate channels) keep their proportion to the others. Such a source knows
    its target; one that does not needs `balance` alone. Scales that were asked for stay.

    Args:
      source: of L + 1 or 2L for this target.
      target, params: without batch norm.
      share: positive; 1/2 leaves the largest weight to two variables.
    """
    like = replace(source, network=target, multiplicity=1, scales=())
    flat = flatten_dict(params, sep="/")
    largest = {
        path.removesuffix("/kernel"): float(np.abs(np.asarray(kernel)).max())
        for path, kernel in flat.items()
        if path.endswith("/kernel")
    }
    read = tuple((path, share * w / layer_scale(like, path)) for path, w in largest.items() if w > 0)
    return replace(source, scales=(*source.scales, *read))


def _groups(edges: list[Edge], count: int, fixed: tuple[int, ...]) -> list[tuple[Ids, list[Edge]]]:
    """The free scales, gathered by the layers they touch: those of one group never meet in one weight."""
    touching: list[list[tuple[int, bool]]] = [[] for _ in range(count)]
    for number, edge in enumerate(edges):
        for v in np.unique(edge.outputs):
            touching[v].append((number, True))
        for v in np.unique(edge.inputs):
            touching[v].append((number, False))
    groups: dict[tuple[tuple[int, bool], ...], list[int]] = {}
    for v in range(count):
        if v not in fixed:
            groups.setdefault(tuple(touching[v]), []).append(v)
    return [
        (np.array(group), [edges[n] for n in sorted({n for n, _ in key})]) for key, group in groups.items()
    ]


def _rescaled(params: Params, edges: list[Edge], d: Float[np.ndarray, " ids"]) -> Balanced:
    flat = dict(flatten_dict(params, sep="/", keep_empty_nodes=True))
    for edge in edges:
        if (name := f"{edge.path}/kernel") in flat:
            kernel = np.asarray(flat[name], np.float64)
            flat[name] = (kernel / d[edge.inputs][:, None] * d[edge.outputs]).astype(np.float32)
        if (name := f"{edge.path}/scale") in flat:
            flat[name] = (np.asarray(flat[name], np.float64) / d[edge.inputs] * d[edge.outputs]).astype(
                np.float32
            )
        if (name := f"{edge.path}/bias") in flat:
            flat[name] = (np.asarray(flat[name], np.float64) * d[edge.outputs]).astype(np.float32)
    return Balanced(unflatten_dict(flat, sep="/"), float(1 / d[edges[-1].outputs[0]]))


def _edges(target: Network, params: Params, scales: dict[str, float]) -> tuple[list[Edge], int]:
    """The linear layers in their order, and the number of different scales; scale 0 is the input's."""
    edges: list[Edge] = []
    count = 1

    def fresh(features: int) -> Ids:
        nonlocal count
        count += features
        return np.arange(count - features, count)

    def edge(kernel: np.ndarray, scale: float, path: str, ids: Ids, out: Ids) -> None:
        with np.errstate(divide="ignore"):
            size = np.log(np.abs(kernel).reshape(-1, *kernel.shape[-2:]).max(0) / scale)
        edges.append(Edge(path, size, ids, out))

    def linear(values: Params, path: str, ids: Ids, out: Ids) -> Ids:
        edge(np.asarray(values["kernel"], np.float64), scales[path], path, ids, out)
        return out

    def walk(
        layers: tuple[Layer, ...], values: Params, shape: Shape, ids: Ids, path: str, out: Ids | None
    ) -> Ids:
        last = next((x for x in reversed(layers) if isinstance(x, Conv | Dense)), None)
        for layer in layers:
            match layer:
                case Conv() | Dense():
                    features = out if layer is last and out is not None else fresh(layer.features)
                    ids = linear(values[layer.name], f"{path}{layer.name}", ids, features)
                case Flatten(order):
                    positions = int(np.prod(shape[:-1]))
                    ids = np.tile(ids, positions) if order == "hwc" else np.repeat(ids, positions)
                case Residual():
                    ids = block(layer, values[layer.name], shape, ids, f"{path}{layer.name}/")
                case _:
                    pass
            shape = layer.output_shape(shape)
        return ids

    def block(layer: Residual, values: Params, shape: Shape, ids: Ids, path: str) -> Ids:
        features = layer.output_shape(shape)[-1]
        match layer.skip:
            case ():  # carried or solved as weights of 1: the scales at its two ends are one
                out = ids
            case (Subsample(_, channels),):
                new = fresh(features)
                out = np.array([ids[i] if i >= 0 else new[j] for j, i in enumerate(channels)])
            case (Conv() | Dense() as projection,):
                out = fresh(features)
                linear(values["skip"][projection.name], f"{path}skip/{projection.name}", ids, out)
            case skip:
                out = fresh(features)
                kernel = skip_kernel(layer, values["skip"], shape[-1])
                (weights,) = skip
                assert isinstance(weights, ChannelScale)
                edge(kernel, scales[f"{path}skip/skip"], f"{path}skip/{weights.name}", ids, out)
        walk(layer.branch, values["branch"], shape, ids, f"{path}branch/", out)
        return out

    final = fresh(1)
    output = np.repeat(final, target.output_shape[-1])
    walk(target.layers, params, target.input_shape, np.zeros(target.input_shape[-1], int), "", output)
    return edges, count


def skip_kernel(block: Residual, values: Params, cin: int) -> Float[np.ndarray, "cin cout"]:
    """A parameter-free or per-channel skip as the kernel of a 1x1 convolution."""
    match block.skip:
        case ():
            return np.eye(cin)
        case (Subsample(_, channels),):
            return np.stack([np.eye(cin)[:, i] if i >= 0 else np.zeros(cin) for i in channels], 1)
        case (ChannelScale() as scale,):
            return np.diag(np.asarray(values[scale.name]["scale"], np.float64))
    raise ValueError(f"{block.name}: a skip is at most one layer after folding, got {block.skip}")
