"""Masks without dead ends: a channel that nothing reads keeps no weights, and none reads a silent one."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Bool, Int

from slth.nn.activations import activation_info
from slth.nn.layers import Activation, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Subsample
from slth.types import Mask, Shape

Channels = Bool[np.ndarray, " channels"]
States = Int[np.ndarray, " channels"]
SILENT, CONSTANT, VARYING = 0, 1, 2
"""What a channel holds: zero, the same for every input (not the same at every position), or neither."""


def prune(network: Network, mask: Mask) -> Mask:
    """The smallest mask with the same outputs that differs from ``mask`` by whole channels' rows and columns.

    Forward: a channel with no kept weight into it (and none carried to it) is silent wherever phi(0) = 0;
    weights that read it are dropped. Backward: a channel that no kept weight reads (and no skip carries on)
    is dead; weights into it are dropped. Both exact. A bias that the mask does not name is dropped.
    """
    flat = _flat(network, mask)
    _forward(network.layers, flat, "", _inputs(network), network.input_shape, {})
    _backward(network.layers, flat, "", _outputs(network), network.input_shape, {})
    return unflatten_dict(flat, sep="/")


def read_channels(network: Network, mask: Mask) -> dict[str, Channels]:
    """For every linear layer by path, which of its output channels some kept weight behind it reads.

    The last layer of a branch stands for the block's sum. All outputs of the network are read.
    """
    flat = _flat(network, mask)
    reads: dict[str, Channels] = {}
    _backward(network.layers, flat, "", _outputs(network), network.input_shape, reads)
    return {path: read for path, read in reads.items() if f"{path}/kernel" in flat}


class Needed(NamedTuple):
    """What of a pruned network its outputs depend on."""

    mask: Mask
    """The pruned mask."""
    read: dict[str, Channels]
    """For every linear layer and, by its own path, every block's sum: channels that are read and not silent
    to every reader."""
    state: dict[str, States]
    """For the same, whether the channel (before its activation) is `SILENT`, `CONSTANT` or `VARYING`."""


def needed(network: Network, mask: Mask) -> Needed:
    """The channels that cannot be left out; a carried skip does not ask for one that holds nothing."""
    flat = _flat(network, prune(network, mask))
    states: dict[str, States] = {}
    reads: dict[str, Channels] = {}
    _forward(network.layers, flat, "", _inputs(network), network.input_shape, states)
    _backward(network.layers, flat, "", _outputs(network), network.input_shape, reads, states)
    return Needed(unflatten_dict(flat, sep="/"), reads, {path: states[path] for path in reads})


class ChannelCounts(NamedTuple):
    """Hidden channels of a network: outputs of its linear layers but the last, a block's sum counted once."""

    channels: int
    kept: int
    """Those that the outputs depend on."""
    constants: int
    """Those of the kept ones whose value does not depend on the input."""


def count_channels(network: Network, mask: Mask) -> ChannelCounts:
    """How many hidden channels of the masked network there are, remain, and are constant."""
    found = needed(network, mask)
    hidden = list(_linear(network.layers, ""))[:-1]
    return ChannelCounts(
        sum(found.read[path].size for path in hidden),
        sum(int(found.read[path].sum()) for path in hidden),
        sum(int((found.read[path] & (found.state[path] != VARYING)).sum()) for path in hidden),
    )


def _linear(layers: tuple[Layer, ...], path: str) -> Iterator[str]:
    """Paths of what adds channels: linear layers, and for a branch's last one the block's sum."""
    for layer in layers:
        if isinstance(layer, Residual):
            inner = list(_linear(layer.branch, f"{path}{layer.name}/branch/"))
            yield from inner[:-1]
            yield f"{path}{layer.name}"
        elif isinstance(layer, Conv | Dense):
            yield f"{path}{layer.name}"


def _flat(network: Network, mask: Mask) -> dict[str, np.ndarray]:
    """Copies of the mask's arrays by path, and empty ones for the biases that it does not name."""
    flat = {path: np.array(values) for path, values in flatten_dict(mask, sep="/").items()}

    def fill(layers: tuple[Layer, ...], path: str) -> None:
        for layer in layers:
            if isinstance(layer, Residual):
                fill(layer.branch, f"{path}{layer.name}/branch/")
                fill(layer.skip, f"{path}{layer.name}/skip/")
            elif isinstance(layer, Conv | Dense) and layer.use_bias:
                flat.setdefault(f"{path}{layer.name}/bias", np.zeros(layer.features, bool))

    fill(network.layers, "")
    return flat


def _inputs(network: Network) -> States:
    return np.full(network.input_shape[-1], VARYING)


def _outputs(network: Network) -> Channels:
    return np.ones(network.output_shape[-1], bool)


def _forward(
    layers: tuple[Layer, ...],
    masks: dict[str, np.ndarray],
    path: str,
    state: States,
    shape: Shape,
    states: dict[str, States],
) -> States:
    """What the channels hold behind ``layers``; a flattened stream counts features. Fills ``states``: of
    linear layers and blocks by path, and of what goes into a block by "<path>/"."""
    for layer in layers:
        match layer:
            case Conv() | Dense():
                kernel = masks[f"{path}{layer.name}/kernel"]
                kernel &= (state > SILENT)[:, None]
                out = np.zeros(kernel.shape[-1], int)
                for level in (CONSTANT, VARYING):
                    reads = kernel[..., state == level, :].reshape(-1, kernel.shape[-1]).any(0)
                    out[reads] = level
                bias = masks.get(f"{path}{layer.name}/bias")
                state = out if bias is None else np.maximum(out, CONSTANT * bias)
                states[f"{path}{layer.name}"] = state
            case Residual():
                inside = f"{path}{layer.name}/"
                states[inside] = state
                branch = _forward(layer.branch, masks, f"{inside}branch/", state, shape, states)
                skip = _forward(layer.skip, masks, f"{inside}skip/", state, shape, states)
                state = states[f"{path}{layer.name}"] = np.maximum(branch, skip)
            case Activation(kind, slope) if activation_info(kind, slope).offset != 0:
                state = np.maximum(state, CONSTANT)
            case Flatten(order):
                state = _spread(state, order, int(np.prod(shape[:-1])))
            case Subsample(_, channels):
                state = np.array([state[i] if i >= 0 else SILENT for i in channels])
            case _:
                pass
        shape = layer.output_shape(shape)
    return state


def _spread(channels: States, order: str, positions: int) -> States:
    return np.tile(channels, positions) if order == "hwc" else np.repeat(channels, positions)


def _backward(
    layers: tuple[Layer, ...],
    masks: dict,
    path: str,
    read: Channels,
    shape: Shape,
    reads: dict[str, Channels],
    states: dict[str, States] | None = None,
) -> Channels:
    """Which channels at the front of ``layers`` are read, given those read behind them; fills ``reads``.

    With ``states`` of the forward pass, a skip does not read what is silent at its block's input.
    """
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
                inside = f"{path}{layer.name}/"
                reads[f"{path}{layer.name}"] = read
                branch = _backward(layer.branch, masks, f"{inside}branch/", read, before, reads, states)
                skip = _backward(layer.skip, masks, f"{inside}skip/", read, before, reads, states)
                if states is not None:
                    skip = skip & (states[inside] > SILENT)
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
