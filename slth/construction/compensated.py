r"""Whole rows chosen against calibration data, so that the errors of the copies cancel.

For one output copy let z be the realised source channels under the kernel (all copies and taps, and the
constants), v its random row, b its mask and y what it should compute. Over calibration positions, with
:math:`G = E[z z^T]` plus a ridge and :math:`c = E[z y]`, choose b in {0, 1}^n for a small

    (v b)^T G (v b) - 2 (v b)^T c

by exact enumeration of one block of variables after the other, in sweeps. In the first sweep the target is
built up block by block: each block's own share of y is added just before the block is solved, so that early
blocks do not try to do the work of later ones. All rows are independent and are solved side by side.

Source: this project. The blockwise exact descent follows the error feedback of optimal brain compression
(Frantar and Alistarh, NeurIPS 2022), with random weights to choose from in place of rounding.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from slth.construction.biases import empty_masks, solve_constant_rows, solve_constant_terms
from slth.construction.independent import deviations
from slth.construction.moments import GROUP, HIGHEST, columns_of, draw_samples, moments
from slth.construction.state import Part, Problem, Rows, Solved, Stats, Stream
from slth.nn.layers import Conv
from slth.subset_sum import Objective


class Blocks(NamedTuple):
    """Settings of the descent: see `slth.construction.solvers.Compensated`."""

    sweeps: int
    block: int
    positions: int
    ridge: float
    dense_ridge: float


def least_subset(
    gram: Float[Array, "q q"], v: Float[Array, "q rows"], linear: Float[Array, "q rows"]
) -> Float[Array, "q rows"]:
    r"""v b with the b in {0, 1}^q that minimises :math:`(v b)^T G (v b) - 2 (v b)^T c`, for every row.

    The variables are split in two halves. For one choice of the upper half the objective is quadratic in the
    lower half with known slopes, so its 2^(q/2) values are one small product; a scan over the choices of the
    upper half keeps the least one, and only the winner's lower half is looked up. All 2^q subsets are
    compared.
    """
    low = (len(v) + 1) // 2
    own = v * (v * jnp.diagonal(gram)[:, None] - 2 * linear)
    below, above = v[:low], v[low:]
    between = 2 * gram[:low, low:]
    bits, value = _half(gram[:low, :low], below, own[:low])
    upper_bits, upper_value = _half(gram[low:, low:], above, own[low:])

    def lower_values(chosen: Array) -> Array:
        slope = below * jnp.dot(between, above * chosen, precision=HIGHEST)
        return value + jnp.dot(bits, slope, precision=HIGHEST)

    def step(
        best: tuple[Array, Array], upper: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        index, chosen, base = upper
        least = lower_values(chosen[:, None]).min(0) + base
        better = least < best[0]
        return (jnp.where(better, least, best[0]), jnp.where(better, index, best[1])), None

    rows = v.shape[1]
    start = (jnp.full(rows, jnp.inf), jnp.zeros(rows, jnp.int32))
    number = jnp.arange(len(upper_bits), dtype=jnp.int32)
    (_, winner), _ = lax.scan(step, start, (number, upper_bits, upper_value))
    chosen = upper_bits[winner].T
    lower = bits[jnp.argmin(lower_values(chosen), 0)].T
    return v * jnp.concatenate([lower, chosen])


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
    gram: Float[Array, "n n"],
    weights: Float[Array, "n rows"],
    shares: Float[Array, "n shares"],
    share_weights: Float[Array, "shares rows"],
    rest: Float[Array, "n rows"],
    share: Int[Array, "blocks width"],
    *,
    block: int,
    sweeps: int,
) -> Float[Array, "n rows"]:
    """The kept weights v b of every row after ``sweeps`` sweeps over the blocks.

    Args:
      gram: G with its ridge.
      weights: v; 0 for a variable that cannot be chosen.
      shares, share_weights: the target's part of c as a product, E[z x] and w, one column for each input.
      rest: the remainder of c (what a carried skip misses), there from the start.
      share: which inputs each block brings in during the first sweep (see `Columns`).
    """
    kept, left = jnp.zeros_like(weights), rest
    padded = jnp.concatenate([shares, jnp.zeros((len(shares), 1))], 1)
    padded_weights = jnp.concatenate([share_weights, jnp.zeros((1, weights.shape[1]))])
    kept, left = _sweep(gram, weights, kept, left, padded, padded_weights, share, block)
    none = jnp.full_like(share, -1)
    for _ in range(sweeps - 1):
        kept, left = _sweep(gram, weights, kept, left, padded, padded_weights, none, block)
    return kept


@partial(jax.jit, static_argnums=7, donate_argnums=(2, 3))
def _sweep(
    gram: Array,
    weights: Array,
    kept: Array,
    left: Array,
    shares: Array,
    share_weights: Array,
    share: Array,
    block: int,
) -> tuple[Array, Array]:
    """One pass over all blocks; ``left`` is c - G (v b), what the rows still miss."""
    width = GROUP * block

    def solve_group(state: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        kept, left = state
        first_block = start // block

        def cut(a: Array) -> Array:
            return lax.dynamic_slice_in_dim(a, start, width)

        near = lax.dynamic_slice(gram, (start, start), (width, width))
        v, old = cut(weights), cut(kept)
        near_shares = cut(shares)
        brought = lax.dynamic_slice_in_dim(share, first_block, GROUP)

        def step(index: Array, inner: tuple[Array, Array]) -> tuple[Array, Array]:
            new, missing = inner
            here = partial(lax.dynamic_slice_in_dim, start_index=index * block, slice_size=block)
            take = brought[index]
            missing = missing + jnp.dot(near_shares[:, take], share_weights[take], precision=HIGHEST)
            own, before = here(here(near), axis=1), here(new)
            linear = here(missing) + jnp.dot(own, before, precision=HIGHEST)  # its own contribution restored
            chosen = least_subset(own, here(v), linear)
            missing = missing - jnp.dot(here(near, axis=1), chosen - before, precision=HIGHEST)
            return lax.dynamic_update_slice_in_dim(new, chosen, index * block, 0), missing

        new, _ = lax.fori_loop(0, GROUP, step, (old, cut(left)))
        change = jnp.dot(lax.dynamic_slice_in_dim(gram, start, width, axis=1), new - old, precision=HIGHEST)
        take = brought.reshape(-1)
        left = left - change + jnp.dot(shares[:, take], share_weights[take], precision=HIGHEST)
        return (lax.dynamic_update_slice_in_dim(kept, new, start, 0), left), None

    starts = jnp.arange(0, weights.shape[0], width)
    return lax.scan(solve_group, (kept, left), starts)[0]


def solve_compensated(problem: Problem, settings: Blocks, tolerance: float) -> Solved:
    """Every row of a node against the calibration data that its streams carry.

    The errors of a carried skip are compensated as well. Where the problem is centred the weights are chosen
    against activations about their means, and constants then absorb, tap by tap, what the means miss
    (`slth.construction.biases`); otherwise constants are variables of the rows.
    """
    parts, rows, skip = problem.parts, problem.rows, problem.carried
    kept = _solve_masks(_centered_problem(problem) if problem.center else problem, settings)
    masks = empty_masks(parts)
    for mask, chosen in zip(masks.parts, kept, strict=True):
        mask |= chosen
    stats = sum(
        (deviations(part, mask, rows.columns, tolerance) for part, mask in zip(parts, kept, strict=True)),
        Stats(),
    )
    if problem.center:
        if skip is not None:
            rows = rows._replace(extra=_mean_error(skip, rows))
        offsets = [_mean_missed(part, mask, rows) for part, mask in zip(parts, kept, strict=True)]
        stats += solve_constant_terms(
            parts, rows, offsets, masks, objective=Objective.BEST, tolerance=tolerance
        )[1]
    constants = solve_constant_rows(parts, rows, masks, tolerance=tolerance)
    everything = np.ones(rows.columns.shape, bool)
    own = None if rows.own is None else masks.own
    return Solved(masks.parts, constants, np.zeros(rows.columns.shape), everything, stats, own)


def _solve_masks(problem: Problem, settings: Blocks) -> tuple[Bool[np.ndarray, "_ _ source_cout"], ...]:
    """The masks of all rows' weights."""
    parts, rows, skip = problem.parts, problem.rows, problem.carried
    copies = rows.columns.shape[1]
    columns = columns_of(parts, settings.block)
    shape = parts[0].read.shape
    calibration = parts[0].stream.ticket
    assert calibration is not None  # this method is only chosen with images
    images = calibration.shape[0]
    samples = draw_samples(parts[0].layer, shape, images, settings.positions)
    found = moments(parts, columns, samples, skip, rows.columns.reshape(-1))
    ridge = settings.ridge if isinstance(parts[0].layer, Conv) else settings.dense_ridge
    diagonal = jnp.diagonal(found.gram)
    gram = found.gram + jnp.diag(jnp.full(len(diagonal), ridge * diagonal.sum() / (columns.part >= 0).sum()))
    weights = np.zeros((len(columns.part), rows.columns.size), np.float32)
    for index, part in enumerate(parts):
        chosen = np.flatnonzero(columns.part == index)
        random = part.random[columns.tap[chosen], columns.channel[chosen]]
        weights[chosen] = random[:, rows.columns.reshape(-1)]
    share_weights = np.concatenate([*(_share_weights(part) for part in parts), rows.bias[None]])
    rest = found.skip if skip is not None else jnp.zeros(weights.shape)
    kept = np.asarray(
        solve_rows(
            gram,
            jnp.asarray(weights),
            found.inputs,
            jnp.asarray(np.repeat(share_weights, copies, 1), jnp.float32),
            rest,
            jnp.asarray(columns.share),
            block=columns.block,
            sweeps=settings.sweeps,
        )
        != 0
    )
    masks = tuple(np.zeros(part.random.shape, bool) for part in parts)
    for index, mask in enumerate(masks):
        chosen = np.flatnonzero(columns.part == index)
        mask[columns.tap[chosen][:, None], columns.channel[chosen][:, None], rows.columns.reshape(-1)] = kept[
            chosen
        ]
    return masks


def _mean(x: Float[Array, "n *space c"]) -> Float[Array, " c"]:
    return x.mean(tuple(range(x.ndim - 1)))


def _about_mean(x: Float[Array, "n *space c"]) -> Float[Array, "n *space c"]:
    return x - x.mean(tuple(range(x.ndim - 1)), keepdims=True)


def _centered(stream: Stream) -> Stream:
    """The stream about its channels' means, constants left out."""
    assert stream.x is not None
    assert stream.ticket is not None
    return stream._replace(
        x=_about_mean(stream.x),
        ticket=_about_mean(stream.ticket),
        constants=np.zeros_like(stream.constants),
    )


def _centered_problem(problem: Problem) -> Problem:
    """The problem of the weights alone: all values about their means, no biases."""
    parts = tuple(part._replace(stream=_centered(part.stream)) for part in problem.parts)
    rows = problem.rows._replace(bias=np.zeros_like(problem.rows.bias))
    return problem._replace(parts=parts, rows=rows, carried=problem.carried and _centered(problem.carried))


def _mean_error(skip: Stream, rows: Rows) -> Float[np.ndarray, " rows"]:
    """What a carried skip's copies miss in the mean."""
    assert skip.x is not None
    assert skip.ticket is not None
    x, ticket = np.asarray(_mean(skip.x), np.float64), np.asarray(_mean(skip.ticket), np.float64)
    return (x[:, None] - ticket[rows.columns]).reshape(-1)


def _mean_missed(
    part: Part, mask: Bool[np.ndarray, "taps source_cin source_cout"], rows: Rows
) -> Float[np.ndarray, "taps rows"]:
    """Mean contribution of the target's channels at each tap less that of the chosen ones."""
    assert part.stream.x is not None
    assert part.stream.ticket is not None
    columns = rows.columns.reshape(-1)
    x, ticket = (
        np.asarray(_mean(part.stream.x), np.float64),
        np.asarray(_mean(part.stream.ticket), np.float64),
    )
    kept = np.where(mask[:, :, columns], part.random[:, :, columns], 0)
    return (
        np.repeat(part.weight.transpose(0, 2, 1) @ x, rows.columns.shape[1], 1)
        - kept.transpose(0, 2, 1) @ ticket
    )


def _share_weights(part: Part) -> Float[np.ndarray, "shares cout"]:
    """Weights of the (slot, tap) inputs: w for a channel or its positive part, -w for its negative part."""
    slots = part.stream.slots
    signed = np.where(slots.sign == 0, 1, slots.sign)[:, None] * part.weight[:, slots.channel]
    return signed.transpose(1, 0, 2).reshape(-1, part.weight.shape[2])
