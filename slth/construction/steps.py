r"""How finely each layer is rounded: the steps that cost the outputs least for a given number of bits.

Halving the step D of a layer costs about one bit for each of its weights, and the squared error of a weight
is about D² / 12. Let layer l have n_l weights, and let s_l be the mean over them of the squared derivative of
the outputs (below). Then the damage :math:`\sum_l n_l s_l D_l^2 / 12` is least, for a given total of bits,
where all :math:`s_l D_l^2` are equal.

The derivative is that of the log-probability of a class drawn from the target's own softmax, whose mean
square is the Fisher information; of the outputs themselves where there is one output only.

Source: reverse water-filling (Cover and Thomas, Elements of Information Theory, 10.3); Fisher information as
the price of an error follows BRECQ (Li et al., ICLR 2021).
"""

import math
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from slth import nn
from slth.nn.graph import by_layer
from slth.nn.network import Network
from slth.types import Batch, Params

BATCH = 64
"""Images that are differentiated at a time."""
COARSEST = 4.0
"""Largest step, in units of the root mean square of the layer's weights."""
LARGEST_INTEGER = 2**10
"""Largest |q| of a weight q D: no step is finer than the largest weight over this."""


def sensitivities(
    network: Network, params: Params, factor: float, images: Batch, seed: int = 0
) -> dict[str, float]:
    r"""s of every kernel by layer: :math:`E[(\partial \log p(y) / \partial w)^2]`, the mean over its weights.

    For a batch, :math:`\sum_i \epsilon_i r_i^T z_i` is differentiated once, with z the logits, random signs
    epsilon and r drawn with the covariance :math:`\mathrm{diag}(p) - p p^T`. Squares of its derivatives have
    the mean that is asked for, as errors of different images are independent.

    Args:
      factor: the outputs are this times those of the network.
    """
    totals: dict[str, float] = {}
    for number, start in enumerate(range(0, len(images), BATCH)):
        key = jax.random.fold_in(jax.random.key(seed), number)
        squares = _squares(
            network, params, np.float32(factor), jnp.asarray(images[start : start + BATCH]), key
        )
        for path, value in squares.items():
            totals[path] = totals.get(path, 0.0) + float(value)
    return {path: total / len(images) for path, total in totals.items()}


@partial(jax.jit, static_argnums=0)
def _squares(
    network: Network, params: Params, factor: Array, x: Batch, key: Key[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """The mean squared derivative of a random sum over a batch, by layer."""

    def outputs(params: Params) -> Array:
        z = factor * nn.apply(network, params, x)
        return z.reshape(len(x), -1)

    z, pull = jax.vjp(outputs, params)
    normal = jax.random.normal(key, z.shape)
    if z.shape[1] > 1:
        root = jnp.sqrt(jax.nn.softmax(z))
        normal = root * normal - root**2 * (root * normal).sum(1, keepdims=True)
    (slopes,) = pull(normal)
    return {path: (own["kernel"] ** 2).mean() for path, own in by_layer(slopes).items() if "kernel" in own}


def steps(
    kernels: Mapping[str, Float[np.ndarray, "..."]], sensitivity: Mapping[str, float], bits: float
) -> dict[str, float]:
    """The step of every kernel, for an entropy of ``bits`` a weight over all of them.

    Weights of less entropy than that, such as a kernel of many zeros, get the finest steps that there are.

    Args:
      kernels: by layer.
      sensitivity: s of each (`sensitivities`).
      bits: above 0.
    """
    sizes = {
        path: float(np.sqrt(np.mean(np.square(kernel, dtype=np.float64)))) for path, kernel in kernels.items()
    }
    live = {path: size for path, size in sizes.items() if size > 0}
    finest = {path: float(np.abs(kernels[path]).max()) / (LARGEST_INTEGER - 1) for path in live}
    prices = {path: max(sensitivity.get(path, 0.0), 0.0) for path in live}
    least = 1e-12 * max(prices.values(), default=0.0) or 1.0

    def at(level: float) -> dict[str, float]:
        return {
            path: max(finest[path], min(COARSEST * size, 2.0**level / math.sqrt(max(prices[path], least))))
            for path, size in live.items()
        }

    total = sum(kernels[path].size for path in live)
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        spent = sum(kernels[path].size * entropy(kernels[path], step) for path, step in at(middle).items())
        low, high = (middle, high) if spent > bits * total else (low, middle)
    return {path: at(high).get(path, 1.0) for path in kernels}


def entropy(weights: Float[np.ndarray, "..."], step: float) -> float:
    """Bits a weight of weights rounded to multiples of a step, by their own frequencies."""
    whole = np.rint(np.asarray(weights, np.float64).reshape(-1) / step)
    spread = float(np.abs(whole).max(initial=0))
    if spread > 2**20:
        return math.log2(spread)
    _, counts = np.unique(whole, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
