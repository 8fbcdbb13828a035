"""The loss of a batch as a function of the kernels, in float64: what scores of data differentiate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slth.nn.forward import apply_train
from slth.nn.network import Network
from slth.pruning.protocol import Batch, prunable, task_of, with_kernels
from slth.train.loop import label_loss
from slth.types import AnyArray, Params

Kernels = dict[str, AnyArray]
"""The kernels by the path of their layer."""


def loss_of_kernels(
    network: Network, params: Params, batch: Batch, temperature: float | Float[Array, ""] = 1.0
) -> Callable[[Kernels], Float[Array, ""]]:
    r"""The mean of :math:`-\log \mathrm{softmax}(f(x) / T)_y` as a function of the kernels; of
    :math:`(f(x) / T - y)^2` where labels are numbers.

    Batch norm takes the statistics of the batch, as in training.

    Args:
      temperature: T > 0.
    """

    def loss(own: Kernels) -> Float[Array, ""]:
        outputs, _ = apply_train(network, with_kernels(params, own), jnp.asarray(batch.images))
        return label_loss(outputs / temperature, jnp.asarray(batch.labels), task_of(batch.labels))[0]

    return loss


def in_order(network: Network, values: Kernels) -> dict[str, np.ndarray]:
    """Arrays of the kernels' shapes in NumPy, in the order of the network."""
    return {path: np.asarray(values[path]) for path in prunable(network)}


def double(tree: Any) -> Any:
    """A tree with its numbers in float64; labels stay whole numbers."""

    def converted(leaf: AnyArray) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(np.int64 if np.issubdtype(leaf.dtype, np.integer) else np.float64)

    return jax.tree.map(converted, tree)
