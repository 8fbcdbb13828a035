r"""Magnitude pruning: the largest :math:`|w|` are kept."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Key

from slth.nn.network import Network
from slth.pruning.protocol import Batch, Pruned, Scores, check, check_whole, found, keep, kernels
from slth.types import Params


def magnitude_scores(network: Network, params: Params) -> Scores:
    r"""The score :math:`|w|` of each weight.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 1, use_bias=False),))
      >>> pruning.magnitude_scores(network, {"a": {"kernel": np.array([[3.0], [-4.0]])}})["a"].tolist()
      [[3.0], [4.0]]

    Source: Han et al., NeurIPS 2015 (arXiv:1506.02626).
    """
    return {path: np.abs(np.asarray(w, np.float64)) for path, w in kernels(network, params).items()}


@dataclass(frozen=True)
class Magnitude:
    """Keeps the largest weights of all layers together.

    Args:
      floor: least number of weights that each layer keeps.

    Example:
      >>> from slth import pruning
      >>> pruning.Magnitude()
      Magnitude(floor=0)
    """

    floor: int = 0

    needs_batch: ClassVar[bool] = False
    needs_key: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_whole("floor", self.floor, 0)

    def prune(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
    ) -> Pruned:
        """The mask of the largest scores."""
        check(self, network, params, density, key, batch)
        scores = magnitude_scores(network, params)
        return found(network, params, keep(network, scores, density, floor=self.floor))
