"""What the walk reads everywhere, and what it fills in."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slth import nn
from slth.construct.layout import UNIVARIATE
from slth.construct.solver import LayerRecord, Solver
from slth.nn.layers import Linear
from slth.source import Source, parameter_shapes

Report = Callable[[str, int, int], None]
"""Called with (path of the layer, problems done, problems of the layer)."""


class Context(NamedTuple):
    """What the walk reads everywhere, and what it fills in: masks, records, columns."""

    target: nn.Network
    source: Source
    solver: Solver
    info: nn.ActivationInfo
    last: Linear
    needs: dict[str, float]
    output_kernel: Float[np.ndarray, "..."]
    report: Report
    ended: Callable[[LayerRecord], None]
    masks: dict[str, np.ndarray]
    records: list[LayerRecord]
    columns: dict[str, np.ndarray]

    @property
    def center(self) -> bool:
        """Whether activations count about their means, which constants carry.

        So it is where phi(0) may differ from 0 and where a layer has biases of its own.
        """
        return not self.info.homogeneous or self.own_biases

    @property
    def own_biases(self) -> bool:
        """Whether the source's hidden layers have random biases."""
        own = (path for path in parameter_shapes(self.source.network) if path.endswith("/bias"))
        return any(not path.removesuffix("/bias").endswith(UNIVARIATE) for path in own)

    @property
    def two_layers(self) -> bool:
        """Whether the source has two layers for each of the target's (2L), not one in front of all (L+1)."""
        return getattr(self.source.network.layers[0], "name", None) != UNIVARIATE

    @property
    def runs_ticket(self) -> bool:
        """Whether the ticket itself goes through the calibration images, layer by layer."""
        return self.solver.method == "compensated" or (
            self.solver.objective == "robust" and self.solver.noise == "measured"
        )
