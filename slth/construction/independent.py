r"""A node solved weight by weight: every subset-sum problem on its own.

For output copy (j, k), input i and tap tau: choose S among the members of i's slot such that
:math:`\sum_{k' \in S} v_{(j,k),(i,k'),\tau}\, g_{ik'} \approx f_i\, w_{j,i,\tau}`, with the members' gains g
and the slot's factor f (`slth.construction.state.Slots`). All problems are independent.

Source: Burkholz, ICML 2022, proof of the L + 1 construction.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from slth.construction.biases import fill, finish, solve_constant_terms, solve_in_units, tally
from slth.construction.choices import Kept, choose_robust, choose_subset
from slth.construction.means import with_means
from slth.construction.state import Part, Problem, Solved, Stats
from slth.construction.variables import WORD, Sums, Weights, grouped, sums_of, weights_of
from slth.subset_sum import Objective
from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES


def check_number(
    name: str, value: object, kind: type, low: float, high: float, *, above: bool = False
) -> None:
    """Refuse an option of a solver that is no number of this kind, or out of its range."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    enough = low < number if above else low <= number
    if not (math.isfinite(number) and enough and number <= high and isinstance(value, int | kind)):
        what = "an integer" if kind is int else "a number"
        least = f"above {low:g}" if above else f"of at least {low:g}"
        bound = least if math.isinf(high) else f"from {low:g} to {high:g}"
        if above and not math.isinf(high):
            bound = f"{least} and of at most {high:g}"
        raise ValueError(f"solver.{name}: expected {what} {bound}, got {value!r}")


@dataclass(frozen=True)
class Independent:
    """A solver that chooses weight by weight, by its rule `choose`; here the nearest sum."""

    tolerance: float = 0.01
    size: int | None = None

    needs_images = False
    runs_ticket = False
    solves_rows = False
    rows_apart: ClassVar[bool] = True
    most_copies = MAX_VARIABLES
    bias_objective: ClassVar[Objective] = Objective.BEST
    retries: ClassVar[bool] = True
    """Whether a weight that is missed may also use copies that were set aside."""

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, float, 0, math.inf, above=True)
        if self.size is not None:
            check_number("size", self.size, int, 0, MAX_ENUMERATED)

    def most_variables(self, part: Part, multiplicity: int) -> int:
        """Variables of one problem: m, at least 15; with prices or a fixed size not more than enumeration
        takes."""
        most = max(multiplicity, 15)
        return min(most, MAX_ENUMERATED) if part.priced or self.size is not None else most

    def choose(self, weights: Weights) -> Kept:
        """The solver's rule; here the nearest sum.

        A univariate channel of a smooth activation brings its remainder, and needs constants that cancel
        phi(0). So among such channels the subset of least robust cost counts as the nearest.

        Returns: the kept variables, and for each weight whether *some* subset is within the tolerance; that
          tells unsolved weights from deviating ones.
        """
        if weights.priced:
            return choose_robust(weights, weights.noise, self.size)
        return choose_subset(weights, Objective.BEST, self.size)

    def solve(self, problem: Problem) -> Solved:
        """Every subset-sum problem of a node on its own.

        Unsolved problems keep their best subset and are counted. A weight of 0 takes the empty subset.
        """
        filling, columns = fill(problem, self.tolerance), problem.rows.columns
        noise, missed = np.zeros(columns.shape), np.zeros(columns.shape)
        stats, offsets = Stats(), []
        for part, mask in zip(problem.parts, filling.masks, strict=True):
            counts, offset, own_noise, own_missed = _solve_part(self, problem, part, mask)
            noise, missed = noise + own_noise, missed + own_missed
            stats += counts
            offsets.append(offset)
        if problem.measured and problem.center:
            problem, offsets = with_means(problem, filling.masks)
            filling = filling._replace(problem=problem)
        bias_error, counts = solve_constant_terms(filling, offsets, self.bias_objective)
        usable = ~_outliers(missed + bias_error)
        return finish(filling, noise + bias_error, usable, stats + counts)


def _outliers(missed: Float[np.ndarray, "cout copies"]) -> Bool[np.ndarray, "cout copies"]:
    """Copies that missed their targets by over ten times as much as the median of their siblings.

    At most a third of them: every copy set aside is a variable less for the next layer.
    """
    rank = np.argsort(np.argsort(-missed, 1, kind="stable"), 1, kind="stable")
    return (missed > 100 * np.median(missed, 1, keepdims=True)) & (rank < missed.shape[1] // 3)


def _solve_part(
    rule: Independent, problem: Problem, part: Part, mask: Bool[np.ndarray, "taps source_cin source_cout"]
) -> tuple[Stats, np.ndarray, np.ndarray, np.ndarray]:
    """The weights of one linear map; sets ``mask``.

    Returns: the statistics; what constants must add at each tap to each row (taps, rows), the mean of what
      the sums miss less the members' own base; for each copy (cout, copies) the noise, and the sum of squared
      errors of its weights.
    """
    slots, columns = part.stream.slots, problem.rows.columns.reshape(-1)
    taps, count = len(mask), len(columns)
    offset = np.zeros(taps * count)
    noise, missed = np.zeros(count), np.zeros(count)
    stats, power = Stats(), 0.0
    members = slots.members.shape[1]
    # A slot of the input may hold more members than one problem takes: a second group solves what is left.
    most = rule.most_variables(part, problem.multiplicity)
    group = math.ceil(members / math.ceil(members / most))
    for weights in weights_of(part, columns, rule.tolerance):
        tap, which = np.divmod(weights.pair, len(slots.channel))
        size, total = np.zeros(len(tap), int), np.zeros(len(tap))
        reachable = np.zeros(len(tap), bool)
        for start in range(0, members, group):
            chosen = slice(start, start + group)
            found, reached = _chosen(rule, grouped(weights, chosen))
            _keep(found.mask, slots.members[:, chosen], which, tap, columns[weights.row], mask)
            weights = weights._replace(t=found.left)
            reachable |= reached
            size, total = size + found.size, total + found.total
            noise += sums(weights.row, found.noise, count)
            power += found.power.sum()
        left = weights.t
        noise += sums(weights.row, left**2 * part.rms[which] ** 2, count)
        missed += sums(weights.row, left**2, count)
        constant = part.mean[which] * left - slots.base * total
        offset += sums(tap * count + weights.row, constant, len(offset))
        stats += tally(left / part.scale, size, rule.tolerance, reachable)
    copies = problem.rows.columns.shape
    stats = _with_gain(stats, part, copies[1], power)
    return stats, offset.reshape(taps, count), noise.reshape(copies), missed.reshape(copies)


def _chosen(rule: Independent, weights: Weights) -> tuple[Sums, Bool[np.ndarray, " n"]]:
    """The subsets that a rule chooses, and which weights some subset meets."""
    if rule.size is not None:
        mask, reached = rule.choose(weights.with_all())
        return sums_of(weights, mask), reached
    mask, reached = rule.choose(weights)
    lacking = (weights.gain == 0).any(0)[weights.pair]  # a copy was set aside, or the slot is not full
    again = np.flatnonzero(~reached & lacking)
    if rule.retries and len(again):
        # Copies set aside are still better than a weight missed, at the price of their noise.
        retried = weights.some(again).with_all()
        enumerated = weights.variables <= MAX_ENUMERATED  # more variables cannot have prices
        mask[:, again], reached[again] = (
            choose_robust(retried, retried.noise) if enumerated else rule.choose(retried)
        )
    return sums_of(weights, mask), reached


def _keep(
    words: UInt32[np.ndarray, "words n"],
    members: Int[np.ndarray, "slots m"],
    slot: Int[np.ndarray, " n"],
    tap: Int[np.ndarray, " n"],
    column: Int[np.ndarray, " n"],
    mask: Bool[np.ndarray, "taps source_cin source_cout"],
) -> None:
    """Keep the chosen variables."""
    _, channels, width = mask.shape
    assert mask.flags.c_contiguous, "or a flat view of it would be a copy"
    flat, first = mask.reshape(-1), tap * (channels * width) + column
    for k, member in enumerate(members.T * width):
        kept = np.flatnonzero(words[k // WORD] >> np.uint32(k % WORD) & 1)
        flat[first[kept] + member[slot[kept]]] = True


def sums(
    group: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"], groups: int
) -> Float[np.ndarray, " groups"]:
    """The sum of each group's values; NumPy's count of nothing is of integers, whatever the weights."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _with_gain(stats: Stats, part: Part, copies: int, power: float) -> Stats:
    """The counts with what the part's gain is computed of; ``power``: sum of v² over the kept weights."""
    return stats._replace(
        source_power=float(power), target_power=float(np.square(part.weight, dtype=np.float64).sum()) * copies
    )


def deviations(
    part: Part,
    mask: Bool[np.ndarray, "taps source_cin source_cout"],
    columns: Int[np.ndarray, "cout copies"],
    tolerance: float,
) -> Stats:
    """How far the sums that a mask realises are from the weights, and which of them some subset meets."""
    slots, random = part.stream.slots, part.random.whole()
    target = np.repeat(part.goal, columns.shape[1], axis=2)
    left = target.astype(np.float64)
    size = np.zeros(target.shape, int)
    flat = columns.reshape(-1)
    power = 0.0
    for k in range(slots.members.shape[1]):
        kept = mask[:, slots.members[:, k]][:, :, flat] & (slots.gain[:, k] != 0)[:, None]
        v = np.where(kept, random[:, slots.members[:, k]][:, :, flat], 0)
        left -= v * slots.gain[:, k][:, None]
        size += kept
        power += float((v.astype(np.float64) ** 2).sum())
    far = np.nonzero(np.abs(left) > tolerance * part.scale)
    reachable = np.ones(target.shape, bool)
    taps, which, out = far
    # A subset of the first 15 members is a subset of all.
    x = (random[taps, slots.members[which].T, flat[out]] * slots.gain[which].T)[:15]
    reachable[far] = solve_in_units(x, target[far], Objective.BEST, tolerance=tolerance * part.scale).solved
    asked = target != 0
    stats = tally(left[asked] / part.scale, size[asked], tolerance, reachable[asked])
    return _with_gain(stats, part, columns.shape[1], power)
