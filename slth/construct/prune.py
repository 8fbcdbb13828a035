"""Masks without dead ends: a channel that nothing reads keeps no weights, and none reads a silent one."""

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool

from slth.nn.activations import activation_info
from slth.nn.layers import Activation, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.types import Mask, Shape

Channels = Bool[np.ndarray, " channels"]


def prune(network: Network, mask: Mask) -> Mask:
    """The smallest mask with the same outputs that differs from ``mask`` by whole channels' rows and columns.

    Forward: a channel with no kept weight into it (and none carried to it) is silent wherever phi(0) = 0;
    weights that read it are dropped. Backward: a channel that no kept weight reads (and no skip carries on)
    is dead; weights into it are dropped. Both exact.
    """
    flat = {path: np.array(values) for path, values in flatten_dict(mask, sep="/").items()}
    _forward(network.layers, flat, "", np.ones(network.input_shape[-1], bool), network.input_shape)
    _backward(network.layers, flat, "", np.ones(network.output_shape[-1], bool), network.input_shape, {})
    return unflatten_dict(flat, sep="/")


def read_channels(network: Network, mask: Mask) -> dict[str, Channels]:
    """For every linear layer by path, which of its output channels some kept weight behind it reads.

    The last layer of a branch stands for the block's sum. All outputs of the network are read.
    """
    flat = {path: np.array(values) for path, values in flatten_dict(mask, sep="/").items()}
    reads: dict[str, Channels] = {}
    _backward(network.layers, flat, "", np.ones(network.output_shape[-1], bool), network.input_shape, reads)
    return reads


def _forward(layers: tuple[Layer, ...], masks: dict, path: str, alive: Channels, shape: Shape) -> Channels:
    """Which channels can be non-zero; a flattened stream counts features."""
    for layer in layers:
        match layer:
            case Conv() | Dense():
                kernel = masks[f"{path}{layer.name}/kernel"]
                kernel &= alive[:, None]
                alive = kernel.reshape(-1, kernel.shape[-1]).any(0)
                bias = masks.get(f"{path}{layer.name}/bias")
                alive = alive if bias is None else alive | bias
            case Residual():
                branch = _forward(layer.branch, masks, f"{path}{layer.name}/branch/", alive, shape)
                alive = branch | _forward(layer.skip, masks, f"{path}{layer.name}/skip/", alive, shape)
            case Activation(kind, slope) if activation_info(kind, slope).offset != 0:
                alive = np.ones_like(alive)
            case Flatten(order):
                alive = _spread(alive, order, int(np.prod(shape[:-1])))
            case Subsample(_, channels):
                alive = np.array([i >= 0 and alive[i] for i in channels])
            case _:
                pass
        shape = layer.output_shape(shape)
    return alive


def _spread(channels: Channels, order: str, positions: int) -> Channels:
    return np.tile(channels, positions) if order == "hwc" else np.repeat(channels, positions)


def _backward(
    layers: tuple[Layer, ...],
    masks: dict,
    path: str,
    read: Channels,
    shape: Shape,
    reads: dict[str, Channels],
) -> Channels:
    """Which channels at the front of ``layers`` are read, given those read behind them; fills ``reads``."""
    shapes = [shape]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
    for layer, before in zip(reversed(layers), reversed(shapes[:-1]), strict=True):
        match layer:
            case Conv() | Dense():
                kernel = masks[f"{path}{layer.name}/kernel"]
                reads[f"{path}{layer.name}"] = read
                kernel &= read
                if (bias := masks.get(f"{path}{layer.name}/bias")) is not None:
                    bias &= read
                read = kernel.any(-1).reshape(-1, kernel.shape[-2]).any(0)
            case Residual():
                branch = _backward(layer.branch, masks, f"{path}{layer.name}/branch/", read, before, reads)
                skip = _backward(layer.skip, masks, f"{path}{layer.name}/skip/", read, before, reads)
                read = branch | skip
            case Flatten(order):
                positions, channels = int(np.prod(before[:-1])), before[-1]
                read = read.reshape((positions, channels) if order == "hwc" else (channels, positions))
                read = np.asarray(read.any(0 if order == "hwc" else 1))
            case Subsample(_, channels):
                used = np.zeros(before[-1], bool)
                used[[i for i, wanted in zip(channels, read, strict=True) if i >= 0 and wanted]] = True
                read = used
            case _:
                pass
    return read
