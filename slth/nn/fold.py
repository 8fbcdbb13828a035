r"""Batch norm folded into the linear layer before it, exactly.

:math:`\gamma (w \star x + b - \mu) / \sqrt{v + \epsilon} + \beta = w' \star x + b'` with
:math:`w' = w \gamma / \sqrt{v + \epsilon}` and :math:`b' = (b - \mu) \gamma / \sqrt{v + \epsilon} + \beta`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from slth.nn.graph import by_layer, nested
from slth.nn.layers import BatchNorm, ChannelScale, Conv, Dense, Layer
from slth.nn.network import Network
from slth.nn.rewrite import Place, rewrite
from slth.types import Params


def fold_batch_norm(network: Network, params: Mapping[str, Any]) -> tuple[Network, Params]:
    """An equal network without batch norm: every linear layer has a bias where one was needed.

    A batch norm (or per-channel scale) behind a convolution or dense layer goes into it, in float64; the one
    that opens a pre-activation branch has no layer to go into and becomes a depthwise 1x1 convolution (or a
    dense layer with a diagonal kernel). A per-channel scale that *is* a skip stays.

    Args:
      network, params: any spec and its parameters.
    Returns: (network, params) with the same outputs up to float32 rounding; float32 NumPy arrays.
    Raises: ValueError, naming the layer, for a running variance below 0.

    Example:
      >>> import jax
      >>> from slth import nn
      >>> network = nn.Network((4,), (nn.Dense("a", 3, use_bias=False), nn.BatchNorm("bn")))
      >>> folded, params = nn.fold_batch_norm(network, nn.init(network, jax.random.key(0)))
      >>> folded.layers[0], sorted(params["a"])
      (Dense(name='a', features=3, use_bias=True), ['bias', 'kernel'])
    """
    values = by_layer(params)
    folded: dict[str, Params] = {}

    def rule(place: Place, done: tuple[Layer, ...]) -> tuple[Layer, ...]:
        layer, path, before = place.layer, place.path, done[-1] if done else None
        if isinstance(layer, BatchNorm | ChannelScale) and isinstance(before, Conv | Dense):
            factor, shift = _affine(path, layer, values[path])
            own = folded[(path.rpartition("/")[0] + "/" + before.name).removeprefix("/")]
            bias = np.asarray(own.get("bias", 0.0), np.float64) * factor + shift
            own["kernel"] = (np.asarray(own["kernel"], np.float64) * factor).astype(np.float32)
            own["bias"] = bias.astype(np.float32)
            return (*done[:-1], replace(before, use_bias=True))
        if isinstance(layer, BatchNorm) or (isinstance(layer, ChannelScale) and done):
            factor, shift = _affine(path, layer, values[path])
            ones = (1,) * (len(place.shape) - 1)
            kernel = factor.reshape(*ones, 1, -1) if ones else np.diag(factor)
            folded[path] = {"kernel": kernel.astype(np.float32), "bias": shift.astype(np.float32)}
            c = place.shape[-1]
            return (*done, Conv(layer.name, c, ones, groups=c) if ones else Dense(layer.name, c))
        if path in values:
            folded[path] = {name: np.asarray(leaf, np.float32) for name, leaf in values[path].items()}
        return (*done, layer)

    return rewrite(network, rule), nested(folded)


def _affine(path: str, layer: BatchNorm | ChannelScale, values: Params) -> tuple[np.ndarray, np.ndarray]:
    scale = np.asarray(values["scale"], np.float64)
    if isinstance(layer, ChannelScale):
        return scale, np.zeros_like(scale)
    variance = np.asarray(values["var"], np.float64)
    if (variance < 0).any():
        raise ValueError(
            f"params: {path}/var holds {variance.min():g}: no variance is below 0: load or train the target "
            "again"
        )
    factor = scale / np.sqrt(variance + layer.epsilon)
    return factor, np.asarray(values["bias"], np.float64) - np.asarray(values["mean"], np.float64) * factor
