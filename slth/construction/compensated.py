r"""Whole rows chosen against calibration data, so that the errors of the copies cancel.

For one output copy let z be the realised source channels under the kernel (all copies and taps, and the
constants), v its random row, b its mask and y what it should compute. Over calibration positions, with
:math:`G = E[z z^T]` plus a ridge and :math:`c = E[z y]`, choose b in {0, 1}^n for a small

    (v b)^T G (v b) - 2 (v b)^T c

by exact enumeration of one block of variables after the other, in sweeps. In the first sweep the target is
built up block by block: each block's own share of y is added just before the block is solved, so that early
blocks do not try to do the work of later ones. All rows are independent and are solved side by side.

A block holds all copies of a channel under one tap of the kernel, which depend on one another most. Copies
that are too many to be enumerated together are split in pieces, each of which is enumerated given the others.
What no piece of one split can improve, a piece of another often can. So such a block is solved in rounds, and
each has another random split.

Source: this project. The blockwise exact descent follows the error feedback of optimal brain compression
(Frantar and Alistarh, NeurIPS 2022), with random weights to choose from in place of rounding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from slth.construction.biases import fill, finish, solve_constant_terms
from slth.construction.independent import Independent, check_number, deviations
from slth.construction.means import seen, with_means
from slth.construction.moments import (
    GROUP,
    HIGHEST,
    PIECE,
    columns_of,
    moments,
    share_weights,
)
from slth.construction.samples import draw_samples
from slth.construction.state import Problem, Solved, Stats, Stream
from slth.devices import SPLIT, WHOLE, Devices, on_all
from slth.nn.layers import Conv
from slth.subset_sum import Objective
from slth.subset_sum.problem import MAX_ENUMERATED
from slth.subset_sum.rows import apart, leaves
from slth.subset_sum.solve import streamed
from slth.subset_sum.stages import of_problems
from slth.types import AnyArray

Pair = tuple[Array, Array]
ROWS = 256
"""Most rows of a panel, which is solved at once: by one thread, and by each of several devices."""
FEWEST = 64
"""Rows that a panel has at least: half as many would take as long."""
ROUNDS = 4
"""Splits of a block that are tried one after the other, before the next block's turn comes: they take little
time beside what the rows miss in all, which is worked out anew for each group of blocks."""
SPLITS = 64
"""Splits after which the first one comes again."""


@dataclass(frozen=True)
class Compensated:
    r"""Whole rows against calibration images, so that the errors of the copies cancel.

    :math:`\min_b E[(\sum_i v_i b_i z_i - y)^2]` over b in {0, 1}^n, with z_i the values that the row reads
    and y the target's value, block by block (see the module). Layers that read univariate channels of
    activations that are not piecewise linear are solved by `Best`.

    Args:
      tolerance: only decides what counts as unsolved or deviating.
      sweeps: how often each variable is chosen at most, 1 or more: once in each pass over a layer, or four
        times where it has more than ``block`` copies.
      block: most variables enumerated together, 1 to 20.
      positions: most (image, position) pairs looked at in one node.
      ridge: added to the diagonal of the second moments, in units of its mean.
      dense_ridge: the same for dense layers, which see one position an image.
      means: whether weights are chosen against activations about their means, and constants then absorb, tap
        by tap, what the means miss. Always so where activations are not positively homogeneous.
    Raises: ValueError for a number out of range.

    Example:
      >>> import slth
      >>> slth.Compensated(sweeps=4).needs_images
      True

    Source: this project (docs/construction.md); the descent follows Frantar and Alistarh, NeurIPS 2022.
    """

    tolerance: float = 0.01
    sweeps: int = 8
    block: int = 12
    positions: int = 16384
    ridge: float = 1e-4
    dense_ridge: float = 1e-3
    means: bool = False

    needs_images = True
    runs_ticket = True
    solves_rows = True
    rows_apart = True
    by_tiles = True
    most_copies = MAX_ENUMERATED

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, float, 0, math.inf, above=True)
        check_number("sweeps", self.sweeps, int, 1, math.inf)
        check_number("block", self.block, int, 1, MAX_ENUMERATED)
        check_number("positions", self.positions, int, 1, math.inf)
        check_number("ridge", self.ridge, float, 0, math.inf)
        check_number("dense_ridge", self.dense_ridge, float, 0, math.inf)
        if not isinstance(self.means, bool):
            raise ValueError(f"solver.means: expected True or False, got {self.means!r}")

    def solve(self, problem: Problem) -> Solved:
        """Every row against the calibration data that the node's streams carry.

        The errors of a carried skip are compensated as well. Where the problem is centred the weights are
        chosen against activations about their means, and constants then absorb, tap by tap, what the means
        miss (`slth.construction.biases`); otherwise constants are variables of the rows.
        """
        if problem.smooth_input:
            return Independent(self.tolerance).solve(problem)
        rows = problem.rows
        masks = _solve_masks(_centered_problem(problem) if problem.center else problem, self)
        parts = tuple(zip(problem.parts, masks, strict=True))
        stats = sum((deviations(*part, rows.columns, self.tolerance) for part in parts), Stats())
        problem, offsets = with_means(problem, masks) if problem.center else (problem, None)
        filling = fill(problem, self.tolerance, masks)
        if offsets is not None:
            stats += solve_constant_terms(filling, offsets, Objective.BEST)[1]
        none, everything = np.zeros(rows.columns.shape), np.ones(rows.columns.shape, bool)
        return finish(filling, none, everything, stats)


def bytes_of(variables: int, rows: int) -> int:
    """Memory that a node takes at its peak, measured: the matrix of its moments and what it is made of, up to
    1.5 times as large, the samples gathered at a time twice, and some of its rows, in 32 bits each."""
    return 4 * variables * (5 * variables // 2 + 6 * rows + 2 * PIECE)


def least_subset(
    gram: Float[Array, "q q"],
    v: Float[Array, "q rows"],
    linear: Float[Array, "q rows"],
    always: Bool[Array, ""],
) -> Float[Array, "q rows"]:
    r"""v b with the b in {0, 1}^q that minimises :math:`(v b)^T G (v b) - 2 (v b)^T c`, for every row.

    The variables are split in two halves. For one choice of the upper half the objective is quadratic in the
    lower half with known slopes, so that each of its 2^(q/2) values is one addition from another; only the
    least of each upper choice is kept, and only the winner's lower half is looked up. All 2^q subsets are
    compared; ``always`` is true (`slth.subset_sum.rows.apart`).
    """
    low = (len(v) + 1) // 2
    own = v * (v * jnp.diagonal(gram)[:, None] - 2 * linear)
    below, above = v[:low], v[low:]
    bits, value = _half(gram[:low, :low], below, own[:low])
    upper_bits, upper_value = _half(gram[low:, low:], above, own[low:])
    slopes = [
        jnp.dot(upper_bits, 2 * gram[low:, k, None] * below[None, k] * above, precision=HIGHEST)
        for k in range(low)
    ]

    def least(slopes: list[Array], value: Array, start: Array) -> Array:
        sums = leaves(start, slopes, jnp.add)
        return reduce(jnp.minimum, (total + value[None, index] for index, total in sums))

    winner = jnp.argmin(apart(always, least, slopes, value, upper_value), 0)
    chosen = jnp.stack([jnp.take_along_axis(slope, winner[None], 0)[0] for slope in slopes])
    lower = bits[jnp.argmin(value + jnp.dot(bits, chosen, precision=HIGHEST), 0)].T
    return v * jnp.concatenate([lower, upper_bits[winner].T])


def _half(
    gram: Float[Array, "q q"], v: Float[Array, "q rows"], own: Float[Array, "q rows"]
) -> tuple[Float[Array, "subsets q"], Float[Array, "subsets rows"]]:
    """All masks of some variables, least significant bit first, and the objective of each alone."""
    q = len(v)
    bits = ((np.arange(2**q)[:, None] >> np.arange(q)) & 1).astype(np.float32)
    first, second = np.triu_indices(q, 1)
    terms = np.concatenate([bits, bits[:, first] * bits[:, second]], 1)
    cross = 2 * gram[first, second][:, None] * v[first] * v[second]
    return jnp.asarray(bits), jnp.dot(terms, jnp.concatenate([own, cross]), precision=HIGHEST)


def solve_rows(
    gram: Float[AnyArray, "n n"],
    weights: Float[np.ndarray, "n rows"],
    shares: Float[AnyArray, "n shares"],
    share_weights: Float[np.ndarray, "shares rows"],
    rest: Float[np.ndarray, "n rows"] | None,
    share: Int[np.ndarray, "blocks width"],
    *,
    pieces: tuple[int, ...],
    sweeps: int,
    group: int = GROUP,
) -> Bool[np.ndarray, "n rows"]:
    """The mask b of every row when each variable was chosen ``sweeps`` times, or no row changes any more.

    Rows are solved in panels, at least two where they are many: a CPU solves several at once, since most of a
    panel's steps are too short to be shared by its cores. A panel has as many rows on every machine, so that
    what comes out does not depend on the number of devices.

    Args:
      gram: G with its ridge.
      weights: v; 0 for a variable that cannot be chosen.
      shares, share_weights: the target's part of c as a product, E[z x] and w, one column for each input.
      rest: the remainder of c (what a carried skip misses), there from the start; None for none.
      share: which inputs each block brings in when it is solved first (see `Columns`).
      pieces: how many variables of a block are enumerated together.
      group: blocks between two updates of the far correlations; divides the number of blocks.
    """
    n, rows = weights.shape
    panels = max(1, math.ceil(rows / ROWS), min(2, rows // FEWEST))
    size = math.ceil(rows / panels)
    devices = tuple(jax.local_devices())[:panels]
    descend = _descending(devices, pieces, group)
    gram, shares = on_all((gram, shares), devices)
    brought = np.full(shares.shape[1], -1)
    number, place = np.nonzero(share >= 0)
    brought[share[number, place]] = number
    mask = np.zeros(weights.shape, bool)
    of_all = gram, shares, brought, share, _splits(sum(pieces)), np.int32(sweeps), True

    def send(start: int) -> tuple[slice, Array]:
        here = slice(start, start + size * len(devices))

        def panel(a: Float[np.ndarray, "_ rows"]) -> Float[np.ndarray, "devices _ size"]:
            a = a[:, here]
            full = np.pad(a, ((0, 0), (0, size * len(devices) - a.shape[1])))
            return full.reshape(len(a), len(devices), size).transpose(1, 0, 2)

        left = np.zeros((len(devices), n, size), np.float32) if rest is None else panel(rest)
        return here, descend(*of_all, panel(weights), panel(share_weights), left)

    def receive(sent: tuple[slice, Array]) -> None:
        here, chosen = sent
        chosen = np.asarray(chosen).transpose(1, 0, 2).reshape(n, -1)
        mask[:, here] = chosen[:, : mask[:, here].shape[1]]

    for _ in streamed(send, receive, range(0, rows, size * len(devices))):
        pass
    return mask


def _splits(block: int) -> Int[np.ndarray, "splits block"]:
    """Orders of a block's variables, which are dealt to its pieces in turn; first that of the block."""
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(block) for _ in range(SPLITS - 1)]
    return np.array([np.arange(block), *drawn], np.int32)


@cache
def _descending(devices: Devices, pieces: tuple[int, ...], group: int) -> Callable:
    """`_descend` for one panel of rows on each device."""

    def function(gram, shares, brought, share, splits, sweeps, always, *panels):
        weights, share_weights, left = (panel[0] for panel in panels)
        of_all = gram, shares, brought, share, splits, sweeps, always
        return _descend(*of_all, weights, share_weights, left, pieces, group)[None]

    specs = (*(WHOLE,) * 7, *(SPLIT,) * 3)
    return of_problems(function, devices, specs, SPLIT)


def _descend(
    gram: Float[Array, "n n"],
    shares: Float[Array, "n shares"],
    brought: Int[Array, " shares"],
    share: Int[Array, "blocks width"],
    splits: Int[Array, "splits block"],
    sweeps: Int[Array, ""],
    always: Bool[Array, ""],
    weights: Float[Array, "n rows"],
    share_weights: Float[Array, "shares rows"],
    rest: Float[Array, "n rows"],
    pieces: tuple[int, ...],
    group: int,
) -> Bool[Array, "n rows"]:
    """The sweeps of some rows (see `solve_rows`); ``brought``: the block that brings an input in.

    What rows still miss, c - G (v b), is worked out for one group of blocks when its turn comes, and kept up
    to date while the blocks of the group are solved.
    """
    block, most = sum(pieces), 1 if len(pieces) == 1 else ROUNDS
    width = group * block
    goal = rest + jnp.dot(shares, share_weights, precision=HIGHEST)

    def solve_group(number: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, kept, moved = state
        first = done == 0
        start = number * width
        orders, rounds = splits[(done + jnp.arange(most)) % SPLITS], jnp.minimum(sweeps - done, most)

        def cut(a: Array) -> Array:
            return lax.dynamic_slice_in_dim(a, start, width)

        near, near_shares = lax.dynamic_slice(gram, (start, start), (width, width)), cut(shares)
        v, old = cut(weights), cut(kept)
        missing = cut(goal) - jnp.dot(cut(gram), kept, precision=HIGHEST)
        # In the first sweep inputs come in with their blocks: those of later groups are not there yet, and
        # those of a group's own later blocks are left out block by block.
        coming = share_weights * (brought[:, None] >= (number + 1) * group)
        missing = lax.cond(
            first, lambda: missing - jnp.dot(near_shares, coming, precision=HIGHEST), lambda: missing
        )
        take = lax.dynamic_slice_in_dim(share, number * group, group)
        bringer = jnp.repeat(jnp.arange(group), take.shape[1])
        take = take.reshape(-1)
        own_shares, own_weights = near_shares[:, take], share_weights[take]

        def step(index: Array, inner: Pair) -> Pair:
            new, missing = inner
            here = partial(lax.dynamic_slice_in_dim, start_index=index * block, slice_size=block)
            later = jnp.where(first & (take >= 0) & (bringer > index), here(own_shares), 0)
            own, before = here(here(near), axis=1), here(new)
            linear = here(missing) + jnp.dot(own, before, precision=HIGHEST)  # its own contribution restored
            linear = linear - jnp.dot(later, own_weights, precision=HIGHEST)
            if len(pieces) == 1:
                chosen = least_subset(own, here(v), linear, always)
            else:
                chosen = _in_rounds(own, here(v), linear, before, orders, rounds, always, pieces)
            missing = missing - jnp.dot(here(near, axis=1), chosen - before, precision=HIGHEST)
            return lax.dynamic_update_slice_in_dim(new, chosen, index * block, 0), missing

        new, _ = lax.fori_loop(0, group, step, (old, missing))
        return done, lax.dynamic_update_slice_in_dim(kept, new, start, 0), moved | (new != old).any()

    def one(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        done, kept, _ = state
        groups = len(weights) // width
        _, kept, moved = lax.fori_loop(0, groups, solve_group, (done, kept, jnp.asarray(False)))
        return done + most, kept, moved

    def more(state: tuple[Array, Array, Array]) -> Array:
        return (state[0] < sweeps) & state[2]

    return lax.while_loop(more, one, (jnp.int32(0), jnp.zeros_like(weights), always))[1] != 0


def _in_rounds(
    gram: Float[Array, "q q"],
    v: Float[Array, "q rows"],
    linear: Float[Array, "q rows"],
    before: Float[Array, "q rows"],
    orders: Int[Array, "rounds q"],
    rounds: Int[Array, ""],
    always: Bool[Array, ""],
    pieces: tuple[int, ...],
) -> Float[Array, "q rows"]:
    """v b with a b no worse than ``before``, after rounds in which each piece is solved given the others.

    A round's pieces are the first variables of its order, the next ones, and so on. Arguments beside that are
    those of `least_subset`.
    """
    ends = np.cumsum(pieces)

    def one(index: Array, chosen: Array) -> Array:
        for start, end in zip(ends - pieces, ends, strict=True):
            here = orders[index, start:end]
            others = chosen.at[here].set(0)
            own = linear[here] - jnp.dot(gram[here], others, precision=HIGHEST)
            chosen = chosen.at[here].set(least_subset(gram[here][:, here], v[here], own, always))
        return chosen

    return lax.fori_loop(0, rounds, one, before)


def _solve_masks(problem: Problem, solver: Compensated) -> tuple[Bool[np.ndarray, "_ _ source_cout"], ...]:
    """The masks of all rows' weights."""
    parts, rows, skip = problem.parts, problem.rows, problem.carried
    layer, outputs = parts[0].layer, rows.columns.reshape(-1)
    columns = columns_of(parts, solver.block)
    _, ticket = seen(parts[0].stream)
    shape, most = parts[0].read.shape, solver.positions
    samples = draw_samples(layer, shape, len(ticket), most, windows=len(parts) == 1)
    found = moments(parts, columns, samples, skip, outputs)
    empty = np.zeros((1, parts[0].random.shape[2]), np.float32)
    random = np.concatenate([*(part.random.whole().reshape(-1, empty.size) for part in parts), empty])
    at = columns.place[:, None], outputs
    ridge = solver.ridge if isinstance(layer, Conv) else solver.dense_ridge
    used = (columns.place < len(random) - 1).sum()
    by_slot = (share_weights(part).transpose(1, 0, 2) for part in parts)
    weights = np.concatenate([*(a.reshape(-1, a.shape[2]) for a in by_slot), rows.bias[None]])
    chosen = solve_rows(
        _ridged(found.gram, np.float32(ridge / used)),
        random[at],
        found.inputs,
        np.repeat(weights, rows.columns.shape[1], 1).astype(np.float32),
        None if skip is None else np.asarray(found.skip),
        columns.share,
        pieces=columns.pieces,
        sweeps=solver.sweeps,
        group=columns.group,
    )
    mask = np.zeros(random.shape, bool)
    mask[at] = chosen
    ends = np.cumsum([part.random.rows.size for part in parts])
    return tuple(m.reshape(part.random.shape) for part, m in zip(parts, np.split(mask, ends), strict=False))


@partial(jax.jit, donate_argnums=0)
def _ridged(gram: Float[Array, "n n"], ridge: Float[Array, ""]) -> Float[Array, "n n"]:
    """The moments with so much of the sum of their diagonal added to it."""
    diagonal = jnp.arange(len(gram))
    return gram.at[diagonal, diagonal].add(ridge * jnp.diagonal(gram).sum())


def _centered(stream: Stream) -> Stream:
    """The stream about its channels' means, constants left out."""
    x, ticket = (a - a.mean(tuple(range(a.ndim - 1)), keepdims=True) for a in seen(stream))
    return stream._replace(x=x, ticket=ticket, constants=np.zeros_like(stream.constants))


def _centered_problem(problem: Problem) -> Problem:
    """The problem of the weights alone: all values about their means, no biases."""
    parts = tuple(part._replace(stream=_centered(part.stream)) for part in problem.parts)
    rows = problem.rows._replace(bias=np.zeros_like(problem.rows.bias))
    return problem._replace(parts=parts, rows=rows, carried=problem.carried and _centered(problem.carried))
