r"""SNIP: the weights without which the loss would change most, to first order."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from slth.nn.network import Network
from slth.precision import in_64_bits
from slth.pruning.largest import Scores
from slth.pruning.loss import Kernels, double, in_order, loss_of_kernels
from slth.pruning.protocol import Batch, kernels
from slth.pruning.scored import Scored
from slth.types import Params


@in_64_bits()
def snip_scores(network: Network, params: Params, batch: Batch) -> Scores:
    r"""The connection sensitivity :math:`|w_i\, \partial L / \partial w_i|` of each weight.

    It is the derivative of the loss in a factor of the weight, at the factor 1. L is the mean cross-entropy
    of the batch (the squared error where labels are numbers), with batch norm by the batch's statistics. In
    float64; not divided by its sum, which changes no order.

    Args:
      params: those of the network before training.
      batch: images (n, *input_shape) and labels (n,), all at once in memory.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 1, use_bias=False),))
      >>> batch = pruning.Batch(np.array([[1.0, 2.0]]), np.array([[0.0]]))
      >>> scores = pruning.snip_scores(network, {"a": {"kernel": np.array([[3.0], [-1.0]])}}, batch)
      >>> scores["a"].tolist()        # f = 3 - 2 = 1 and dL/df = 2, so |2 * 1 * 3| and |2 * 2 * -1|
      [[6.0], [4.0]]

    Source: Lee, Ajanthan and Torr, ICLR 2019 (arXiv:1810.02340).
    """
    own = double((params, batch))
    return in_order(network, _scores(network, *own))


@partial(jax.jit, static_argnums=0)
def _scores(network: Network, params: Params, batch: Batch) -> Kernels:
    weights = kernels(network, params)
    gradient = jax.grad(loss_of_kernels(network, params, batch))(weights)
    return jax.tree.map(lambda w, g: jnp.abs(w * g), weights, gradient)


@dataclass(frozen=True)
class Snip(Scored):
    """Keeps the weights of largest connection sensitivity (`snip_scores`), at once.

    The paper takes one mini-batch of the training part, as large as one of training (100 or 128 images).

    Args:
      densities, floor: as of `slth.pruning.Magnitude`; the paper compares all layers and has no floor.
    Raises: ValueError for options that are no rule and no number.

    Example:
      >>> from slth import pruning
      >>> pruning.Snip().needs_batch
      True

    Source: Lee, Ajanthan and Torr, ICLR 2019 (arXiv:1810.02340).
    """

    needs_batch = True

    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """|w dL/dw|."""
        assert batch is not None
        return snip_scores(network, params, batch)
