"""Random pruning: in each layer, as many weights as its density says, all sets of them equally likely."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Key

from slth.nn.network import Network
from slth.pruning.largest import Scores
from slth.pruning.layer_densities import ErdosRenyiKernel, LayerDensities
from slth.pruning.protocol import Batch, prunable
from slth.pruning.scored import Scored
from slth.types import Params


def random_scores(network: Network, key: Key[Array, ""]) -> Scores:
    """A whole number for each weight, uniform on 0 to 2^32 - 1.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> pruning.random_scores(network, jax.random.key(0))["a"].dtype
      dtype('uint32')
    """
    shapes = prunable(network)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    # A draw is slow to compile and quick to run: one of a round size serves all layers of many networks.
    size = 2 ** max(12, int(ends[-1] - 1).bit_length())
    parts = np.split(np.asarray(jax.random.bits(key, (size,), np.uint32))[: ends[-1]], ends[:-1])
    return {path: part.reshape(shape) for (path, shape), part in zip(shapes.items(), parts, strict=True)}


DEFAULT = ErdosRenyiKernel()


@dataclass(frozen=True)
class Random(Scored):
    """Keeps random weights of each layer, in the numbers of a rule; knows neither weights nor data.

    Args:
      densities: the rule; None: of all layers together, so that their densities are equal on average.
      floor: least number of weights that each layer keeps.
    Raises: ValueError for options that are no rule and no number.

    Example:
      >>> import jax
      >>> from slth import nn, pruning
      >>> network = nn.Network((4,), (nn.Dense("a", 8), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> params = nn.init(network, jax.random.key(0))
      >>> method = pruning.Random(pruning.Balanced())
      >>> method.prune(network, params, 0.5, key=jax.random.key(1)).densities
      {'a': 0.375, 'b': 0.75}

    Source: Liu et al., ICLR 2022 (arXiv:2202.02643), with the densities of Evci et al. 2020.
    """

    densities: LayerDensities | None = DEFAULT

    needs_key = True

    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """Random numbers."""
        assert key is not None
        return random_scores(network, key)
