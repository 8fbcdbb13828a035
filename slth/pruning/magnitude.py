r"""Magnitude pruning: the largest :math:`|w|` are kept, of the network, of each layer, or by LAMP's score."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Key

from slth.nn.network import Network
from slth.pruning.largest import Scores
from slth.pruning.protocol import Batch, kernels
from slth.pruning.scored import Scored
from slth.types import AnyArray, Params


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


def lamp_scores(network: Network, params: Params) -> Scores:
    r"""The score :math:`w_i^2 / \sum_{j \ge i} w_j^2` of each weight, a layer's in rising order of |w|.

    The largest weight of a layer has the score 1, the largest score there is: no layer is emptied while as
    many weights as layers are kept.

    Example:
      >>> import numpy as np
      >>> from slth import nn, pruning
      >>> network = nn.Network((2,), (nn.Dense("a", 1, use_bias=False),))
      >>> pruning.lamp_scores(network, {"a": {"kernel": np.array([[3.0], [-4.0]])}})["a"].tolist()   # 9/25
      [[0.36], [1.0]]

    Source: Lee et al., ICLR 2021 (arXiv:2010.07611).
    """
    return {path: _lamp(kernel) for path, kernel in kernels(network, params).items()}


def _lamp(kernel: Float[AnyArray, "..."]) -> Float[np.ndarray, "..."]:
    squares = np.asarray(kernel, np.float64).reshape(-1) ** 2
    falling = np.argsort(squares, kind="stable")[::-1]
    sums = np.cumsum(squares[falling])
    scores = np.zeros(squares.size)
    scores[falling] = np.divide(squares[falling], sums, out=np.zeros(squares.size), where=sums > 0)
    return scores.reshape(np.shape(kernel))


@dataclass(frozen=True)
class Magnitude(Scored):
    """Keeps the largest weights.

    Args:
      densities: the density of each layer, such as ``Uniform()``; None: the largest of all layers together.
      floor: least number of weights that each layer keeps.
    Raises: ValueError for options that are no rule and no number.

    Example:
      >>> from slth import pruning
      >>> pruning.Magnitude(), pruning.Magnitude(pruning.Uniform())
      (Magnitude(densities=None, floor=0), Magnitude(densities=Uniform(), floor=0))

    Source: Han et al., NeurIPS 2015 (arXiv:1506.02626).
    """

    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """|w|."""
        return magnitude_scores(network, params)


@dataclass(frozen=True)
class Lamp(Scored):
    """Keeps the weights of largest LAMP score (`lamp_scores`): magnitudes that layers are compared by.

    Args:
      densities, floor: as of `Magnitude`; the paper compares all layers and has no floor.
    Raises: ValueError for options that are no rule and no number.

    Example:
      >>> from slth import pruning
      >>> pruning.Lamp()
      Lamp(densities=None, floor=0)

    Source: Lee et al., ICLR 2021 (arXiv:2010.07611).
    """

    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """Squares, each divided by the sum of those that are not smaller."""
        return lamp_scores(network, params)
