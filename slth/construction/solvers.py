"""The solvers: how the subsets of a node are chosen. Each owns its options and checks them."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from slth.construction.choices import Kept, choose_robust, choose_subset
from slth.construction.independent import Independent, check_number
from slth.construction.state import Part, Problem, Solved
from slth.construction.variables import Weights, nearest_of
from slth.subset_sum import Objective
from slth.subset_sum.problem import MAX_ENUMERATED

EXACT = 22
"""Most variables without prices of one problem, where copies are measured."""
Noise = Literal["propagated", "measured", "fixed"]


@runtime_checkable
class Solver(Protocol):
    """What a construction asks of a solver.

    A new solver is one class, anywhere, with these properties and this method. It may say ``rows_apart =
    True``: what it chooses for an output depends on no other output's weights. Several processes then share
    the rows of a node (docs/scale.md). And it may say ``by_tiles = True`` where the last bits of activations
    need not be the same: a CPU then runs target and ticket through wide convolutions faster
    (`slth.nn.winograd`).

    Example:
      >>> import slth
      >>> [solver.needs_images for solver in (slth.Best(), slth.Robust(), slth.Compensated())]
      [False, True, True]
    """

    @property
    def tolerance(self) -> float:
        """Epsilon, the largest accepted |sum_S v - w| in units of the layer's source scale."""
        ...

    @property
    def most_copies(self) -> int:
        """The largest multiplicity that it can solve."""
        ...

    @property
    def needs_images(self) -> bool:
        """Whether it needs calibration images."""
        ...

    @property
    def runs_ticket(self) -> bool:
        """Whether the ticket itself goes through the calibration images, layer by layer."""
        ...

    @property
    def solves_rows(self) -> bool:
        """Whether it solves whole rows, not weight by weight; blocks of copies then keep their order
        (`slth.construction.blocks`), and not every problem's error is known on its own."""
        ...

    def solve(self, problem: Problem) -> Solved:
        """The subsets of one node."""
        ...


@dataclass(frozen=True)
class Smallest(Independent):
    r"""The smallest subset within the tolerance, :math:`\min |S|` with :math:`|\sum_S v - w| \le \epsilon`.

    Args:
      tolerance: epsilon, in units of the layer's source scale.
      size: exactly so many variables for each weight that is not 0 (of each group of at most 15 where an
        input has more); None: any number. Biases take any number of constants.
    Raises: ValueError for a number out of range.

    Example:
      >>> import slth
      >>> slth.Smallest(tolerance=0.05).needs_images
      False

    Source: Burkholz, ICML 2022, as in the published code; Natale et al. 2024 for fixed sizes.
    """

    bias_objective: ClassVar[Objective] = Objective.SMALLEST

    def choose(self, weights: Weights) -> Kept:
        """The smallest subset; of equals the nearest."""
        return choose_subset(weights, Objective.SMALLEST, self.size)


@dataclass(frozen=True)
class Best(Independent):
    r"""The nearest subset sum, :math:`\min_S |\sum_S v - w|`.

    Args:
      tolerance, size: as of `Smallest`; the tolerance only decides what counts as unsolved.
    Raises: ValueError for a number out of range.

    Example:
      >>> import slth
      >>> slth.Best(size=3)
      Best(tolerance=0.01, size=3)

    Source: Lueker 1998 for the sums.
    """


@dataclass(frozen=True)
class Single(Independent):
    r"""At most one variable for each weight, :math:`\min_k |v_k - w|`; biases may take several constants.

    Args:
      tolerance: epsilon, in units of the layer's source scale; it only decides what counts as unsolved.
      size: None; any other value is refused.
    Raises: ValueError for a number out of range.

    Example:
      >>> import slth
      >>> slth.Single().most_copies, slth.Robust().most_copies
      (32, 20)

    Source: Malach et al., ICML 2020.
    """

    retries: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            raise ValueError(
                f"solver.size: means nothing to Single, which takes at most one variable, got {self.size!r}:"
                " leave it out"
            )

    def most_variables(self, part: Part, multiplicity: int) -> int:
        """All members of a slot: one of many is found without enumeration."""
        return part.stream.slots.members.shape[1]

    def choose(self, weights: Weights) -> Kept:
        """The nearest variable, or none."""
        return nearest_of(weights)


@dataclass(frozen=True)
class Robust(Independent):
    r"""The subset of least error and noise, :math:`\min_S (\sum_S v - w)^2 R^2 + \sum_S v^2 E^2`.

    R is the root mean square of the input channel, and E is that of the error that a copy of the channel
    carries. Deep networks need this solver: nearest sums multiply the errors of the copies from layer to
    layer.

    Args:
      tolerance, size: as of `Smallest`; the tolerance only decides what counts as unsolved or deviating.
      noise: where E comes from. "propagated": computed from layer to layer with statistics of the target;
        "measured": found by running the ticket beside the target, which also finds what share of its channel
        each copy carries, so that weights make up for it; "fixed": E² / R² = ``price``, without images. None:
        measured in networks of at least six sums whose outputs are predicted to be off by more than 0.02 of
        their size, or of which nothing can be predicted (`slth.construction.fit`); else propagated.
      price: E² / R² where ``noise`` is "fixed".
      means: whether constants take up what the weights of a row miss of the means on the images. None: where
        the predicted error is clearly smaller (`slth.construction.fit`).
    Raises: ValueError for a number out of range or an unknown word.

    Example:
      >>> import slth
      >>> slth.Robust().needs_images, slth.Robust(noise="fixed").needs_images
      (True, False)

    Source: this project (docs/construction.md).
    """

    noise: Noise | None = None
    price: float = 0.01
    means: bool | None = None

    most_copies = MAX_ENUMERATED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("price", self.price, float, 0, math.inf, above=True)
        if self.noise is not None and self.noise not in get_args(Noise):
            known = ", ".join(get_args(Noise))
            raise ValueError(f"solver.noise: expected one of {known}, got {self.noise!r}")
        if not (self.means is None or isinstance(self.means, bool)):
            raise ValueError(f"solver.means: expected True, False or None, got {self.means!r}")

    @property
    def needs_images(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Statistics of the target come from images, unless the price is fixed."""
        return self.noise != "fixed"

    @property
    def runs_ticket(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Only to measure what copies carry."""
        return self.measures

    @property
    def measures(self) -> bool:
        """Whether weights are chosen for copies as the images show them: their gains, means and errors."""
        return self.noise == "measured"

    def most_variables(self, part: Part, multiplicity: int) -> int:
        """Where the ticket is measured, all that carry no error, which have no price."""
        if self.measures and self.size is None and not part.stream.noise.any():
            return EXACT
        return super().most_variables(part, multiplicity)

    def choose(self, weights: Weights) -> Kept:
        """The subset of least cost."""
        if self.measures and not weights.noise.any():
            return choose_subset(weights, Objective.BEST, self.size)
        price = np.float32(self.price) * weights.gain**2 if self.noise == "fixed" else weights.noise
        return choose_robust(weights, price, self.size)
