r"""Weights rounded to multiples of a step, each realised by the subset that stands for its multiple.

In a source of two layers for each of the target's, N univariate channels carry :math:`\alpha_k z` of one
input z, k = 1, ..., N, and the layer behind has random weights :math:`v_k` for them. So a subset S of them is
a weight :math:`u = \sum_{k \in S} v_k \alpha_k` of that input. Of the 2^N weights that a place of the network
can have, `slth.subset_sum.cells` names one for each multiple q D of a step. Choosing among those alone costs
little accuracy, and the mask then says no more than the whole numbers q: a ticket's file holds these, and its
reader finds the subsets again (docs/ticket_format.md).

The numbers of a row are chosen against calibration data, one after the other, with feedback: with G the
covariance of the inputs as the ticket makes them, u* the row that suits the data best and
:math:`\lambda r(q)` the price of the bits of q,

    minimise  (u - u*)^T G (u - u*) + lambda sum r(q)

first greedily, in the order of falling variances, each error made up for by the weights that are still free;
then by sweeps over single weights.

Where :math:`d = \phi(0) \ne 0`, a subset brings the offset :math:`d \sum_S v` too, and constants cancel the
offsets of each tap. Few constants do not reach far. So a row also pays :math:`\mu o_\tau^2` for each tap
:math:`\tau`, with :math:`o_\tau` the sum of the tap's offsets and of the mean of what its weights miss.

Source: this project; the feedback is that of GPTQ (Frantar et al., ICLR 2023), the price of the bits
entropy-constrained quantisation (Chou, Lookabaugh and Gray 1989).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.coding.rounded import LARGEST_PRODUCT, LARGEST_STEP, MOST_MEMBERS, UNIT
from slth.construction.biases import fill, finish, solve_constant_terms
from slth.construction.feedback import factor_of, fed_back
from slth.construction.independent import check_number, deviations
from slth.construction.means import with_means
from slth.construction.regression import regression
from slth.construction.samples import draw_samples
from slth.construction.state import Part, Problem, Solved, Stats
from slth.construction.steps import LARGEST_INTEGER
from slth.nn.layers import Conv
from slth.random import GRID
from slth.subset_sum import Objective
from slth.subset_sum.cells import NONE, cells

MOST_BITS = 8
"""Largest entropy that can be asked for: 2^10 subsets do not tell more levels apart."""
MOST_VALUES = 2**24
"""Weights that are held at a time."""
SMOOTHING = 0.3
"""Added to how often each q is counted, so that no price is infinite."""
LEAST_RIDGE = 1e-6
"""A smaller one would leave the moments of few images singular."""
OFFSET_PRICE = 0.5
"""What a sum of offsets as large as one constant costs: in units of D² times the mean variance that an input
has given the inputs after it."""


@dataclass(frozen=True)
class Rounded:
    r"""Weights rounded to few bits with error feedback, each by the subset that stands for it; for 2L.

    Args:
      bits: entropy of the rounded weights, on average over all layers; layers whose errors matter more get
        more (`slth.construction.steps`).
      variables: univariate channels that a weight uses, 1 to 10: those of largest weight among the source's.
        More of them realise rounded weights more nearly, and reach further; they cost time, but no bits.
      rate: what a bit is worth: lambda is ``rate`` times D² times the mean variance that an input has given
        the inputs after it.
      constants: most constants that a row reads at a tap, those of largest value; None: 8 (1 + ``bits``).
      sweeps: passes over single weights after the first.
      tolerance: only decides what counts as unsolved or deviating.
      positions: most (image, position) pairs looked at in one node.
      ridge: pulls rows towards the target's, in units of the mean variance of an input; at least 1e-6.
      dense_ridge: the same for dense layers, which see one position an image.
    Raises: ValueError for a number out of range.

    Example:
      >>> import slth
      >>> slth.Rounded(bits=3).needs_images
      True

    Source: this project (docs/bits.md).
    """

    bits: float = 2.0
    variables: int = 10
    rate: float = 0.02
    constants: int | None = None
    sweeps: int = 2
    tolerance: float = 0.01
    positions: int = 16384
    ridge: float = 1e-2
    dense_ridge: float = 1e-1

    needs_images = True
    runs_ticket = True
    solves_rows = True
    most_copies = MOST_MEMBERS

    def __post_init__(self) -> None:
        check_number("bits", self.bits, float, 0, MOST_BITS, above=True)
        check_number("variables", self.variables, int, 1, MOST_MEMBERS)
        check_number("rate", self.rate, float, 0, math.inf)
        if self.constants is not None:
            check_number("constants", self.constants, int, 0, math.inf)
        check_number("sweeps", self.sweeps, int, 0, math.inf)
        check_number("tolerance", self.tolerance, float, 0, math.inf, above=True)
        check_number("positions", self.positions, int, 1, math.inf)
        check_number("ridge", self.ridge, float, LEAST_RIDGE, math.inf)
        check_number("dense_ridge", self.dense_ridge, float, LEAST_RIDGE, math.inf)

    def solve(self, problem: Problem) -> Solved:
        """The rounded rows of a node, and biases that make up for what they miss in the mean."""
        most = math.ceil(8 * (1 + self.bits)) if self.constants is None else self.constants
        problem = problem._replace(parts=tuple(_fewer(part, most) for part in problem.parts))
        parts, rows = problem.parts, problem.rows
        columns = rows.columns.reshape(-1)
        conv = isinstance(parts[0].layer, Conv)
        samples = draw_samples(parts[0].layer, parts[0].read.shape, _images(parts[0]), self.positions)
        found = regression(parts, samples, problem.carried, rows)
        share = self.ridge if conv else self.dense_ridge
        ridge = share * max(float(np.trace(found.gram)) / len(found.gram), 1e-30)
        shared = _feedback(found.gram, ridge)
        masks = tuple(np.zeros(part.random.shape, bool) for part in parts)
        weights = np.zeros((len(found.gram), len(columns)))
        # Rows do not depend on each other: some at a time, so that all weights they can have fit into memory.
        count = max(1, MOST_VALUES // (len(weights) * sum(map(_cells, parts))))
        for start in range(0, len(columns), count):
            some = slice(start, start + count)
            levels = tuple(_levels(part, columns, some, self.variables) for part in parts)
            cross = found.cross[:, some] + ridge * np.concatenate([level.goal for level in levels])
            chosen = _rounded_rows(cross, found.mean_input, levels, shared, self)
            weights[:, some] = chosen.weights
            ends = np.cumsum([len(level.goal) for level in levels])[:-1]
            for part, level, cell, mask in zip(
                parts, levels, np.split(chosen.cell, ends), masks, strict=True
            ):
                _keep(level, cell, part.goal.shape[:2], columns[some], mask)
        filled = tuple(zip(parts, masks, strict=True))
        stats = sum((deviations(*pair, rows.columns, self.tolerance) for pair in filled), Stats())
        if problem.center:
            problem, offsets = with_means(problem, masks)
        else:
            missed = found.mean_output - found.mean_input @ weights
            extra = missed - np.repeat(rows.bias, rows.columns.shape[1])
            problem = problem._replace(rows=rows._replace(extra=extra))
            offsets = [np.zeros((len(part.safe), len(columns))) for part in parts]
        filling = fill(problem, self.tolerance, masks)
        stats += solve_constant_terms(filling, offsets, Objective.BEST)[1]
        none, everything = np.zeros(rows.columns.shape), np.ones(rows.columns.shape, bool)
        return finish(filling, none, everything, stats)._replace(steps=tuple(map(_step, parts)))


class Levels(NamedTuple):
    """The weights that one linear map can have at every place, whole numbers in units of 2^-48."""

    goal: Float[np.ndarray, "n rows"]
    """What the members of each (tap, slot) should sum to."""
    members: Int[np.ndarray, "slots N"]
    """The univariate channels used of each slot, in order."""
    there: Bool[np.ndarray, "slots N"]
    """False for a member that is missing."""
    step: int
    """D."""
    values: Float[np.ndarray, "cells n rows"]
    """The weight that stands for q = -Q, ..., Q; infinite where none does."""
    subsets: Int[np.ndarray, "cells n rows"]
    bits: Float[np.ndarray, " cells"]
    """r(q), what each q costs."""
    offsets: Float[np.ndarray, "cells n rows"] | None = None
    """What a subset brings beside its weight, phi(0) times the sum of its v; None where phi(0) = 0."""
    constant: float = 0.0
    """Root mean square of what one constant brings at a tap; 0 without constants."""


class Chosen(NamedTuple):
    """Rows of rounded weights."""

    weights: Float[np.ndarray, "n rows"]
    cell: Int[np.ndarray, "n rows"]
    """q + Q."""


def _fewer(part: Part, most: int) -> Part:
    """A part that has its largest constants alone."""
    stream = part.stream
    largest = np.sort(np.argsort(-np.abs(stream.constants), kind="stable")[:most])
    channels, constants = stream.constant_channels[largest], stream.constants[largest]
    return part._replace(stream=stream._replace(constant_channels=channels, constants=constants))


def _images(part: Part) -> int:
    assert part.stream.x is not None
    return len(part.stream.x)


def _step(part: Part) -> int:
    """D in units of 2^-48."""
    return min(max(1, round(part.step / UNIT)), LARGEST_STEP)


def _most(part: Part) -> int:
    """Q, the largest |q| that a weight may have: one more than any weight of the target needs."""
    return min(LARGEST_INTEGER, math.ceil(np.abs(part.goal).max(initial=0) / (_step(part) * UNIT)) + 1)


def _cells(part: Part) -> int:
    return 2 * _most(part) + 1


def _levels(part: Part, columns: Int[np.ndarray, " rows"], some: slice, variables: int) -> Levels:
    """The weights that some of the rows can have."""
    slots, step, most = part.stream.slots, _step(part), _most(part)
    # The largest gains of each slot; channels in order, so that the subset numbers are those of the file.
    largest = np.argsort(-np.abs(slots.gain), 1, kind="stable")[:, :variables]
    largest = np.sort(largest, 1)
    members, gain = (np.take_along_axis(a, largest, 1) for a in (slots.members, slots.gain))
    goal = np.repeat(part.goal, len(columns) // part.goal.shape[2], 2)[..., some].astype(np.float64)
    random = part.random.some(members.reshape(-1), columns[some]).whole()
    random = random.reshape(len(random), *members.shape, -1)
    variable = (_whole(random) * _whole(gain)[:, :, None]).transpose(2, 0, 1, 3)
    if np.abs(variable).max(initial=0) * UNIT >= LARGEST_PRODUCT:
        raise ValueError(
            f"source.scale: {part.path} has products of weights of {LARGEST_PRODUCT:g} and more, which"
            " rounding cannot use: make the source with smaller scales"
        )
    found = cells(variable.reshape(len(variable), -1), step, most)
    shape = (2 * most + 1, goal[..., 0].size, goal.shape[2])
    values = np.where(found.sums == NONE, np.inf, found.sums * UNIT).reshape(shape)
    nearest = np.clip(np.rint(part.goal / (step * UNIT)), -most, most).astype(int)
    counts = np.bincount(nearest.reshape(-1) + most, minlength=len(values)) + SMOOTHING
    shares = (counts + counts[::-1]) / (2 * counts.sum())
    goal, subsets = goal.reshape(shape[1:]), found.subsets.reshape(shape)
    offsets, constant = None, 0.0
    if slots.base:
        by_member = random.transpose(2, 0, 1, 3).reshape(len(variable), *shape[1:]).astype(np.float64)
        offsets = np.zeros(shape)
        for k, v in enumerate(slots.base * by_member):
            offsets += (subsets >> k & 1) * v
        constant = _constant(part, columns)
    return Levels(goal, members, gain != 0, step, values, subsets, -np.log2(shares), offsets, constant)


def _constant(part: Part, columns: Int[np.ndarray, " rows"]) -> float:
    """Root mean square of what a constant brings to one of the rows at a tap."""
    channels, constants = part.stream.constant_channels, part.stream.constants
    if not len(channels):
        return 0.0
    brought = constants[:, None] * part.random.some(channels, columns).whole()
    return float(np.sqrt(np.square(brought, dtype=np.float64).mean()))


def _whole(values: np.ndarray) -> Int[np.ndarray, "..."]:
    """Random parameters as whole multiples of 2^-24."""
    return np.rint(values.astype(np.float64) / GRID).astype(np.int64)


class Feedback(NamedTuple):
    """What all rows of a node share."""

    gram: Float[np.ndarray, "n n"]
    """With its ridge."""
    order: Int[np.ndarray, " n"]
    """The inputs, of falling variance."""
    factor: Float[np.ndarray, "n n"]
    """Of the inputs in this order (`factor_of`)."""


def _feedback(gram: Float[np.ndarray, "n n"], ridge: float) -> Feedback:
    gram = gram + ridge * np.eye(len(gram))
    order = np.argsort(-np.diagonal(gram), kind="stable")
    return Feedback(gram, order, factor_of(gram[np.ix_(order, order)]))


class Place(NamedTuple):
    """One input of a node's rows."""

    level: Levels
    number: int
    """Of the (tap, slot) in its part."""
    tap: int
    """Counted over all parts."""
    price: Float[np.ndarray, "cells 1"]
    offset_price: float


def _places(levels: tuple[Levels, ...], rate: float, variance: float) -> list[Place]:
    """The inputs of a node in the order of its moments; ``variance``: see `Rounded.rate`."""
    places, before = [], 0
    for level in levels:
        unit = (level.step * UNIT) ** 2 * variance
        price = rate * unit * level.bits[:, None]
        offset_price = OFFSET_PRICE * unit / level.constant**2 if level.constant else 0.0
        slots = len(level.members)
        places += [
            Place(level, number, before + number // slots, price, offset_price)
            for number in range(len(level.goal))
        ]
        before += len(level.goal) // slots
    return places


def _rounded_rows(
    wanted: Float[np.ndarray, "n rows"],
    mean: Float[np.ndarray, " n"],
    levels: tuple[Levels, ...],
    shared: Feedback,
    solver: Rounded,
) -> Chosen:
    """Some rows of a node, side by side.

    Args:
      wanted: covariance of inputs and wanted outputs, and of the ridge.
      mean: of the inputs.
    """
    gram, order, factor = shared
    conditional = 1 / np.diagonal(factor) ** 2
    places = _places(levels, solver.rate, float(conditional.mean()))
    weights, cell, each = np.zeros_like(wanted), np.zeros(wanted.shape, int), np.arange(wanted.shape[1])
    offsets, by_tap = np.zeros_like(wanted), np.zeros((places[-1].tap + 1, wanted.shape[1]))

    def nearest(n: int, centre: Float[np.ndarray, " rows"], weight: float) -> Float[np.ndarray, " rows"]:
        level, number, tap, price, offset_price = places[n]
        values = level.values[:, number]
        cost = (values - centre) ** 2 * weight + price
        if level.offsets is not None and offset_price:
            missed = np.where(np.isinf(values), 0, values - level.goal[number])
            brings = level.offsets[:, number] + missed * mean[n]
            others = by_tap[tap] - offsets[n]
            cell[n] = (cost + offset_price * (others + brings) ** 2).argmin(0)
            offsets[n] = brings[cell[n], each]
            by_tap[tap] = others + offsets[n]
        else:
            cell[n] = cost.argmin(0)
        return values[cell[n], each]

    free, numbers = np.linalg.solve(gram, wanted)[order], order.tolist()
    weights[order] = fed_back(free, factor, lambda k, left: nearest(numbers[k], left, conditional[k]))
    missed = wanted - gram @ weights
    for _ in range(solver.sweeps):
        for n in numbers:
            own = float(gram[n, n])
            new = nearest(n, weights[n] + missed[n] / own, own)
            change = new - weights[n]
            weights[n] = new
            moved = np.flatnonzero(change)
            if len(moved):
                missed[:, moved] -= gram[:, n, None] * change[moved]
    return Chosen(weights, cell)


def _keep(
    level: Levels,
    cell: Int[np.ndarray, "n rows"],
    shape: tuple[int, int],
    columns: Int[np.ndarray, " rows"],
    mask: Bool[np.ndarray, "taps source_cin source_cout"],
) -> None:
    """Keep the variables that stand for the chosen numbers; ``shape``: taps and slots."""
    subset = np.take_along_axis(level.subsets, cell[None], 0)[0].reshape(*shape, len(columns))
    for number, (members, there) in enumerate(zip(level.members.T, level.there.T, strict=True)):
        mask[:, members[there, None], columns] |= (subset[:, there] >> number & 1).astype(bool)
