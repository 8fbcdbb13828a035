"""The solvers: how the subsets of a node are chosen. Each owns its options and checks them."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, Int

from slth.construction.choices import Kept, choose_robust, choose_single, choose_subset, noise_price
from slth.construction.compensated import Blocks, solve_compensated
from slth.construction.independent import solve_independent
from slth.construction.state import Part, Problem, Solved
from slth.subset_sum import Objective
from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES

Noise = Literal["propagated", "measured", "fixed"]


class Solver(Protocol):
    """What a construction asks of a solver. A new one is one class here (or anywhere) with these."""

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
    def deals_blocks(self) -> bool:
        """Whether blocks of copies are dealt out for the output layer's sake (`slth.construction.blocks`)."""
        ...

    def solve(self, problem: Problem) -> Solved:
        """The subsets of one node."""
        ...


def _check(name: str, value: object, kind: type | tuple[type, ...], low: float, high: float) -> None:
    """Refuse a number of the wrong kind or size."""
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not (number and low <= value <= high and math.isfinite(value)):  # pyright: ignore[reportOperatorIssue]
        kinds = "an integer" if kind is int else "a number"
        bound = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise ValueError(f"solver.{name}: expected {kinds} {bound}, got {value!r}")


TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class _Independent:
    """What the solvers have in common that choose weight by weight."""

    tolerance: float = 0.01

    bias_objective: ClassVar[Objective] = Objective.BEST
    retries: ClassVar[bool] = True
    needs_images: ClassVar[bool] = False
    runs_ticket: ClassVar[bool] = False
    deals_blocks: ClassVar[bool] = True
    most_copies: ClassVar[int] = MAX_VARIABLES

    def __post_init__(self) -> None:
        _check("tolerance", self.tolerance, (int, float), TINY, math.inf)

    @property
    def size(self) -> int | None:
        """Any number of variables."""
        return None

    def most_variables(self, part: Part, multiplicity: int) -> int:
        """m, at least 15; a problem with prices or a fixed size has fewer than the enumeration's limit."""
        most = max(multiplicity, 15)
        return min(most, MAX_ENUMERATED) if part.priced or self.size is not None else most

    def choose(
        self,
        x: Float[np.ndarray, "m n"],
        t: Float[np.ndarray, " n"],
        part: Part,
        error: Float[np.ndarray, "m n"],
        which: Int[np.ndarray, " n"],
    ) -> Kept:
        """The nearest sum; univariate channels that are not exact cost constants and remainders, so there the
        subset of least robust cost is the best one."""
        tolerance = self.tolerance * part.scale
        if part.priced:
            price = noise_price(error, part.rms[which])
            return choose_robust(x, t, price, tolerance=tolerance, size=self.size)
        return choose_subset(x, t, Objective.BEST, tolerance=tolerance, size=self.size)

    def solve(self, problem: Problem) -> Solved:
        """Every weight on its own."""
        return solve_independent(problem, self)


@dataclass(frozen=True)
class _Sized(_Independent):
    """A solver that can be asked for a number of variables."""

    size: int | None = None  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            _check("size", self.size, int, 0, MAX_ENUMERATED)


@dataclass(frozen=True)
class Smallest(_Sized):
    r"""The smallest subset within the tolerance, :math:`\min |S|` with :math:`|\sum_S v - w| \le \epsilon`.

    Args:
      tolerance: epsilon, in units of the layer's source scale.
      size: exactly so many variables for each weight that is not 0 (of each group of at most 15 where an
        input has more); None: any number. Biases take any number of constants.
    Raises: ValueError for a number out of range.

    Example:
      >>> Smallest(tolerance=0.05).needs_images
      False

    Source: Burkholz, ICML 2022, as in the published code; Natale et al. 2024 for fixed sizes.
    """

    bias_objective: ClassVar[Objective] = Objective.SMALLEST

    def choose(
        self,
        x: Float[np.ndarray, "m n"],
        t: Float[np.ndarray, " n"],
        part: Part,
        error: Float[np.ndarray, "m n"],
        which: Int[np.ndarray, " n"],
    ) -> Kept:
        """The smallest subset; of equals the nearest."""
        return choose_subset(x, t, Objective.SMALLEST, tolerance=self.tolerance * part.scale, size=self.size)


@dataclass(frozen=True)
class Best(_Sized):
    r"""The nearest subset sum, :math:`\min_S |\sum_S v - w|`.

    Args:
      tolerance, size: as of `Smallest`; the tolerance only decides what counts as unsolved.
    Raises: ValueError for a number out of range.

    Example:
      >>> Best(size=3)
      Best(tolerance=0.01, size=3)

    Source: Lueker 1998 for the sums.
    """


@dataclass(frozen=True)
class Single(_Independent):
    r"""At most one variable for each weight, :math:`\min_k |v_k - w|`; biases may take several constants.

    Args:
      tolerance: epsilon, in units of the layer's source scale; it only decides what counts as unsolved.
    Raises: ValueError for a number out of range.

    Example:
      >>> Single().most_copies > 15
      True

    Source: Malach et al., ICML 2020.
    """

    retries: ClassVar[bool] = False

    def most_variables(self, part: Part, multiplicity: int) -> int:
        """All members of a slot: one of many is found without enumeration."""
        return part.stream.slots.members.shape[1]

    def choose(
        self,
        x: Float[np.ndarray, "m n"],
        t: Float[np.ndarray, " n"],
        part: Part,
        error: Float[np.ndarray, "m n"],
        which: Int[np.ndarray, " n"],
    ) -> Kept:
        """The nearest variable, or none."""
        return choose_single(x, t, tolerance=self.tolerance * part.scale)


@dataclass(frozen=True)
class Robust(_Sized):
    r"""The subset of least error and noise, :math:`\min_S (\sum_S v - w)^2 R^2 + \sum_S v^2 E^2`.

    R is the root mean square of the input channel, E that of the error that a copy of it carries. Deep
    networks need this: nearest sums multiply the errors of the copies from layer to layer.

    Args:
      tolerance, size: as of `Smallest`; the tolerance only decides what counts as unsolved or deviating.
      noise: E "propagated" from layer to layer with statistics of the target, "measured" by running the
        ticket beside the target, or "fixed": E² / R² = ``price``, which needs no images.
      price: of "fixed".
    Raises: ValueError for a number out of range or an unknown word.

    Example:
      >>> Robust().needs_images, Robust(noise="fixed").needs_images
      (True, False)

    Source: this project (docs/construction.md).
    """

    noise: Noise = "propagated"
    price: float = 0.01

    most_copies: ClassVar[int] = MAX_ENUMERATED

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("price", self.price, (int, float), TINY, math.inf)
        if self.noise not in get_args(Noise):
            known = ", ".join(get_args(Noise))
            raise ValueError(f"solver.noise: expected one of {known}, got {self.noise!r}")

    @property
    def needs_images(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Statistics of the target come from images, unless the price is fixed."""
        return self.noise != "fixed"

    @property
    def runs_ticket(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Only to measure the errors."""
        return self.noise == "measured"

    def choose(
        self,
        x: Float[np.ndarray, "m n"],
        t: Float[np.ndarray, " n"],
        part: Part,
        error: Float[np.ndarray, "m n"],
        which: Int[np.ndarray, " n"],
    ) -> Kept:
        """The subset of least cost."""
        price = self.price * x**2 if self.noise == "fixed" else noise_price(error, part.rms[which])
        return choose_robust(x, t, price, tolerance=self.tolerance * part.scale, size=self.size)


@dataclass(frozen=True)
class Compensated:
    r"""Whole rows against calibration images, so that the errors of the copies cancel.

    :math:`\min_b E[(\sum_i v_i b_i z_i - y)^2]` over b in {0, 1}^n, block by block: see
    `slth.construction.compensated`. What univariate channels of smooth activations feed is solved by `Best`.

    Args:
      tolerance: only decides what counts as unsolved or deviating.
      sweeps: passes over all blocks, at least 1.
      block: most variables enumerated together, 1 to 20.
      positions: most (image, position) pairs looked at in one node.
      ridge: added to the diagonal of the second moments, in units of its mean.
      dense_ridge: the same for dense layers, which see one position an image.
    Raises: ValueError for a number out of range.

    Example:
      >>> Compensated(sweeps=4).needs_images
      True

    Source: this project (docs/construction.md); the descent follows Frantar and Alistarh, NeurIPS 2022.
    """

    tolerance: float = 0.01
    sweeps: int = 8
    block: int = 12
    positions: int = 16384
    ridge: float = 1e-4
    dense_ridge: float = 1e-3

    needs_images: ClassVar[bool] = True
    runs_ticket: ClassVar[bool] = True
    deals_blocks: ClassVar[bool] = False
    most_copies: ClassVar[int] = MAX_ENUMERATED

    def __post_init__(self) -> None:
        _check("tolerance", self.tolerance, (int, float), TINY, math.inf)
        _check("sweeps", self.sweeps, int, 1, math.inf)
        _check("block", self.block, int, 1, MAX_ENUMERATED)
        _check("positions", self.positions, int, 1, math.inf)
        _check("ridge", self.ridge, (int, float), 0, math.inf)
        _check("dense_ridge", self.dense_ridge, (int, float), 0, math.inf)

    def solve(self, problem: Problem) -> Solved:
        """Every row against the calibration data that the node's streams carry."""
        if problem.smooth_input:
            return Best(self.tolerance).solve(problem)
        settings = Blocks(self.sweeps, self.block, self.positions, self.ridge, self.dense_ridge)
        return solve_compensated(problem, settings, self.tolerance)
