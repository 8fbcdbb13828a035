"""A network evaluator in NumPy and float64, written from the layers' formulas: loops, and no JAX."""

from collections.abc import Iterator

import numpy as np

from slth.nn.layers import Activation, BatchNorm, ChannelScale, Concat, Conv, Dense, Residual
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from tests.nn.functions import phi


def forward(network, params, x):
    """Every named layer's output by its path (a block's own: its sum), and the network's under ""."""
    values = {}
    values[""] = run(network.layers, params, np.asarray(x, np.float64), values)
    return values


def run(layers, params, x, values=None, path=""):
    values = {} if values is None else values
    for layer in layers:
        name = getattr(layer, "name", None)
        own = params.get(name, {})
        if isinstance(layer, Residual):
            inside = f"{path}{name}/"
            branch = run(layer.branch, own.get("branch", {}), x, values, f"{inside}branch/")
            x = branch + run(layer.skip, own.get("skip", {}), x, values, f"{inside}skip/")
        elif isinstance(layer, Concat):
            inside = f"{path}{name}/"
            parts = [
                run(part, own.get(str(k), {}), x, values, f"{inside}{k}/")
                for k, part in enumerate(layer.parts)
            ]
            x = np.concatenate(parts, -1)
        else:
            x = one(layer, own, x)
        if name is not None:
            values[path + name] = x
    return x


def one(layer, own, x):
    own = {key: np.asarray(value, np.float64) for key, value in own.items()}
    match layer:
        case Conv() | Dense():
            y = linear(layer, own["kernel"], x)
            return y + own["bias"] if layer.use_bias else y
        case BatchNorm(epsilon=epsilon):
            return (x - own["mean"]) / np.sqrt(own["var"] + epsilon) * own["scale"] + own["bias"]
        case ChannelScale():
            return x * own["scale"]
        case Activation(kind, slope):
            return phi(kind, slope, x)
        case Pool():
            return pool(layer, x)
        case GlobalMean():
            return x.reshape(len(x), -1, x.shape[-1]).mean(1)
        case GlobalMax():
            return x.reshape(len(x), -1, x.shape[-1]).max(1)
        case Upsample(factor):
            places = np.stack(
                np.meshgrid(
                    *(np.arange(n * f) // f for n, f in zip(x.shape[1:], factor, strict=False)), indexing="ij"
                )
            )
            return x[(slice(None), *places)]
        case Flatten(order):
            return np.stack([flat(image, order) for image in x])
        case Subsample(stride, channels):
            thin = x[(slice(None), *(slice(None, None, s) for s in stride))]
            return np.stack([thin[..., c] if c >= 0 else 0 * thin[..., 0] for c in channels], -1)
    raise AssertionError(layer)


def flat(image, order):
    """All entries of (*space, c) in one axis."""
    if order == "hwc":
        return np.array(
            [image[place][c] for place in np.ndindex(image.shape[:-1]) for c in range(image.shape[-1])]
        )
    return np.array(
        [image[place][c] for c in range(image.shape[-1]) for place in np.ndindex(image.shape[:-1])]
    )


def linear(layer, kernel, x):
    """A convolution or dense layer without its bias; ``kernel`` may have other channels than the layer's."""
    if isinstance(layer, Dense):
        return x @ kernel
    if layer.groups > 1:
        return by_output(layer, kernel, x)
    x = np.pad(x, ((0, 0), *layer.padding, (0, 0)))
    out = [
        len(range(0, size - d * (taps - 1), s))
        for size, taps, s, d in zip(x.shape[1:], layer.kernel, layer.stride, layer.dilation, strict=False)
    ]
    y = np.zeros((len(x), *out, kernel.shape[-1]))
    for place in np.ndindex(*out):
        for tap in np.ndindex(*layer.kernel):
            at = [s * p + d * t for s, p, d, t in zip(layer.stride, place, layer.dilation, tap, strict=True)]
            y[(slice(None), *place)] += x[(slice(None), *at)] @ kernel[tap]
    return y


def by_output(layer, kernel, x):
    """A convolution of several groups, one output after the other, each of the channels of its group."""
    inputs, outputs = layer.beside
    each, share = (x.shape[-1] - inputs) // layer.groups, (layer.features - outputs) // layer.groups
    alone = Conv("alone", 1, layer.kernel, layer.stride, layer.padding, layer.dilation)
    found = []
    for j in range(layer.features):
        group = min(j // share, layer.groups - 1)
        read = [*range(group * each, (group + 1) * each), *range(x.shape[-1] - inputs, x.shape[-1])]
        found.append(linear(alone, kernel[..., j : j + 1], x[..., read]))
    return np.concatenate(found, -1)


def pool(layer, x):
    out = layer.output_shape(x.shape[1:])[:-1]
    y = np.zeros((len(x), *out, x.shape[-1]))
    for place in np.ndindex(*out):
        starts = [s * p - pad[0] for s, p, pad in zip(layer.stride, place, layer.padding, strict=True)]
        window = tuple(
            slice(max(start, 0), min(start + length, size))
            for start, length, size in zip(starts, layer.window, x.shape[1:], strict=False)
        )
        inside = x[(slice(None), *window)].reshape(len(x), -1, x.shape[-1])
        if layer.kind == "max":
            y[(slice(None), *place)] = inside.max(1)
        else:
            count = inside.shape[1]
            if layer.count_padding:
                ends = [n + pad[1] for n, pad in zip(x.shape[1:], layer.padding, strict=False)]
                count = np.prod(
                    [min(a + n, end) - a for a, n, end in zip(starts, layer.window, ends, strict=True)]
                )
            y[(slice(None), *place)] = inside.sum(1) / count
    return y


def leaves(tree, path="") -> Iterator[tuple[str, np.ndarray]]:
    """(path, array) of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}/")
        else:
            yield path + key, np.asarray(value)


def masked(mask, params):
    """The kept parameters, float64; zero elsewhere."""
    return {
        key: masked(mask[key], value)
        if isinstance(value, dict)
        else np.where(mask[key], np.asarray(value), 0.0)
        for key, value in params.items()
    }
