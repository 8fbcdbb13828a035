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

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from slth.construct.bias import constant_variables
from slth.construct.layer import Rule, Wanted, deviations, solve_constant_rows
from slth.construct.node import Part, Solved, Stats
from slth.construct.noise import slot_values
from slth.construct.residual import Carried
from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten

HIGHEST = lax.Precision.HIGHEST
SAMPLED = 4096
"""Positions gathered at a time."""
GROUP = 8
"""Blocks between two updates of the far correlations."""


class Compensation(NamedTuple):
    """Settings of the compensated choice."""

    sweeps: int = 8
    block: int = 12
    """Most variables enumerated together: as many whole taps as fit, or equal pieces of one."""
    positions: int = 16384
    """Most (image, position) pairs looked at in one node."""
    ridge: float = 1e-4
    """Added to G's diagonal, in units of its mean."""
    dense_ridge: float = 1e-3
    """The same for dense layers, which see one position an image."""


class Samples(NamedTuple):
    """Where the calibration images are looked at: image and output position."""

    image: Int[np.ndarray, " samples"]
    place: Int[np.ndarray, "samples axes"]


class Columns(NamedTuple):
    """The variables of a node's rows in the order in which they are solved, in blocks of equal size."""

    part: Int[np.ndarray, " n"]
    """Number of the part a variable reads; -1 for an empty place that fills a block."""
    tap: Int[np.ndarray, " n"]
    channel: Int[np.ndarray, " n"]
    share: Int[np.ndarray, "blocks shares"]
    """Inputs of the target that a block brings in, as numbers into the list of all (part, slot, tap) and,
    last, the bias, which comes with the constants; -1 for none."""
    block: int
    """Variables in a block."""


def columns_of(parts: tuple[Part, ...], most: int) -> Columns:
    """Blocks of as many whole taps as fit into ``most`` variables, or equal pieces of one; constants last."""
    places: list[tuple[int, int, int]] = []
    shares: list[list[int]] = []
    number = 0
    members = max(part.stream.slots.members.shape[1] for part in parts)
    pieces = math.ceil(members / most)
    piece = math.ceil(members / pieces)
    whole = max(1, most // members) if pieces == 1 else 1
    block = piece * whole
    for index, part in enumerate(parts):
        slots, taps = part.stream.slots, part.random.shape[0]
        inputs = [(s, tap) for s in range(len(slots.channel)) for tap in range(taps)]
        for start in range(0, len(inputs), whole):
            chosen = inputs[start : start + whole]
            for cut in range(0, members, piece):
                filled = [
                    (index, tap, int(channel)) if gain > 0 else (-1, 0, 0)
                    for s, tap in chosen
                    for channel, gain in zip(
                        slots.members[s, cut : cut + piece], slots.gain[s, cut : cut + piece], strict=True
                    )
                ]
                places += filled + [(-1, 0, 0)] * (block - len(filled))
                shares.append(list(range(number + start, number + start + len(chosen))) if cut == 0 else [])
        number += len(inputs)
    constants, _ = constant_variables(parts)
    constants += [(-1, 0, 0)] * (-len(constants) % block)
    places += constants
    shares += [[number]] + [[]] * (len(constants) // block - 1) if constants else []
    fill = -(len(places) // block) % GROUP
    places += [(-1, 0, 0)] * (fill * block)
    shares += [[]] * fill
    width = max(map(len, shares))
    part, tap, channel = np.array(places).T
    return Columns(part, tap, channel, np.array([s + [-1] * (width - len(s)) for s in shares]), block)


def draw_samples(layer: Linear, shape: tuple[int, ...], images: int, most: int, seed: int = 0) -> Samples:
    """All output positions of all images, or ``most`` of them drawn without replacement."""
    spatial = layer.output_shape(shape)[:-1] if isinstance(layer, Conv) else ()
    total = images * math.prod(spatial)
    flat = np.arange(total)
    if total > most:
        flat = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    image, *place = np.unravel_index(flat, (images, *spatial))
    return Samples(image, np.stack(place, 1) if place else np.zeros((len(flat), 0), int))


def patches(
    layer: Linear,
    x: Float[Array, "n *space c"],
    image: Int[Array, " samples"],
    place: Int[Array, "samples axes"],
    flat: Flatten | None = None,
) -> Float[Array, "samples taps c"]:
    """What a layer reads at each sample, tap by tap; zero in the padding."""
    if not isinstance(layer, Conv):
        return x[image].reshape(len(image), -1 if flat else 1, x.shape[-1])
    x = jnp.pad(x, ((0, 0), *layer.padding, (0, 0)))
    taps = (np.arange(k) * d for k, d in zip(layer.kernel, layer.dilation, strict=True))
    index = tuple(
        place[:, axis, None] * layer.stride[axis] + grid.reshape(1, -1)
        for axis, grid in enumerate(np.meshgrid(*taps, indexing="ij"))
    )
    return x[(image[:, None], *index)]


class Moments(NamedTuple):
    """Second moments over the samples."""

    gram: Float[Array, "n n"]
    """E[z z^T] without ridge."""
    inputs: Float[Array, "n shares"]
    """E[z x] for every (part, slot, tap) of the target and, last, E[z]."""
    skip: Float[Array, "n rows"]
    """E[z (target's skip - realised skip)]; no columns where no skip is carried."""


def moments(
    parts: tuple[Part, ...],
    columns: Columns,
    samples: Samples,
    skip: Carried | None,
    outputs: Int[np.ndarray, " rows"],
) -> Moments:
    """The moments of a node, gathered piece by piece; ``outputs``: the source channels of the copies."""
    carried = None if skip is None else (skip.x, skip.ticket)
    reads = tuple((part.layer, part.stream.flat) for part in parts)
    tickets = tuple(part.stream.ticket for part in parts)
    inputs = tuple(part.stream.x for part in parts)
    slots = tuple((part.stream.slots.channel, part.stream.slots.sign) for part in parts)
    # Number of each variable among all (part, tap, channel) side by side; the last one is an empty place.
    sizes = [part.random.shape[0] * part.random.shape[1] for part in parts]
    first = np.cumsum([0, *sizes])
    widths = np.array([part.random.shape[1] for part in parts])
    order = np.where(
        columns.part < 0,
        first[-1],
        first[columns.part] + columns.tap * widths[columns.part] + columns.channel,
    )
    total = len(samples.image)
    sums: Moments | None = None
    for start in range(0, total, SAMPLED):
        image, place = samples.image[start : start + SAMPLED], samples.place[start : start + SAMPLED]
        piece = _piece(reads, tickets, inputs, slots, order, image, place, carried, outputs)
        sums = piece if sums is None else jax.tree.map(jnp.add, sums, piece)
    assert sums is not None
    return jax.tree.map(lambda a: a / total, sums)


@partial(jax.jit, static_argnums=0)
def _piece(reads, tickets, inputs, slots, order, image, place, carried, outputs) -> Moments:
    """Sums of products over some samples."""
    count = len(image)
    seen = [
        patches(layer, ticket, image, place, flat).reshape(count, -1)
        for (layer, flat), ticket in zip(reads, tickets, strict=True)
    ]
    z = jnp.concatenate([*seen, jnp.zeros((count, 1))], 1)[:, order]
    values = [
        slot_values(patches(layer, x, image, place, flat), channel, sign)
        .transpose(0, 2, 1)
        .reshape(count, -1)
        for (layer, flat), x, (channel, sign) in zip(reads, inputs, slots, strict=True)
    ]
    shares = jnp.concatenate([*values, jnp.ones((count, 1))], 1)
    skip = jnp.zeros((count, 0))
    if carried is not None:
        here = (image, *(place[:, axis] for axis in range(place.shape[1])))
        x, ticket = (a[here] for a in carried)
        skip = jnp.repeat(x, len(outputs) // x.shape[1], 1) - ticket[:, outputs]

    def with_z(a: Array) -> Array:
        return jnp.dot(z.T, a, precision=HIGHEST)

    return Moments(with_z(z), with_z(shares), with_z(skip))


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


def solve_compensated(
    parts: tuple[Part, ...],
    wanted: Wanted,
    rule: Rule,
    skip: Carried | None,
    settings: Compensation,
) -> Solved:
    """Every row of a node against the calibration data its streams carry.

    Args:
      skip: a carried skip, whose errors the rows compensate as well.
    """
    copies = wanted.columns.shape[1]
    columns = columns_of(parts, settings.block)
    shape = parts[0].stream.shape
    calibration = parts[0].stream.ticket
    assert calibration is not None  # this method is only chosen with images
    images = calibration.shape[0]
    samples = draw_samples(parts[0].layer, shape, images, settings.positions)
    found = moments(parts, columns, samples, skip, wanted.columns.reshape(-1))
    ridge = settings.ridge if isinstance(parts[0].layer, Conv) else settings.dense_ridge
    diagonal = jnp.diagonal(found.gram)
    gram = found.gram + jnp.diag(jnp.full(len(diagonal), ridge * diagonal.sum() / (columns.part >= 0).sum()))
    weights = np.zeros((len(columns.part), wanted.columns.size), np.float32)
    for index, part in enumerate(parts):
        chosen = np.flatnonzero(columns.part == index)
        rows = part.random[columns.tap[chosen], columns.channel[chosen]]
        weights[chosen] = rows[:, wanted.columns.reshape(-1)]
    share_weights = np.concatenate([*(_share_weights(part) for part in parts), wanted.bias[None]])
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
        mask[columns.tap[chosen][:, None], columns.channel[chosen][:, None], wanted.columns.reshape(-1)] = (
            kept[chosen]
        )
    stats = sum(
        (deviations(part, mask, wanted.columns, rule) for part, mask in zip(parts, masks, strict=True)),
        Stats(),
    )
    constants = solve_constant_rows(parts, wanted.constant, masks, rule)
    everything = np.ones(wanted.columns.shape, bool)
    return Solved(masks, constants, np.zeros(wanted.columns.shape), everything, stats)


def _share_weights(part: Part) -> Float[np.ndarray, "shares cout"]:
    """Weights of the (slot, tap) inputs: w for a channel or its positive part, -w for its negative part."""
    slots = part.stream.slots
    signed = np.where(slots.sign == 0, 1, slots.sign)[:, None] * part.weight[:, slots.channel]
    return signed.transpose(1, 0, 2).reshape(-1, part.weight.shape[2])
