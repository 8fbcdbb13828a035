"""What the linear maps of a target read over a domain: the B of Theorem 2."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from slth.certificate.arithmetic import correlate, mean, windows
from slth.certificate.build import carried, flattened
from slth.certificate.domain import Domain
from slth.certificate.nodes import Map, Node
from slth.certificate.slopes import reach
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.types import Params

IMAGES = 32
"""Inputs looked at together."""
SLACK = 1 + 1e-9
"""Far above what float64 rounds away in a sum of absolute values."""
SLACK32 = 1 + 1e-4
"""The same for means that a construction takes in float32."""

Values = Float[np.ndarray, "n *shape"]
Interval = tuple[Values, Values]


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
