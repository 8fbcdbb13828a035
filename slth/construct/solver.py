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
      objective: of the independent method: "smallest", "best", "robust", or "single", which takes at most one
        variable of a weight, of any number of them (Malach et al. 2020); biases may take several constants.
      tolerance: epsilon, the largest accepted |sum_S v - w| in units of the layer's source scale.
      noise: robust's price: "propagated" or "measured" errors of the copies, or "fixed" (``price`` times v²).
      inputs: "signed", or "nonnegative" where the network's input is known to be.
      size: of the independent method: exactly so many variables for each weight that is not 0 (of each group
        of at most 15 where an input has more); None: any number. Biases take any number of constants.
      fit: largest weight of the balanced target in units of the source's scale (`balance`).
    """

    method: Literal["independent", "compensated"] = "independent"
    objective: Literal["smallest", "best", "robust", "single"] = "best"
    tolerance: float = 0.01
    noise: Literal["propagated", "measured", "fixed"] = "propagated"
    price: float = 0.01
    inputs: Literal["signed", "nonnegative"] = "signed"
    size: int | None = None
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
