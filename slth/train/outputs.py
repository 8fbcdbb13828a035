"""Outputs and accuracy of a network on any number of images."""

import jax
import numpy as np
from jaxtyping import Float, Int

from slth.nn.forward import apply
from slth.nn.network import Network
from slth.types import Batch, Params


def predict(network: Network, params: Params, images: Batch, batch: int = 512) -> Float[np.ndarray, "n *out"]:
    """The network's outputs for any number of images, (n, *out), in batches of one compiled shape.

    Raises: ValueError if there is no image.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate")
    batch = min(batch, len(images))
    outputs = []
    for start in range(0, len(images), batch):
        block = np.asarray(images[start : start + batch])
        absent = batch - len(block)
        padded = np.pad(block, ((0, absent), *((0, 0),) * (block.ndim - 1)))
        outputs.append(np.asarray(_apply(network, params, padded))[: len(block)])
    return np.concatenate(outputs)


_apply = jax.jit(apply, static_argnums=0)


def accuracy(
    network: Network,
    params: Params,
    images: Batch,
    labels: Int[np.ndarray, " n"],
    batch: int = 512,
) -> float:
    """Share of images whose largest output is the label's, in [0, 1].

    Raises: ValueError if there is no image.
    """
    top = predict(network, params, images, batch).argmax(axis=-1)
    return float((top == np.asarray(labels)).mean())
