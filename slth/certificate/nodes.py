"""The linear nodes of a target as a ticket sees them: their maps, rows and problems, and what they read."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import correlate, mean, windows
from slth.certificate.build import carried, flattened
from slth.certificate.domain import Domain
from slth.certificate.slopes import reach
from slth.construct.layout import first_activation, output_layer
from slth.construct.scale import skip_kernel
from slth.nn.activations import ActivationInfo, activation_info
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Layer, Linear, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.source import Source, layer_scale, parameter, parameter_shapes
from slth.types import Params, Shape

IMAGES = 32
"""Inputs looked at together."""
SLACK = 1 + 1e-9
"""Far above what float64 rounds away in a sum of absolute values."""
SLACK32 = 1 + 1e-4
"""The same for means that a construction takes in float32."""
GRID = 2.0**-24
"""Scales are rounded to float32 and weights to this grid, which may take one above its layer's scale."""

Values = Float[np.ndarray, "n *shape"]
Interval = tuple[Values, Values]


class Map(NamedTuple):
    """One linear map into a node: a target layer, or a skip as the 1x1 convolution that is solved."""

    path: str
    layer: Linear
    kernel: Float[np.ndarray, "*taps cin cout"]
    scale: float
    """The source's scale of its weights."""
    sigma: float
    """Largest |v| that the source may have there; of a normal source, the largest it has."""
    raw: bool
    """Whether it reads the network's input, as the channels of the extra first layer carry it."""
    signs: int
    """Subset-sum problems of one weight: 2 for a raw input whose signs are carried by different channels."""
    offset: bool
    """Whether constants cancel something at every tap: phi(0) of the first layer, or activations' means."""

    @property
    def taps(self) -> int:
        """Taps that may meet padding; constants are exact through all others."""
        return math.prod(self.kernel.shape[:-2]) if isinstance(self.layer, Conv) else 0

    @property
    def fan_in(self) -> int:
        """D: most non-zero weights of one output."""
        return int(np.count_nonzero(self.kernel.reshape(-1, self.kernel.shape[-1]), axis=0).max())


class Node(NamedTuple):
    """A sum of linear maps that every copy of the ticket computes: a layer, or the end of a block."""

    path: str
    """Of its first map, as `slth.construct.LayerRecord` names it."""
    maps: tuple[Map, ...]
    copied: bool
    """Whether there are m copies of it: all but the outputs."""
    biases: int
    """Outputs with a bias, one problem each."""

    @property
    def problems(self) -> int:
        """Subset-sum problems of one copy; at most so many where constants cancel something tap by tap."""
        weights = sum(entry.signs * int(np.count_nonzero(entry.kernel)) for entry in self.maps)
        offsets = [entry.taps for entry in self.maps if entry.offset]
        return weights + (self.features * (1 + sum(offsets)) if offsets else self.biases)

    @property
    def features(self) -> int:
        """Outputs of the target's layer."""
        return self.maps[0].layer.features

    @property
    def scale(self) -> float:
        """The largest scale of its maps."""
        return max(entry.scale for entry in self.maps)


def centred(target: Network, source: Source) -> bool:
    """Whether a construction with images counts activations about their means, which constants carry."""
    biases = sum(path.endswith("/bias") for path in parameter_shapes(source.network))
    return biases > 1 or not _first_info(target).homogeneous


def _first_info(target: Network) -> ActivationInfo:
    act = first_activation(target)
    return activation_info(act.kind, act.slope)


def nodes_of(target: Network, params: Params, source: Source) -> tuple[Node, ...]:
    """The nodes in the order in which a ticket is constructed.

    Args:
      target, params: folded and balanced, as a construction returns it.
      source: made for this target (`slth.construct.source_network`).
    """
    info, means = _first_info(target), centred(target, source)
    signs = 1 if info.mu_plus == info.mu_minus else 2
    last = output_layer(target)
    found: list[Node] = []

    def close(entries: list[tuple[str, Linear, Params, bool]]) -> None:
        maps = tuple(
            Map(
                *(path, layer, np.asarray(values["kernel"], np.float64)),
                *(layer_scale(source, path), largest_weight(source, path), raw),
                *((signs, info.offset != 0) if raw else (1, means)),
            )
            for path, layer, values, raw in entries
        )
        biases = (np.asarray(values.get("bias", 0), np.float64) for _, _, values, _ in entries)
        bias = sum(biases, np.zeros(maps[0].layer.features))
        found.append(Node(maps[0].path, maps, maps[0].layer is not last, int(np.count_nonzero(bias))))

    def walk(
        layers: tuple[Layer, ...],
        wide: tuple[Layer, ...],
        values: Params,
        shape: Shape,
        path: str,
        raw: bool,
    ) -> bool:
        for layer, source_layer in zip(layers, wide, strict=True):
            if isinstance(layer, Conv | Dense):
                close([(f"{path}{layer.name}", layer, values[layer.name], raw)])
                raw = False
            elif isinstance(layer, Residual):
                assert isinstance(source_layer, Residual)
                own, inside, end = values[layer.name], f"{path}{layer.name}/", layer.branch[-1]
                assert isinstance(end, Conv | Dense)
                before = (layer.branch[:-1], source_layer.branch[:-1])
                inner = walk(*before, own["branch"], shape, f"{inside}branch/", raw)
                entries = [(f"{inside}branch/{end.name}", end, own["branch"][end.name], inner)]
                skip = solved_skip(layer, source_layer, own.get("skip", {}), shape)
                if skip is not None:
                    entries.append((f"{inside}skip/{skip[0].name}", *skip, raw))
                close(entries)
                raw = False
            shape = layer.output_shape(shape)
        return raw

    walk(target.layers, source.network.layers[2:], params, target.input_shape, "", True)
    return tuple(found)


def solved_skip(
    block: Residual, source_block: Residual, values: Params, shape: Shape
) -> tuple[Linear, Params] | None:
    """A block's skip as the linear layer that subset sums make of it, or None if the source carries it."""
    solved = next((layer for layer in source_block.skip if isinstance(layer, Conv | Dense)), None)
    if solved is None:
        return None
    projection = next((layer for layer in block.skip if isinstance(layer, Conv | Dense)), None)
    if projection is not None:
        return projection, values[projection.name]
    kernel = skip_kernel(block, values, shape[-1])
    layer = replace(solved, features=kernel.shape[1])
    taps = (1,) * len(layer.kernel) if isinstance(layer, Conv) else ()
    return layer, {"kernel": kernel.reshape(*taps, *kernel.shape)}


def largest_weight(source: Source, path: str) -> float:
    """sigma: a bound of the random weights |v| of the layer at ``path``."""
    if source.init.endswith("normal"):
        return float(np.abs(np.asarray(parameter(source, f"{path}/kernel"))).max())
    return layer_scale(source, path) * (1 + GRID) + GRID


def input_sums(
    target: Network,
    params: Params,
    nodes: tuple[Node, ...],
    domain: Domain,
    calibration: Values | None = None,
) -> tuple[dict[str, float], float]:
    r"""What the maps read, :math:`B \ge \sup_x \max_{j,p} \sum_{i, \tau: w_{ji\tau} \ne 0} |x_i(sp + \tau)|`.

    Exact where the domain is images; for a box or balls x is bounded by intervals, entry by entry. Where
    constants carry the mean of x, the error of a weight meets x less its mean, and the means' sum is added.

    Args:
      target, params: the balanced target.
      nodes: of `nodes_of`.
      calibration: images that the means were taken from; None where there were none.
    Returns: B by path of each map, and the largest \|x\| of an input of the domain.
    """
    domain = domain.check(target.input_shape)
    maps = {entry.path: entry for node in nodes for entry in node.maps}
    sums = dict.fromkeys(maps, 0.0)
    for start in range(0, len(domain.low), IMAGES):
        region = tuple(np.asarray(a[start : start + IMAGES], np.float64) for a in (domain.low, domain.high))
        for path, (low, high) in _reads(target.layers, params, (region[0], region[1]), maps, ""):
            if not path:
                continue
            entry = maps[path]
            size = correlate(entry.layer, np.maximum(np.abs(low), np.abs(high)), 1.0 * (entry.kernel != 0))
            sums[path] = max(sums[path], float(size.max()) * SLACK)
    if calibration is not None:
        for path, mean in _means(target, params, maps, calibration).items():
            entry = maps[path]
            if entry.offset and not entry.raw:
                read = (mean[:, None] * (entry.kernel != 0)).reshape(-1, entry.kernel.shape[-1])
                sums[path] += float(read.sum(0).max()) * SLACK32
    return sums, float(max(np.abs(domain.low).max(), np.abs(domain.high).max()))


def _means(
    target: Network, params: Params, maps: dict[str, Map], images: Values
) -> dict[str, Float[np.ndarray, " cin"]]:
    """Magnitudes of the channels' means at each map; of a dense layer, which may read several positions of a
    channel, at least these."""
    totals = {path: np.zeros(entry.kernel.shape[-2]) for path, entry in maps.items()}
    for start in range(0, len(images), IMAGES):
        x = np.asarray(images[start : start + IMAGES], np.float64)
        for path, (values, _) in _reads(target.layers, params, (x, x), maps, ""):
            if path:
                totals[path] += values.reshape(len(x), -1, values.shape[-1]).mean(1).sum(0)
    means = {path: np.abs(total) / len(images) for path, total in totals.items()}
    return {
        path: mean if isinstance(maps[path].layer, Conv) else np.full_like(mean, mean.max())
        for path, mean in means.items()
    }


def _reads(
    layers: tuple[Layer, ...], params: Params, x: Interval, maps: dict[str, Map], path: str
) -> Iterator[tuple[str, Interval]]:
    """(path, bounds of what it reads) of every map, and last ("", bounds of the outputs)."""
    for layer in layers:
        if isinstance(layer, Residual):
            inside, own = f"{path}{layer.name}/", params[layer.name]
            sides = []
            for name, side in (("branch", layer.branch), ("skip", layer.skip)):
                for found, values in _reads(side, own.get(name, {}), x, maps, f"{inside}{name}/"):
                    if found:
                        yield found, values
                    else:
                        sides.append(values)
            for found in maps:  # a parameter-free skip that the source solves
                if found.startswith(f"{inside}skip/") and not any(
                    isinstance(one, Conv | Dense) for one in layer.skip
                ):
                    yield found, x
            x = (sides[0][0] + sides[1][0], sides[0][1] + sides[1][1])
            continue
        name = getattr(layer, "name", None)
        if isinstance(layer, Conv | Dense):
            yield f"{path}{name}", x
        x = _step(layer, {} if name is None else params[name], x)
    yield "", x


def _step(layer: Layer, values: Params, x: Interval) -> Interval:
    """Bounds of a layer's outputs from those of its inputs; images (low is high) stay points."""
    low, high = x
    point = low is high or np.array_equal(low, high)
    match layer:
        case Conv() | Dense():
            kernel = np.asarray(values["kernel"], np.float64)
            bias = np.asarray(values["bias"], np.float64) if layer.use_bias else 0.0
            centre = correlate(layer, (low + high) / 2, kernel) + bias
            if point:
                return centre, centre
            radius = correlate(layer, (high - low) / 2, np.abs(kernel))
            return centre - radius, centre + radius
        case ChannelScale():
            ends = (
                low * np.asarray(values["scale"], np.float64),
                high * np.asarray(values["scale"], np.float64),
            )
            return np.minimum(*ends), np.maximum(*ends)
        case Activation():
            low, high = reach(layer, low, high)
            return (high, high) if point else (low, high)
    y = _rearranged(layer, low)
    return (y, y) if point else (y, _rearranged(layer, high))


def _rearranged(layer: Layer, x: Values) -> Values:
    """Layers that grow with every input: pooling, flattening, subsampling."""
    match layer:
        case Pool(kind="max"):
            return windows(layer, x, -np.inf).max(0)
        case Pool() | GlobalMean():
            return mean(layer, x)
        case Flatten():
            return flattened(layer, x)
        case Subsample(stride, channels):
            return carried(stride, np.array(channels), x)
    raise ValueError(f"{layer} has no place in a folded target: fold batch norm first")
