r"""Batch norm folded into the linear layer before it, exactly.

:math:`\gamma (w \star x + b - \mu) / \sqrt{v + \epsilon} + \beta = w' \star x + b'` with
:math:`w' = w \gamma / \sqrt{v + \epsilon}` and :math:`b' = (b - \mu) \gamma / \sqrt{v + \epsilon} + \beta`.
"""

from dataclasses import replace

import numpy as np

from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer, Residual
from slth.nn.network import Network
from slth.types import Params, Shape


def fold_batch_norm(network: Network, params: Params) -> tuple[Network, Params]:
    """An equal network without batch norm: every linear layer has a bias where one was needed.

    A batch norm (or per-channel scale) behind a convolution or dense layer goes into it, in float64; the one
    that opens a pre-activation branch has no layer to go into and becomes a 1x1 convolution with a diagonal
    kernel. A per-channel scale that *is* a skip stays.

    Args:
      network, params: any spec and its parameters.
    Returns: (network, params) with the same outputs up to float32 rounding; float32 arrays.
    """
    layers, folded = _fold(network.layers, params, network.input_shape)
    return replace(network, layers=layers), folded


def _fold(layers: tuple[Layer, ...], params: Params, shape: Shape) -> tuple[tuple[Layer, ...], Params]:
    out: list[Layer] = []
    folded: Params = {}
    for position, layer in enumerate(layers):
        before = out[-1] if out else None
        if isinstance(layer, Residual):
            parts = params[layer.name]  # a part without parameters may be absent
            branch, branch_params = _fold(layer.branch, parts.get("branch", {}), shape)
            skip, skip_params = _fold(layer.skip, parts.get("skip", {}), shape)
            out.append(replace(layer, branch=branch, skip=skip))
            folded[layer.name] = {"branch": branch_params, "skip": skip_params}
        elif isinstance(layer, BatchNorm | ChannelScale) and isinstance(before, Conv | Dense):
            factor, shift = _affine(layer, params[layer.name])
            values = folded[before.name]
            kernel = np.asarray(values["kernel"], np.float64) * factor
            bias = np.asarray(values.get("bias", 0.0), np.float64) * factor + shift
            folded[before.name] = {
                "kernel": kernel.astype(np.float32),
                "bias": bias.astype(np.float32),
            }
            out[-1] = replace(before, use_bias=True)
        elif isinstance(layer, BatchNorm) or (isinstance(layer, ChannelScale) and position > 0):
            factor, shift = _affine(layer, params[layer.name])
            kernel = np.diag(factor).astype(np.float32)
            if len(shape) == 1:
                out.append(Dense(layer.name, shape[-1]))
            else:
                ones = (1,) * (len(shape) - 1)
                out.append(Conv(layer.name, shape[-1], ones))
                kernel = kernel.reshape(*ones, *kernel.shape)
            folded[layer.name] = {"kernel": kernel, "bias": shift.astype(np.float32)}
        else:
            out.append(layer)
            name = getattr(layer, "name", None)
            if name is not None:
                folded[name] = params[name]
        shape = layer.output_shape(shape)
    return tuple(out), folded


def _affine(layer: BatchNorm | ChannelScale, values: Params) -> tuple[np.ndarray, np.ndarray]:
    scale = np.asarray(values["scale"], np.float64)
    if isinstance(layer, ChannelScale):
        return scale, np.zeros_like(scale)
    factor = scale / np.sqrt(np.asarray(values["var"], np.float64) + layer.epsilon)
    return factor, np.asarray(values["bias"], np.float64) - np.asarray(values["mean"], np.float64) * factor
