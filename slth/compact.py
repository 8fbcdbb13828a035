"""A masked network without the channels that its outputs do not depend on: smaller, the same function."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int

from slth.construct.prune import Channels, needed
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.types import Mask, Params, Shape

Held = Int[np.ndarray, " channels"]
"""The channels of the whole network that the compact one holds at a place, in order."""


class Compact(NamedTuple):
    """A network and its parameters, as `slth.nn.apply` takes them."""

    network: Network
    params: Params


def compact(network: Network, params: Params, mask: Mask) -> Compact:
    r"""The network :math:`f(\mathrm{mask} \odot \mathrm{params})` with its dead channels left out.

    A channel is left out where no kept weight behind it reads it, or where it is zero for every input; the
    rows and columns of the kernels go with it. Where a carried skip then joins different channels, the
    identity becomes a `Subsample` of stride 1 that says which is which. Layers keep their names; one without
    any channel left keeps a single empty one. Outputs are the same but for the order of float32 sums.

    Args:
      network: without batch norm, as every source is.
      params: the parameters, masked or not.
      mask: a tree of boolean arrays of the same structure; a bias that it does not name is not kept.
    Returns: the smaller spec and float32 NumPy arrays (kernels still hold zeros between kept weights).
    Raises: ValueError for a network with batch norm.
    """
    found = needed(network, mask)
    kept: dict[str, Any] = flatten_dict(found.mask, sep="/")
    values: dict[str, Any] = {
        path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(params, sep="/").items()
    }
    values |= {path: np.where(keep, values[path], 0) for path, keep in kept.items()}
    walk = _Walk(found.read, kept, values, {})
    inputs = np.arange(network.input_shape[-1])
    layers, _ = _compact(network.layers, inputs, network.input_shape, "", walk)
    return Compact(replace(network, layers=tuple(layers)), unflatten_dict(walk.out, sep="/"))


class _Walk(NamedTuple):
    read: dict[str, Channels]
    kept: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    out: dict[str, np.ndarray]


def _compact(
    layers: tuple[Layer, ...], held: Held, shape: Shape, path: str, walk: _Walk
) -> tuple[list[Layer], Held]:
    """The layers for a stream that holds the channels ``held``, and what the stream holds behind them."""
    out: list[Layer] = []
    for layer in layers:
        match layer:
            case Conv() | Dense():
                made, held = _linear(layer, held, f"{path}{layer.name}", walk)
                out.append(made)
            case Residual():
                wanted = _indices(walk.read[f"{path}{layer.name}"])
                parts = {}
                for part in ("branch", "skip"):
                    inside = f"{path}{layer.name}/{part}/"
                    inner, has = _compact(getattr(layer, part), held, shape, inside, walk)
                    parts[part] = tuple(_joined(inner, has, wanted, len(shape) - 1))
                out.append(replace(layer, **parts))
                held = wanted
            case Flatten(order):
                held = _features(held, shape, order)
                out.append(layer)
            case Subsample(stride, channels):
                place = {channel: at for at, channel in enumerate(held)}
                fed = [(j, place[i]) for j, i in enumerate(channels) if i in place] or [(0, -1)]
                held = np.array([j for j, _ in fed])
                out.append(Subsample(stride, tuple(at for _, at in fed)))
            case ChannelScale(name):
                walk.out[f"{path}{name}/scale"] = walk.values[f"{path}{name}/scale"][held]
                out.append(layer)
            case BatchNorm(name):
                raise ValueError(f"{path}{name}: fold batch norm before a network is made compact")
            case _:
                out.append(layer)
        shape = layer.output_shape(shape)
    return out, held


def _linear(layer: Conv | Dense, held: Held, path: str, walk: _Walk) -> tuple[Conv | Dense, Held]:
    """The layer from the channels held to those that are read; its bias goes if no entry of it is kept."""
    columns = _indices(walk.read[path])
    walk.out[f"{path}/kernel"] = walk.values[f"{path}/kernel"][..., held, :][..., columns]
    biased = layer.use_bias and bool(walk.kept[f"{path}/bias"][columns].any())
    if biased:
        walk.out[f"{path}/bias"] = walk.values[f"{path}/bias"][columns]
    return replace(layer, features=len(columns), use_bias=biased), columns


def _indices(read: Channels) -> Held:
    """The channels that are read; the first one, which then holds zero, where none is."""
    return np.flatnonzero(read) if read.any() else np.zeros(1, int)


def _joined(layers: list[Layer], held: Held, wanted: Held, rank: int) -> list[Layer]:
    """The layers with their channels brought to those that a block's sum has; an absent one is zero."""
    if np.array_equal(held, wanted):
        return layers
    place = {channel: at for at, channel in enumerate(held)}
    channels = tuple(place.get(channel, -1) for channel in wanted)
    if layers and isinstance(before := layers[-1], Subsample):
        channels = tuple(before.channels[at] if at >= 0 else -1 for at in channels)
        return [*layers[:-1], Subsample(before.stride, channels)]
    return [*layers, Subsample((1,) * rank, channels)]


def _features(held: Held, shape: Shape, order: str) -> Held:
    """Places of the channels held in the flattened stream of the whole network."""
    channels, positions = shape[-1], int(np.prod(shape[:-1]))
    if order == "hwc":
        return (np.arange(positions)[:, None] * channels + held[None, :]).reshape(-1)
    return (held[:, None] * positions + np.arange(positions)[None, :]).reshape(-1)
