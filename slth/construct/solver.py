"""How subsets are chosen, and the record of what was chosen in one layer."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from slth.construct.compensate import Compensation
from slth.construct.node import Stats


@dataclass(frozen=True)
class Solver:
    """How the subsets are chosen.

    Args:
      method: "independent" (every weight its own problem) or "compensated" (rows against calibration data).
      objective: of the independent method: "smallest", "best" or "robust".
      tolerance: epsilon, the largest accepted |sum_S v - w| in units of the layer's source scale.
      noise: robust's price: "propagated" or "measured" errors of the copies, or "fixed" (``price`` times v²).
      inputs: "signed", or "nonnegative" where the network's input is known to be.
      fit: largest weight of the balanced target in units of the source's scale (`balance`).
    """

    method: Literal["independent", "compensated"] = "independent"
    objective: Literal["smallest", "best", "robust"] = "best"
    tolerance: float = 0.01
    noise: Literal["propagated", "measured", "fixed"] = "propagated"
    price: float = 0.01
    inputs: Literal["signed", "nonnegative"] = "signed"
    fit: float = 1.25
    compensation: Compensation = field(default_factory=Compensation)


class LayerRecord(NamedTuple):
    """What happened in one linear node of the target."""

    path: str
    stats: Stats
    kept: int
    parameters: int
    seconds: float
    copy_error: float | None = None
    """Relative L2 error of one copy's pre-activations on calibration images, if the ticket ran on them."""
    mean_error: float | None = None
    """The same of the mean of the copies."""
