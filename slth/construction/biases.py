r"""Constants and biases: constant channels with exactly known values, and a neuron's own random bias.

A row's constant terms are sums of random weights times exact constants. Through *safe* taps, which never read
zero padding, they are the same at every output position: these make the bias. What is needed at one tap only
(the offset :math:`-d \sum_S v` of univariate channels, the mean of what a centred sum misses) is made at that
tap, so that it vanishes at the borders exactly where its cause does.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.construction.state import Part, Problem, Read, Solved, Stats
from slth.nn.layers import Dense, Linear
from slth.subset_sum import Objective, Solution, solve, unpack

CHUNK = 15
"""Most variables of one bias problem; further, smaller ones solve what the first ones left."""
MOST = 16 * CHUNK
"""Most constants that a row uses."""
FINE = 22
"""Variables of one more problem, the smallest ones, for a row that the chunks have left unsolved."""


def safe_taps(layer: Linear, read: Read) -> Bool[np.ndarray, " taps"]:
    r"""Taps that never read zero padding: a constant channel contributes the same at every output position.

    Per axis, with input length n, output length O, stride s, dilation d, left padding p, tap r is safe iff
    :math:`p \le d r \le n - 1 + p - s (O - 1)`. A dense layer has no padding.
    """
    if isinstance(layer, Dense):
        return np.ones(read.positions, bool)
    output = layer.output_shape(read.shape)
    axes = []
    for axis, taps in enumerate(layer.kernel):
        place = layer.dilation[axis] * np.arange(taps)
        left = layer.padding[axis][0]
        last = read.shape[axis] - 1 + left - layer.stride[axis] * (output[axis] - 1)
        axes.append((left <= place) & (place <= last))
    return np.array([all(safe) for safe in itertools.product(*axes)])


def constant_variables(
    parts: tuple[Part, ...], tap: tuple[int, int] | None = None
) -> tuple[list[tuple[int, int, int]], Float[np.ndarray, " variables"]]:
    """The constants that reach a node through safe taps, or through one ``tap`` (part, tap) whatever it is.

    Channels change fastest, so that the first `MOST` variables read many constants rather than many taps.

    Returns: the (part, tap, channel) of each and its value, which the weight there is multiplied by.
    """
    taps = [tap] if tap else [(p, int(t)) for p, part in enumerate(parts) for t in np.flatnonzero(part.safe)]
    found = [
        (p, t, int(channel), float(value))
        for p, t in taps
        for channel, value in zip(parts[p].stream.constant_channels, parts[p].stream.constants, strict=True)
        if value != 0 and math.isfinite(value)
    ][:MOST]
    return [place[:3] for place in found], np.array([place[3] for place in found])


class Constants(NamedTuple):
    """The variables of the biases of some rows."""

    places: list[tuple[int, int, int]]
    """(part, tap, channel) of each; the source's own bias, behind all parts, is one at (parts, 0, 0)."""
    x: Float[np.ndarray, "variables rows"]
    """Random weight times constant."""


def constants_of(
    problem: Problem,
    columns: Int[np.ndarray, " rows"] | None = None,
    tap: tuple[int, int] | None = None,
) -> Constants:
    """The variables of the biases of the source's outputs ``columns``, by default of all copies.

    Args:
      tap: see `constant_variables`; a source's own biases are not of one tap.
    """
    parts, own = problem.parts, problem.rows.own
    columns = problem.rows.columns.reshape(-1) if columns is None else columns
    places, values = constant_variables(parts, tap)
    where = np.array(places, int).reshape(-1, 3)
    found = [
        part.random.at(some[:, 1:2], some[:, 2:], columns)
        for number, part in enumerate(parts)
        if len(some := where[where[:, 0] == number])
    ]
    if own is not None and tap is None:
        places, values = [*places, (len(parts), 0, 0)], np.append(values, 1.0)
        found.append(own[None, columns])
    x = np.concatenate(found) if found else np.zeros((0, len(columns)))
    return Constants(places, x * values[:, None])


class Filling(NamedTuple):
    """The masks of a node while they are filled in, and the problem that they are to solve."""

    problem: Problem
    tolerance: float
    """In units of the source's scale."""
    masks: tuple[Bool[np.ndarray, "_ _ source_cout"], ...]
    own: Bool[np.ndarray, " source_cout"]
    """Mask of the source's own biases."""


def fill(
    problem: Problem, tolerance: float, masks: tuple[Bool[np.ndarray, "_ _ source_cout"], ...] | None = None
) -> Filling:
    """The masks of a node that keep these weights so far, by default nothing, and no bias."""
    masks = masks or tuple(np.zeros(part.random.shape, bool) for part in problem.parts)
    return Filling(problem, tolerance, masks, np.zeros(masks[0].shape[2], bool))


def unit_of(largest: float, tolerance: float) -> float:
    """A power of 2 in whose units numbers up to the largest, and the tolerance, can be solved."""
    tolerances = math.ceil(math.log2(max(tolerance, 1e-30)))
    return 2.0 ** max(0, tolerances, math.ceil(math.log2(max(largest, 1.0))) - 20)


def solve_in_units(
    x: Float[np.ndarray, "m n"], t: Float[np.ndarray, " n"], objective: Objective, *, tolerance: float
) -> Solution:
    """`slth.subset_sum.solve` for values of any size, in units that suit it."""
    unit = unit_of(max(float(np.abs(x).max(initial=0)), float(np.abs(t).max(initial=0))), tolerance)
    if unit > 1:
        x, t = x / unit, t / unit
    return solve(x, t, objective, tolerance=tolerance / unit)


class Goal(NamedTuple):
    """The biases that some rows should have."""

    value: Float[np.ndarray, " rows"]
    tap: tuple[int, int] | None = None
    """Through which (part, tap) alone; None: through all safe taps (see `constant_variables`)."""


class _Terms(NamedTuple):
    """The constant terms of some rows, which are chosen a few at a time."""

    goal: Goal
    places: list[tuple[int, int, int]]
    x: Float[np.ndarray, "variables rows"]
    order: Int[np.ndarray, "variables rows"]
    """A row's variables from the largest to the smallest."""
    kept: Bool[np.ndarray, "variables rows"]
    left: Float[np.ndarray, " rows"]
    """What the kept ones leave of the goal."""

    def problems(
        self, variables: Int[np.ndarray, "k n"], some: Int[np.ndarray, " n"], size: int
    ) -> tuple[Float[np.ndarray, "size n"], Float[np.ndarray, " n"]]:
        """Some variables of some rows, of so many, and what these should sum to beside all others."""
        x = np.zeros((size, len(some)))
        x[: len(variables)] = np.take_along_axis(self.x[:, some], variables, 0)
        before = np.take_along_axis(self.kept[:, some], variables, 0)
        aim = self.left[some] + (before * x[: len(variables)]).sum(0)
        return x, np.where(self.goal.value[some] != 0, aim, 0)

    def keep(
        self,
        variables: Int[np.ndarray, "k n"],
        some: Int[np.ndarray, " n"],
        chosen: Bool[np.ndarray, "k n"],
    ) -> None:
        """Keep the chosen ones of some variables of some rows, and no others of these."""
        x = np.take_along_axis(self.x[:, some], variables, 0)
        before = np.take_along_axis(self.kept[:, some], variables, 0)
        self.left[some] = self.left[some] + (before * x).sum(0) - (chosen * x).sum(0)
        self.kept[variables, some] = chosen


def _terms(filling: Filling, goal: Goal, columns: Int[np.ndarray, " rows"]) -> _Terms:
    """The constant terms of some rows, none of them kept."""
    places, x = constants_of(filling.problem, columns, goal.tap)
    # What is far below the tolerance would only take the place of a small one that helps.
    idle = np.abs(x) < filling.tolerance * filling.problem.parts[0].scale / 64
    order = np.argsort(np.where(idle, -np.inf, -np.abs(x)), 0, kind="stable")
    return _Terms(goal, places, x, order, np.zeros(x.shape, bool), goal.value.astype(np.float64))


def solve_biases(
    filling: Filling, goals: Sequence[Goal], columns: Int[np.ndarray, " rows"], objective: Objective
) -> tuple[list[Float[np.ndarray, " rows"]], Stats]:
    r"""Subsets of :math:`u \hat c` (random weight times exact constant) that sum to the biases of the rows.

    A row's variables are taken in chunks from the largest to the smallest; each chunk solves what the ones
    before it left. Rows that are still unsolved choose among their `FINE` smallest variables again, all at
    once: where constants are large, 15 variables are too coarse. The chosen weights are set in the masks; a
    source's own biases are one more variable of each row.

    Args:
      goals: biases of the source output channels ``columns``. Those of different taps share no variable, so
        that they are solved together.
      objective: `Objective.SMALLEST` or `Objective.BEST`; constants carry no noise that could be priced.
    Returns: the realised biases (float64, exact products of what the mask keeps) of each goal, and the
      statistics of all.
    """
    tolerance, scale = filling.tolerance, filling.problem.parts[0].scale
    found = [_terms(filling, goal, columns) for goal in goals]
    unfinished = [terms for terms in found if terms.places and terms.goal.value.any()]

    def choose(chunks: list[tuple[_Terms, Int[np.ndarray, "k n"], Int[np.ndarray, " n"]]], size: int) -> None:
        if not chunks:
            return
        problems = [terms.problems(variables, some, size) for terms, variables, some in chunks]
        x, t = (np.concatenate(arrays, -1) for arrays in zip(*problems, strict=True))
        mask = np.asarray(unpack(solve_in_units(x, t, objective, tolerance=tolerance * scale).mask, size))
        chosen = np.split(mask, np.cumsum([len(some) for *_, some in chunks])[:-1], 1)
        for (terms, variables, some), own in zip(chunks, chosen, strict=True):
            terms.keep(variables, some, own[: len(variables)])

    every = np.arange(len(columns))
    for start in range(0, max((len(terms.places) for terms in unfinished), default=0), CHUNK):
        here = [terms for terms in unfinished if len(terms.places) > start]
        choose([(terms, terms.order[start : start + CHUNK], every) for terms in here], CHUNK)
    fine = []
    for terms in unfinished:
        unsolved = np.flatnonzero((terms.goal.value != 0) & (np.abs(terms.left) > tolerance * scale))
        if terms.goal.tap is None and len(unsolved) and len(terms.places) > CHUNK:
            fine.append((terms, terms.order[-FINE:, unsolved], unsolved))
    choose(fine, FINE)
    masks, stats = [*filling.masks, filling.own[None, None]], Stats()
    for terms in found:
        for (p, t, c), chosen in zip(terms.places, terms.kept, strict=True):
            masks[p][t, c, columns] |= chosen
        wanted = terms.goal.value != 0
        stats += tally(terms.left[wanted] / scale, terms.kept.sum(0)[wanted], tolerance)
    return [terms.goal.value - terms.left for terms in found], stats


def tally(
    left: Float[np.ndarray, " n"],
    size: Int[np.ndarray, " n"],
    tolerance: float,
    reachable: Bool[np.ndarray, " n"] | None = None,
) -> Stats:
    """The counts of problems that miss their targets by ``left``, in units of the source's scale.

    Args:
      reachable: which of them some subset meets; by default none of those that are missed.
    """
    off = np.abs(left)
    far = off > tolerance
    deviating = 0 if reachable is None else int((far & reachable).sum())
    return Stats(
        problems=len(off),
        unsolved=int(far.sum()) - deviating,
        deviating=deviating,
        size=float(size.sum()),
        error=float(off.sum()),
        max_error=float(off.max(initial=0)),
        sizes=tuple(np.bincount(size).tolist()),
    )


def solve_constant_terms(
    filling: Filling, offsets: Sequence[Float[np.ndarray, "_ rows"]], objective: Objective
) -> tuple[Float[np.ndarray, "cout copies"], Stats]:
    """The biases of the copies, and what each tap of each part needs besides (see the module).

    Offsets at safe taps are one with the bias; at the others each is a problem of its own.
    Returns: squared errors and the statistics.
    """
    parts, rows = filling.problem.parts, filling.problem.rows
    columns = rows.columns.reshape(-1)
    bias = np.repeat(rows.bias, rows.columns.shape[1]) + rows.extra
    for part, offset in zip(parts, offsets, strict=True):
        bias = bias + offset[part.safe].sum(0)
    goals = [Goal(bias)] + [
        Goal(offset[tap], (number, int(tap)))
        for number, (part, offset) in enumerate(zip(parts, offsets, strict=True))
        for tap in np.flatnonzero(~part.safe & (offset != 0).any(1))
    ]
    realised, stats = solve_biases(filling, goals, columns, objective)
    error = sum((own - goal.value) ** 2 for own, goal in zip(realised, goals, strict=True))
    return np.reshape(error, rows.columns.shape), stats


def finish(
    filling: Filling,
    noise: Float[np.ndarray, "cout copies"],
    usable: Bool[np.ndarray, "cout copies"],
    stats: Stats,
) -> Solved:
    """The node, once its weights and biases are chosen, with the rows of its K constant channels.

    They come as near to the values asked for as the constants before them reach. Where such a value is NaN
    (carried by the skip) the row stays pruned and contributes 0. What is reached is known exactly, so it need
    not be near. In a layer with biases of its own every constant channel keeps just that.
    """
    rows, total = filling.problem.rows, len(filling.own)
    columns = np.arange(total - len(rows.constant), total)
    if rows.own is None:
        goal = np.where(np.isnan(rows.constant), 0, rows.constant)
        (constants,), _ = solve_biases(filling, [Goal(goal)], columns, Objective.BEST)
        return Solved(filling.masks, constants, noise, usable, stats)
    filling.own[columns] = True
    constants = rows.own[columns].astype(np.float64)
    return Solved(filling.masks, constants, noise, usable, stats, filling.own)
