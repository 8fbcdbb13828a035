r"""One target layer through one source layer, problem by problem (the L + 1 step).

For output copy (j, k), input i and tap tau: choose S among the members of i's slot such that
:math:`\sum_{k' \in S} v_{(j,k),(i,k'),\tau}\, g_{ik'} \approx f_i\, w_{j,i,\tau}`, with the members' gains g
and the slot's factor f (`slth.construct.layout.Slots`). All problems are independent.

Source: Burkholz, ICML 2022, proof of the L + 1 construction.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from slth.construct.bias import Masks, constant_variables, solve_biases, solve_in_units
from slth.construct.node import Part, Solved, Stats
from slth.subset_sum import unpack
from slth.subset_sum.problem import MAX_ENUMERATED

Progress = Callable[[int, int], None]


class Wanted(NamedTuple):
    """What a node's outputs should be, beside the weights."""

    bias: Float[np.ndarray, " cout"]
    columns: Int[np.ndarray, "cout copies"]
    """Source channel of each copy of each output; m copies, or 1 of the network's outputs."""
    constant: Float[np.ndarray, " K"]
    """Wanted pre-activations of the constant channels; NaN where a skip carries it (its row is pruned)."""
    own: Float[np.ndarray, " source_cout"] | None = None
    """The source's own biases, if the layer has any."""
    extra: Float[np.ndarray, " rows"] | float = 0.0
    """Added to each copy's own bias."""


class Rule(NamedTuple):
    """How subsets are chosen: objective, tolerance (units of the source's scale), variables of a problem."""

    objective: str
    tolerance: float
    multiplicity: int
    price: float | None = None
    """robust only: a fixed price of v², in place of the members' noise over R²."""
    size: int | None = None
    """Exactly so many variables a problem; None: any number."""


def solve_independent(
    parts: tuple[Part, ...], wanted: Wanted, rule: Rule, progress: Progress | None = None
) -> Solved:
    """Every subset-sum problem of a node on its own.

    Unsolved problems keep their best subset and are counted. A target of 0 takes the empty subset, unasked.
    """
    masks = empty_masks(parts)
    noise, missed = np.zeros(wanted.columns.shape), np.zeros(wanted.columns.shape)
    stats, offsets = Stats(), []
    for part, mask in zip(parts, masks.parts, strict=True):
        one = _solve_part(part, mask, wanted.columns, rule, progress)
        noise, missed = noise + one.noise, missed + one.missed
        stats += one.stats
        offsets.append(one.offset)
    bias_error, bias_stats = solve_constant_terms(parts, wanted, offsets, masks, rule)
    constants = solve_constant_rows(parts, wanted, masks, rule)
    usable = ~_outliers(missed + bias_error)
    own = None if wanted.own is None else masks.own
    return Solved(masks.parts, constants, noise + bias_error, usable, stats + bias_stats, own)


def empty_masks(parts: tuple[Part, ...]) -> Masks:
    """Masks of a node that keep nothing yet."""
    kernels = tuple(np.zeros(part.random.shape, bool) for part in parts)
    return Masks(kernels, np.zeros(parts[0].random.shape[2], bool))


def solve_constant_terms(
    parts: tuple[Part, ...],
    wanted: Wanted,
    offsets: Sequence[Float[np.ndarray, "taps rows"]],
    masks: Masks,
    rule: Rule,
) -> tuple[Float[np.ndarray, "cout copies"], Stats]:
    """The biases of the copies, and what each tap of each part needs besides (see `slth.construct.bias`).

    Offsets at safe taps are one with the bias; at the others each is a problem of its own.
    Returns: squared errors and the statistics.
    """
    rows = wanted.columns.reshape(-1)
    objective = "smallest" if rule.objective == "smallest" else "best"
    asked = np.repeat(wanted.bias, wanted.columns.shape[1]) + wanted.extra
    for part, offset in zip(parts, offsets, strict=True):
        asked = asked + offset[part.safe].sum(0)
    problems = [(asked, None)] + [
        (offset[tap], (number, int(tap)))
        for number, (part, offset) in enumerate(zip(parts, offsets, strict=True))
        for tap in np.flatnonzero(~part.safe & (offset != 0).any(1))
    ]
    error, stats = np.zeros(len(rows)), Stats()
    for value, tap in problems:
        realised, one = solve_biases(
            parts, value, rows, masks, objective=objective, tolerance=rule.tolerance, own=wanted.own, tap=tap
        )
        error += (realised - value) ** 2
        stats += one
    return error.reshape(wanted.columns.shape), stats


def _outliers(missed: Float[np.ndarray, "cout copies"]) -> Bool[np.ndarray, "cout copies"]:
    """Copies that missed their targets by over ten times as much as the median of their siblings.

    At most a third of them: every copy set aside is a variable less for the next layer.
    """
    rank = np.argsort(np.argsort(-missed, 1, kind="stable"), 1, kind="stable")
    return (missed > 100 * np.median(missed, 1, keepdims=True)) & (rank < missed.shape[1] // 3)


def solve_constant_rows(
    parts: tuple[Part, ...], wanted: Wanted, masks: Masks, rule: Rule
) -> Float[np.ndarray, " K"]:
    """Rows of the K constant channels: as near to the wanted values as the constants before them reach.

    Where a wanted value is NaN (carried by the skip) the row stays pruned and contributes 0. What is reached
    is known exactly, so it need not be near. In a layer with biases of its own every constant channel keeps
    just that.
    """
    asked, total = wanted.constant, parts[0].random.shape[2]
    columns = np.arange(total - len(asked), total)
    if wanted.own is not None:
        masks.own[columns] = True
        return wanted.own[columns].astype(np.float64)
    if not len(asked) or np.isnan(asked).all() or not constant_variables(parts).places:
        return np.zeros(len(asked))
    ask = np.where(np.isnan(asked), 0, asked)
    return solve_biases(parts, ask, columns, masks, objective="best", tolerance=rule.tolerance)[0]


class _PartSolved(NamedTuple):
    noise: Float[np.ndarray, "cout copies"]
    missed: Float[np.ndarray, "cout copies"]
    """Sum of squared errors of each copy's weights."""
    offset: Float[np.ndarray, "taps rows"]
    """What constants must add at each tap: the mean of what the sums miss, less the members' own base."""
    stats: Stats


def _solve_part(
    part: Part,
    mask: Bool[np.ndarray, "taps source_cin source_cout"],
    columns: Int[np.ndarray, "cout copies"],
    rule: Rule,
    progress: Progress | None,
) -> _PartSolved:
    """The weights of one linear map; sets ``mask``."""
    slots = part.stream.slots
    target = np.repeat(part.wanted, columns.shape[1], axis=2)  # one problem for each copy of the output
    taps, which, out = np.nonzero(target)
    column = columns.reshape(-1)[out]
    left = target[taps, which, out].astype(np.float64)
    count = len(left)
    members = slots.members.shape[1]
    # A slot of the input may hold more members than one problem takes: a second group solves what is left.
    most = max(rule.multiplicity, 15)
    if _priced(part) or rule.size is not None:
        most = min(most, MAX_ENUMERATED)
    if rule.objective == "single":
        most = members
    group = math.ceil(members / math.ceil(members / most))
    size = np.zeros(count, np.int64)
    noise, power, total = np.zeros(count), np.zeros(count), np.zeros(count)
    reachable = np.zeros(count, bool)
    for start in range(0, members, group):
        chosen = slice(start, min(start + group, members))
        source = slots.members[which, chosen].T  # (group, problems)
        v = part.random[taps, source, column]
        x = v * slots.gain[which, chosen].T
        error = v.astype(np.float64) ** 2 * part.stream.noise[which, chosen].T
        usable = slots.usable[which, chosen].T | (rule.size is not None)
        kept, reached = _choose(np.where(usable, x, 0), left, part, error, which, rule, progress)
        if rule.size is not None:
            kept &= x != 0  # a member that is missing fills the number and is none
        again = np.flatnonzero(~reached & ~usable.all(0))
        if (
            len(again) and rule.objective != "single"
        ):  # copies set aside are still better than a weight missed, at the price of their noise
            only = Rule("robust", rule.tolerance, rule.multiplicity)
            kept[:, again], reached[again] = _choose(
                x[:, again], left[again], part, error[:, again], which[again], only, None
            )
        mask[tuple(np.broadcast_to(a, kept.shape)[kept] for a in (taps, source, column))] = True
        left -= np.where(kept, x, 0).sum(0)
        size += kept.sum(0)
        noise += np.where(kept, error, 0).sum(0)
        power += np.where(kept, v.astype(np.float64) ** 2, 0).sum(0)
        total += np.where(kept, v, 0).sum(0, dtype=np.float64)
        reachable |= reached
    noise += left**2 * part.rms[which] ** 2
    stats = _tally(part, left, size, reachable, power.sum(), columns.shape[1], rule)

    def per_copy(values: np.ndarray) -> np.ndarray:
        return np.bincount(out, weights=values, minlength=columns.size).reshape(columns.shape)

    constant = part.mean[which] * left - slots.base * total
    shape = (len(target), columns.size)
    offset = np.bincount(taps * columns.size + out, constant, np.prod(shape)).reshape(shape)
    return _PartSolved(per_copy(noise), per_copy(left**2), offset, stats)


def _tally(
    part: Part,
    left: Float[np.ndarray, " n"],
    size: Int[np.ndarray, " n"],
    reachable: Bool[np.ndarray, " n"],
    power: float,
    copies: int,
    rule: Rule,
) -> Stats:
    off = np.abs(left) / part.scale
    far = off > rule.tolerance
    return Stats(
        problems=len(left),
        unsolved=int((far & ~reachable).sum()),
        deviating=int((far & reachable).sum()),
        size=float(size.sum()),
        error=float(off.sum()),
        max_error=float(off.max(initial=0)),
        sizes=tuple(np.bincount(size)) if len(left) else (),
        source_power=float(power),
        target_power=float((part.weight**2).sum()) * copies,
    )


def deviations(
    part: Part,
    mask: Bool[np.ndarray, "taps source_cin source_cout"],
    columns: Int[np.ndarray, "cout copies"],
    rule: Rule,
) -> Stats:
    """How far the sums that a mask realises are from the weights, and which of them some subset meets."""
    slots = part.stream.slots
    target = np.repeat(part.wanted, columns.shape[1], axis=2)
    left = target.astype(np.float64)
    size = np.zeros(target.shape, int)
    flat = columns.reshape(-1)
    power = 0.0
    for k in range(slots.members.shape[1]):
        kept = mask[:, slots.members[:, k]][:, :, flat] & (slots.gain[:, k] != 0)[:, None]
        v = np.where(kept, part.random[:, slots.members[:, k]][:, :, flat], 0)
        left -= v * slots.gain[:, k][:, None]
        size += kept
        power += float((v.astype(np.float64) ** 2).sum())
    far = np.nonzero(np.abs(left) > rule.tolerance * part.scale)
    reachable = np.ones(target.shape, bool)
    taps, which, out = far
    if len(taps):
        x = part.random[taps, slots.members[which].T, flat[out]] * slots.gain[which].T
        m = min(len(x), 15)  # a subset of the first 15 members is a subset of all
        reachable[far] = solve_in_units(
            x[:m], target[far], "best", tolerance=rule.tolerance * part.scale
        ).solved
    asked = target != 0
    return _tally(part, left[asked], size[asked], reachable[asked], power, columns.shape[1], rule)


def _priced(part: Part) -> bool:
    """Whether the members are univariate channels that are not exact."""
    return not part.stream.slots.carried and bool(part.stream.noise.any())


def _choose(
    x: Float[np.ndarray, "m n"],
    t: Float[np.ndarray, " n"],
    part: Part,
    error: Float[np.ndarray, "m n"],
    which: np.ndarray,
    rule: Rule,
    progress: Progress | None,
) -> tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, " n"]]:
    """The kept variables of each problem, and whether some subset is within the tolerance.

    Univariate channels cost constants and remainders: the best subset of them is that of least robust cost.
    """
    tolerance = rule.tolerance * part.scale
    if rule.objective == "single":
        return _single(x, t, tolerance)
    if rule.objective == "smallest" or (rule.objective == "best" and not _priced(part)):
        solution = solve_in_units(
            x, t, rule.objective, tolerance=tolerance, size=rule.size, progress=progress
        )
        return np.asarray(unpack(solution.mask, len(x))), np.array(solution.solved)
    if rule.price is None:
        # Only the ratio to R² matters: activations of any size give prices in the solver's range.
        price = np.minimum(error / np.maximum(part.rms[which] ** 2, 1e-30), 2.0**40)
    else:
        price = rule.price * x**2
    solution = solve_in_units(
        x, t, "robust", tolerance=tolerance, size=rule.size, price=price, progress=progress
    )
    solved = np.asarray(solution.solved).copy()
    far = np.flatnonzero(~solved)
    if len(far):
        solved[far] = solve_in_units(x[:, far], t[far], "best", tolerance=tolerance, size=rule.size).solved
    return np.asarray(unpack(solution.mask, len(x))), solved


def _single(
    x: Float[np.ndarray, "m n"], t: Float[np.ndarray, " n"], tolerance: float
) -> tuple[Bool[np.ndarray, "m n"], Bool[np.ndarray, " n"]]:
    """The nearest variable of each problem, or none where 0 is nearer; the first of equals."""
    nearest = np.abs(t - x).argmin(0)
    error = np.abs(t - x[nearest, np.arange(len(t))])
    kept = np.zeros(x.shape, bool)
    kept[nearest, np.arange(len(t))] = error < np.abs(t)
    return kept, np.minimum(error, np.abs(t)) <= tolerance
