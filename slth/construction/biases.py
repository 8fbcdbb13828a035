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

from slth.construction.state import Part, Read, Rows, Stats
from slth.nn.layers import Dense, Linear
from slth.subset_sum import Objective, Solution, solve, unpack

CHUNK = 15
"""Most variables of one bias problem; further, smaller ones solve what the first ones left."""
CHUNKS = 16
FINE = 22
"""Variables of one more problem, the smallest ones, for a row that the chunks have left unsolved."""
OWN = -1
"""In place of a part's number: the row's own bias."""


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


class Constants(NamedTuple):
    """The constants a row can use: the weight at each place times the value there."""

    places: list[tuple[int, int, int]]
    """(part, tap, channel); part `OWN` is the row's own bias."""
    values: Float[np.ndarray, " variables"]


def constant_variables(
    parts: tuple[Part, ...], limit: int = CHUNK * CHUNKS, *, tap: tuple[int, int] | None = None
) -> Constants:
    """The constants that reach a node through safe taps, or through one ``tap`` (part, tap) whatever it is.

    Channels change fastest, so that the first ``limit`` variables read many constants rather than many taps.
    """
    taps = [tap] if tap else [(p, int(t)) for p, part in enumerate(parts) for t in np.flatnonzero(part.safe)]
    found = [
        (p, t, int(channel), float(value))
        for p, t in taps
        for channel, value in zip(parts[p].stream.constant_channels, parts[p].stream.constants, strict=True)
        if value != 0
    ][:limit]
    return Constants([place[:3] for place in found], np.array([place[3] for place in found]))


class Masks(NamedTuple):
    """The masks of a node while they are filled in."""

    parts: tuple[Bool[np.ndarray, "_ _ source_cout"], ...]
    own: Bool[np.ndarray, " source_cout"]


def solve_in_units(
    x: Float[np.ndarray, "m n"],
    t: Float[np.ndarray, " n"],
    objective: Objective,
    *,
    tolerance: float,
    size: int | None = None,
    price: Float[np.ndarray, "m n"] | None = None,
) -> Solution:
    """`slth.subset_sum.solve` for values of any size, in units of a power of 2 that suit it."""
    unit = 2.0 ** max(0, math.ceil(math.log2(max(tolerance, 1e-30))))
    if unit > 1:
        x, t, price = x / unit, t / unit, None if price is None else price / unit**2
    return solve(x, t, objective, tolerance=tolerance / unit, size=size, price=price)


def solve_biases(
    parts: tuple[Part, ...],
    goal: Float[np.ndarray, " rows"],
    columns: Int[np.ndarray, " rows"],
    masks: Masks,
    *,
    objective: Objective,
    tolerance: float,
    own: Float[np.ndarray, " source_cout"] | None = None,
    tap: tuple[int, int] | None = None,
) -> tuple[Float[np.ndarray, " rows"], Stats]:
    r"""Subsets of :math:`u \hat c` (random weight times exact constant) that sum to the biases of the rows.

    A row's variables are taken in chunks from the largest to the smallest; each chunk solves what the ones
    before it left. Rows that are still unsolved choose among their `FINE` smallest variables again, all at
    once: where constants are large, 15 variables are too coarse. The chosen weights are set in ``masks``.

    Args:
      goal: bias of each source output channel of ``columns``.
      objective: `Objective.SMALLEST` or `Objective.BEST`; constants carry no noise that could be priced.
      tolerance: in units of the source's scale.
      own: the source's own biases, one more variable of each row.
      tap: see `constant_variables`.
    Returns: the realised biases (float64, exact products of what the mask keeps) and the statistics.
    """
    places, values = constant_variables(parts, tap=tap)
    if own is not None and tap is None:
        places, values = [*places, (OWN, 0, 0)], np.append(values, 1.0)
    scale = parts[0].scale
    left = goal.astype(np.float64).copy()
    sizes = np.zeros(len(goal), int)
    nonzero = goal != 0
    if nonzero.any() and places:
        rows = [
            own[columns] if own is not None and p == OWN else parts[p].random[t, c, columns]
            for p, t, c in places
        ]
        x = np.stack(rows) * values[:, None]
        # What is far below the tolerance would only take the place of a small one that helps.
        idle = np.abs(x) < tolerance * scale / 64
        order = np.argsort(np.where(idle, -np.inf, -np.abs(x)), 0, kind="stable")
        kept = np.zeros(x.shape, bool)

        def choose(chunk: Int[np.ndarray, "k n"], size: int, some: Int[np.ndarray, " n"]) -> None:
            here = np.zeros((size, len(some)))
            here[: len(chunk)] = np.take_along_axis(x[:, some], chunk, 0)
            before = np.take_along_axis(kept[:, some], chunk, 0)
            aim = left[some] + (before * here[: len(chunk)]).sum(0)
            aimed = np.where(nonzero[some], aim, 0)
            solution = solve_in_units(here, aimed, objective, tolerance=tolerance * scale)
            chosen = np.asarray(unpack(solution.mask, size))[: len(chunk)]
            kept[chunk, some] = chosen
            left[some] = aim - (chosen * here[: len(chunk)]).sum(0)

        every = np.arange(len(goal))
        for start in range(0, len(places), CHUNK):
            choose(order[start : start + CHUNK], CHUNK, every)
        unsolved = np.flatnonzero(nonzero & (np.abs(left) > tolerance * scale))
        if tap is None and len(unsolved) and len(places) > CHUNK:
            choose(order[-FINE:, unsolved], FINE, unsolved)
        for (p, t, c), chosen in zip(places, kept, strict=True):
            if p == OWN:
                masks.own[columns] |= chosen
            else:
                masks.parts[p][t, c, columns] |= chosen
        sizes = kept.sum(0)
    off = np.abs(left[nonzero]) / scale
    stats = Stats(
        problems=int(nonzero.sum()),
        unsolved=int((off > tolerance).sum()),
        size=float(sizes.sum()),
        error=float(off.sum()),
        max_error=float(off.max(initial=0)),
        sizes=tuple(np.bincount(sizes[nonzero]).tolist()),
    )
    return goal - left, stats


def empty_masks(parts: tuple[Part, ...]) -> Masks:
    """Masks of a node that keep nothing yet."""
    kernels = tuple(np.zeros(part.random.shape, bool) for part in parts)
    return Masks(kernels, np.zeros(parts[0].random.shape[2], bool))


def solve_constant_terms(
    parts: tuple[Part, ...],
    rows: Rows,
    offsets: Sequence[Float[np.ndarray, "_ rows"]],
    masks: Masks,
    *,
    objective: Objective,
    tolerance: float,
) -> tuple[Float[np.ndarray, "cout copies"], Stats]:
    """The biases of the copies, and what each tap of each part needs besides (see the module).

    Offsets at safe taps are one with the bias; at the others each is a problem of its own.
    Returns: squared errors and the statistics.
    """
    columns = rows.columns.reshape(-1)
    bias = np.repeat(rows.bias, rows.columns.shape[1]) + rows.extra
    for part, offset in zip(parts, offsets, strict=True):
        bias = bias + offset[part.safe].sum(0)
    problems = [(bias, None)] + [
        (offset[tap], (number, int(tap)))
        for number, (part, offset) in enumerate(zip(parts, offsets, strict=True))
        for tap in np.flatnonzero(~part.safe & (offset != 0).any(1))
    ]
    error, stats = np.zeros(len(columns)), Stats()
    for value, tap in problems:
        realised, counts = solve_biases(
            parts, value, columns, masks, objective=objective, tolerance=tolerance, own=rows.own, tap=tap
        )
        error += (realised - value) ** 2
        stats += counts
    return error.reshape(rows.columns.shape), stats


def solve_constant_rows(
    parts: tuple[Part, ...], rows: Rows, masks: Masks, *, tolerance: float
) -> Float[np.ndarray, " K"]:
    """Rows of the K constant channels: as near to the values asked for as the constants before them reach.

    Where such a value is NaN (carried by the skip) the row stays pruned and contributes 0. What is reached
    is known exactly, so it need not be near. In a layer with biases of its own every constant channel keeps
    just that.
    """
    goal, total = rows.constant, parts[0].random.shape[2]
    columns = np.arange(total - len(goal), total)
    if rows.own is not None:
        masks.own[columns] = True
        return rows.own[columns].astype(np.float64)
    if not len(goal) or np.isnan(goal).all() or not constant_variables(parts).places:
        return np.zeros(len(goal))
    goal = np.where(np.isnan(goal), 0, goal)
    return solve_biases(parts, goal, columns, masks, objective=Objective.BEST, tolerance=tolerance)[0]
