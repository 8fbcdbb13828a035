r"""A target rounded to a few bits a weight: the yardstick for tickets of as many bits.

Every output channel j of a linear layer has a scale s_j and 2^b levels, evenly spaced around 0:

    w' = s_j (k - (2^b - 1) / 2),    k in {0, ..., 2^b - 1}

so one bit is a sign, and no level is 0: weights that are 0 become s_j / 2. Scales count 32 bits each; biases
and factors of skips stay as they are and count 32 bits each too.
"""

from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth import nn
from slth.construction.feedback import factor_of, fed_back
from slth.construction.samples import SAMPLED, draw_samples, patches
from slth.nn.graph import behind, by_layer, graph, nested, sums
from slth.nn.layers import Conv, Linear
from slth.nn.network import Network
from slth.precision import in_32_bits
from slth.target import Target, check_folded, check_images, checked_integer, checked_word
from slth.types import Batch, Params, Values

__all__ = ["Quantised", "quantised"]

Rounding = Literal["nearest", "feedback"]
TRIED = 64
"""Scales tried for each channel: fractions of the one that just holds its largest weight."""
POSITIONS = 16384
"""Most (image, position) pairs whose inputs are looked at in a layer."""
RIDGE = 0.01
"""Added to the diagonal of the second moments, in units of its mean."""
NUMBER = 32
"""Bits of a scale and of a bias."""

Matrix = Float[np.ndarray, "inputs cout"]
Gram = Float[np.ndarray, "inputs inputs"]


class Quantised(NamedTuple):
    """A rounded target and what it costs.

    Example:
      >>> import jax, slth
      >>> from slth import nn, quantise
      >>> network = nn.Network((4,), (nn.Dense("a", 64), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> round(quantise.quantised(target, 4).bits_per_weight, 2)      # 384 weights, 66 scales and biases
      15.0
    """

    target: Target
    bits_per_weight: float
    """All bits (levels, scales, biases) over the target's weights that are not 0."""


@in_32_bits()
def quantised(
    target: Target, bits: int, rounding: Rounding = "nearest", images: Batch | None = None
) -> Quantised:
    r"""The target with every weight rounded to 2^bits levels, with a scale for each output channel.

    "nearest": to the nearest level, with the scales of least squared error. "feedback": input after input,
    where the error of each weight is made up for by those that follow, so that
    :math:`E[(\sum_i (w'_i - w_i) z_i)^2]` over what the layer reads in the rounded network stays small.

    Args:
      bits: b, 1 to 15.
      images: shape (n, *input_shape), for "feedback": of the kind that the target was trained on.
    Returns: the rounded target and its bits for each weight.
    Raises: ValueError for a number or word out of range, or images missing.

    Example:
      >>> import jax, slth
      >>> from slth import nn, quantise
      >>> network = nn.Network((4,), (nn.Dense("a", 64), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> rounded = quantise.quantised(target, 8)
      >>> x = jax.random.normal(jax.random.key(1), (100, 4))
      >>> bool(abs(rounded.target(x) - target(x)).max() < 0.05)
      True

    Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ", ICLR 2023, for the feedback.
    """
    bits = checked_integer("bits", bits, 1, 16)
    checked_word("rounding", rounding, get_args(Rounding))
    if rounding == "feedback" and images is None:
        raise ValueError("images: feedback needs some of the kind that the target was trained on, got None")
    if images is not None:
        check_images(images, target.network.input_shape)
    for step in graph(target.network):
        check_folded(step)
    layers = {path: dict(own) for path, own in by_layer(target.params).items()}
    count = sum(int(np.count_nonzero(own["kernel"])) for own in layers.values() if "kernel" in own)
    if count == 0:
        raise ValueError("target: all of its weights are 0, so there is nothing to round")
    cost = sum(NUMBER * np.size(own["scale"]) for own in layers.values() if "scale" in own)
    for node in sums(target.network):
        for entry in node.maps:
            kernel = np.asarray(layers[entry.path]["kernel"], np.float64)
            weight = kernel.reshape(-1, kernel.shape[-1])
            scale = _scales(weight, bits)
            if rounding == "feedback":
                reads = _value(target.network, nested(layers), entry.reads, np.asarray(images))
                index = entry.layer.inputs(reads.shape[-1])
                first = np.broadcast_to(index[0], len(scale))
                for channel in np.unique(first):  # outputs of a group read the same channels
                    own = np.flatnonzero(first == channel)
                    rows = index[:, 0] if index.shape[1] == 1 else index[:, own[0]]
                    factor = factor_of(_gram(entry.layer, reads[..., rows]))
                    weight[:, own] = fed_back(weight[:, own], factor, partial(_level, scale[own], bits))
            else:
                weight = _rounded(weight, scale, bits)
            layers[entry.path]["kernel"] = weight.reshape(kernel.shape).astype(np.float32)
            cost += bits * kernel.size + NUMBER * (len(scale) + np.size(layers[entry.path].get("bias", ())))
    return Quantised(Target(target.network, nested(layers), target.task), cost / count)


def _rounded(
    weight: Float[np.ndarray, "... cout"], scale: Float[np.ndarray, " cout"], bits: int
) -> Float[np.ndarray, "... cout"]:
    """Every weight at its nearest level."""
    middle = (2**bits - 1) / 2
    level = np.round(weight / np.where(scale > 0, scale, 1) + middle)
    return scale * (np.clip(level, 0, 2**bits - 1) - middle)


def _level(
    scale: Float[np.ndarray, " cout"], bits: int, _: object, left: Float[np.ndarray, "... cout"]
) -> Float[np.ndarray, "... cout"]:
    """The rule of `fed_back`."""
    return _rounded(left, scale, bits)


def _scales(weight: Matrix, bits: int) -> Float[np.ndarray, " cout"]:
    """For each channel the scale of least squared error among `TRIED` fractions of the widest; 0 if empty."""
    widest = np.abs(weight).max(0) / ((2**bits - 1) / 2)
    tried = widest * np.arange(1, TRIED + 1)[:, None] / TRIED
    errors = [((weight - _rounded(weight, scale, bits)) ** 2).sum(0) for scale in tried]
    return np.take_along_axis(tried, np.argmin(errors, 0)[None], 0)[0]


def _gram(layer: Linear, reads: Float[Array, "n *space rows"]) -> Gram:
    """Second moments, with a ridge, of what a layer (or a group of one) reads."""
    if isinstance(layer, Conv):
        layer = replace(layer, groups=1)
    samples = draw_samples(layer, reads.shape[1:], len(reads), POSITIONS)
    total = np.zeros(())
    for piece in samples.pieces(SAMPLED):
        z = np.asarray(patches(layer, reads, piece), np.float64).reshape(len(piece.image), -1)
        total = total + z.T @ z
    gram = total / len(samples.image)
    size = np.trace(gram) / len(gram) or 1.0  # 1: nothing is read but zeros
    return gram + np.eye(len(gram)) * RIDGE * size


def _value(network: Network, params: Params, value: int, images: Batch) -> Values:
    """A value of the network on all images."""
    name, layers = behind(network, value)
    x = jnp.asarray(images, jnp.float32)
    if name:
        x = nn.trace(network, params, x)[1][name]
    for layer in layers:
        x = layer.apply({}, x)
    return x
