r"""GraSP: the weights without which the flow of the gradient would fall most.

To first order, leaving out weight i changes :math:`\|\nabla L\|^2` by :math:`2 S_i` with
:math:`S_i = -w_i (H g)_i`. Where S is positive the gradient grows without the weight, so the paper removes
the weights of the *largest* S. A score here is larger for what is rather kept: it is
:math:`-S_i = w_i (H g)_i`.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from slth.nn.network import Network
from slth.precision import in_64_bits
from slth.pruning.largest import Scores
from slth.pruning.loss import Kernels, double, in_order, loss_of_kernels
from slth.pruning.protocol import Batch, kernels
from slth.pruning.scored import Scored
from slth.types import Params

TEMPERATURE = 200.0
"""That of the published code."""


@in_64_bits()
def grasp_scores(network: Network, params: Params, batch: Batch, temperature: float = TEMPERATURE) -> Scores:
    r"""The score :math:`w_i (H g)_i = -S_i`, with gradient g and Hessian H of the loss in the kernels.

    The loss is the mean cross-entropy of the outputs divided by T (the squared error where labels are
    numbers), with batch norm by the batch's statistics. H g is one derivative of the gradient along itself,
    in float64. Biases and batch norm are constants.

    Args:
      params: those of the network before training.
      batch: images (n, *input_shape) and labels (n,), all at once in memory.
      temperature: T > 0.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 1, use_bias=False),))
      >>> batch = pruning.Batch(np.array([[1.0, 2.0]]), np.array([[0.0]]))
      >>> params = {"a": {"kernel": np.array([[3.0], [-1.0]])}}
      >>> scores = pruning.grasp_scores(network, params, batch, temperature=1.0)
      >>> scores["a"].tolist()        # f = 1, g = 2 f x = (2, 4), H = 2 x x', H g = (20, 40)
      [[60.0], [-40.0]]

    Source: Wang, Zhang and Grosse, ICLR 2020 (arXiv:2002.07376).
    """
    own = double((params, batch))
    return in_order(network, _scores(network, *own, np.float64(temperature)))


@partial(jax.jit, static_argnums=0)
def _scores(network: Network, params: Params, batch: Batch, temperature: Float[Array, ""]) -> Kernels:
    weights = kernels(network, params)
    gradient_of = jax.grad(loss_of_kernels(network, params, batch, temperature))
    _, along = jax.jvp(gradient_of, (weights,), (gradient_of(weights),))
    return jax.tree.map(lambda w, h: w * h, weights, along)


@dataclass(frozen=True)
class Grasp(Scored):
    """Keeps the weights of largest :math:`w (H g)` (`grasp_scores`), at once.

    The paper takes ten training images of each class.

    Args:
      densities, floor: as of `slth.pruning.Magnitude`; the paper compares all layers and has no floor.
      temperature: T > 0, by which the outputs are divided.
    Raises: ValueError for options that are no rule, or numbers out of range.

    Example:
      >>> from slth import pruning
      >>> pruning.Grasp()
      Grasp(densities=None, floor=0, temperature=200.0)

    Source: Wang, Zhang and Grosse, ICLR 2020 (arXiv:2002.07376).
    """

    temperature: float = TEMPERATURE

    needs_batch = True

    def __post_init__(self) -> None:
        super().__post_init__()
        number = self.temperature if isinstance(self.temperature, int | float) else math.nan
        if isinstance(number, bool) or not 0 < number < math.inf:
            raise ValueError(f"temperature: expected a finite number above 0, got {self.temperature!r}")

    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """w (H g)."""
        assert batch is not None
        return grasp_scores(network, params, batch, self.temperature)
