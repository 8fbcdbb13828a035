"""Channels chosen or re-ordered, and every s-th position, said by convolutions where a target needs them so.

A target has a `slth.nn.Subsample` last in a skip alone. Everywhere else its choice goes into the linear layer
behind it, or becomes a 1x1 convolution of ones and zeros; both are exact.
"""

import logging
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from slth.nn.layers import Block, Concat, Conv, Dense, Layer, Linear, Residual
from slth.nn.network import Network
from slth.nn.pooling import Subsample
from slth.types import Params, Shape

LOG = logging.getLogger(__name__)
LARGEST = 2**22
"""Numbers of a kernel of ones and zeros."""


class Said(NamedTuple):
    """Layers and their parameters."""

    layers: tuple[Layer, ...]
    params: Params


def without_selections(network: Network, params: Params) -> tuple[Network, Params]:
    """The same network with a `Subsample` last in skips only.

    Raises: ValueError where a kernel of ones and zeros would be larger than any that is made.

    Example:
      >>> import numpy as np
      >>> from slth import nn
      >>> from slth.interop.selections import without_selections
      >>> network = nn.Network((4,), (nn.Subsample((), (2, 0)), nn.Dense("a", 1, use_bias=False)))
      >>> network, params = without_selections(network, {"a": {"kernel": np.array([[5.0], [7.0]])}})
      >>> network.layers, params["a"]["kernel"].ravel().tolist()
      ((Dense(name='a', features=1, use_bias=False),), [7.0, 0.0, 5.0, 0.0])
    """
    said = _sequence(network.layers, params, network.input_shape)
    return replace(network, layers=said.layers), said.params


def _sequence(layers: tuple[Layer, ...], params: Params, shape: Shape, *, skip: bool = False) -> Said:
    out: list[Layer] = []
    made: Params = {}
    waiting: Subsample | None = None  # goes into the layer that follows
    layers = _merged(layers)
    for number, layer in enumerate(layers, start=1):
        after = layers[number] if number < len(layers) else None
        following = layer.output_shape(shape)
        name = getattr(layer, "name", "")
        own = params.get(name, {})
        if isinstance(layer, Subsample) and not (skip and after is None):
            if _takes(after, layer):
                waiting, shape_before, shape = layer, shape, following
                continue
            layer, own = _chosen(layer, shape, {*map(str, params), *made})
            name = layer.name
        elif isinstance(layer, Residual | Concat):
            layer, own = _block(layer, own, shape)
        elif waiting is not None and isinstance(layer, Conv | Dense):
            layer, own = _behind(waiting, layer, own, shape_before[-1])
            waiting = None
        out.append(layer)
        if own:
            made[name] = own
        shape = following
    return Said(tuple(out), made)


def _merged(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers with choices that follow each other made one."""
    out: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Subsample) and out and isinstance(before := out[-1], Subsample):
            stride = tuple(a * b for a, b in zip(before.stride, layer.stride, strict=True))
            channels = tuple(-1 if j < 0 else before.channels[j] for j in layer.channels)
            out[-1] = Subsample(stride, channels)
        else:
            out.append(layer)
    return tuple(out)


def _block(block: Block, params: Params, shape: Shape) -> tuple[Block, Params]:
    sides = {
        side: _sequence(inner, params.get(side, {}), shape, skip=side == "skip")
        for side, inner in block.sides.items()
    }
    held = {side: said.params for side, said in sides.items() if said.params}
    if isinstance(block, Concat):
        return replace(block, parts=tuple(said.layers for said in sides.values())), held
    return replace(block, branch=sides["branch"].layers, skip=sides["skip"].layers), held


def _takes(layer: Layer | None, selection: Subsample) -> bool:
    """Whether a layer takes the choice before it into its kernel."""
    if isinstance(layer, Conv):
        pointwise = math.prod(layer.kernel) == 1 and not any(map(any, layer.padding))
        return layer.groups == 1 and (pointwise or set(selection.stride) == {1})
    return isinstance(layer, Dense)


def _behind(selection: Subsample, layer: Linear, params: Params, cin: int) -> tuple[Linear, Params]:
    """A linear layer that reads what the selection reads."""
    kernel, channels = np.asarray(params["kernel"]), np.array(selection.channels)
    _check_size(kernel.size // len(channels) * cin)
    whole = np.zeros((*kernel.shape[:-2], cin, kernel.shape[-1]), kernel.dtype)
    held = channels >= 0
    np.add.at(np.moveaxis(whole, -2, 0), channels[held], np.moveaxis(kernel, -2, 0)[held])
    if isinstance(layer, Conv):
        stride = tuple(a * b for a, b in zip(layer.stride, selection.stride, strict=True))
        layer = replace(layer, stride=stride)
    return layer, {**params, "kernel": whole}


def _chosen(selection: Subsample, shape: Shape, taken: set[str]) -> tuple[Linear, Params]:
    """The selection as a layer of ones and zeros, a depthwise one where all channels stay as they are."""
    cin, cout = shape[-1], len(selection.channels)
    names = (f"select_{number}" for number in range(1, len(taken) + 2))
    name, ones = next(one for one in names if one not in taken), (1,) * (len(shape) - 1)
    alone = bool(ones) and selection.channels == tuple(range(cin))
    _check_size(cout if alone else cin * cout)
    matrix = np.zeros((1 if alone else cin, cout), np.float32)
    for j, i in enumerate(selection.channels):
        if i >= 0:
            matrix[0 if alone else i, j] = 1
    LOG.info(
        "%s: channels or positions are chosen by a convolution of ones and zeros, %d to %d", name, cin, cout
    )
    kernel = {"kernel": matrix.reshape(*ones, *matrix.shape)}
    if not ones:
        return Dense(name, cout, use_bias=False), kernel
    return Conv(name, cout, ones, selection.stride, use_bias=False, groups=cin if alone else 1), kernel


def _check_size(count: int) -> None:
    if count > LARGEST:
        raise ValueError(
            f"channels are chosen or re-ordered, and the convolution that does so would have {count} weights,"
            f" more than {LARGEST}"
        )
