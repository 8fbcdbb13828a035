"""Methods that prune at once: a score for each weight, and the largest are kept."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Array, Key

from slth.nn.network import Network
from slth.pruning.largest import Scores
from slth.pruning.layer_densities import LayerDensities, check_rule
from slth.pruning.protocol import Batch, Pruned, check, check_whole, found, keep
from slth.types import Params


@dataclass(frozen=True)
class Scored(ABC):
    """A method with a rule, `scores`, and its two common options.

    Args:
      densities: the density of each layer; None: the largest scores of all layers together.
      floor: least number of weights that each layer keeps.
    """

    densities: LayerDensities | None = None
    floor: int = 0

    needs_batch = False
    needs_key = False

    def __post_init__(self) -> None:
        check_rule(self.densities)
        check_whole("floor", self.floor, 0)

    @abstractmethod
    def scores(
        self, network: Network, params: Params, key: Key[Array, ""] | None, batch: Batch | None
    ) -> Scores:
        """A number for each weight, larger = rather kept; key and batch are there where they are needed."""

    def prune(
        self,
        network: Network,
        params: Params,
        density: float,
        *,
        key: Key[Array, ""] | None = None,
        batch: Batch | None = None,
    ) -> Pruned:
        """The mask of the largest scores (`slth.pruning.keep`).

        Raises: ValueError for what does not fit the method or the network; for a layer that would be emptied.
        """
        check(self, network, params, density, key, batch)
        shares = None if self.densities is None else self.densities.of(network, density)
        scores = self.scores(network, params, key, batch)
        return found(network, params, keep(network, scores, density, shares, floor=self.floor))
