"""What compensated rows are solved against: variables in blocks, and their second moments."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from slth.construction.biases import constant_variables
from slth.construction.means import seen
from slth.construction.multiples import multiples_of
from slth.construction.noise import slot_values
from slth.construction.samples import Samples, patches, pixels_from, tap_offsets
from slth.construction.shifts import Shifts, missed_by_skip, shifted_moments, shifts_of
from slth.construction.state import Part, Stream
from slth.devices import SPLIT, WHOLE, Devices, on_all, over_devices
from slth.nn.layers import Conv

HIGHEST = lax.Precision.HIGHEST
PIECE = 2048
"""Positions gathered at a time, fewer than elsewhere: rows are the widest here."""
CUTS = 8
"""Blocks of variables that moments of sampled positions are summed in: the most devices that take part."""
AROUND = CUTS // 2 + 1
"""Of which each has its products with so many."""
GROUP = 8
"""Blocks between two updates of the far correlations; more where there are many (`columns_of`)."""


class Columns(NamedTuple):
    """The variables of a node's rows in the order in which they are solved, in blocks of equal size."""

    place: Int[np.ndarray, " n"]
    """Number of a variable among all (part, tap, channel); one more than the last for a place that is empty,
    to fill a block."""
    share: Int[np.ndarray, "blocks shares"]
    """Inputs of the target that a block brings in, as numbers into the list of all (part, slot, tap) and,
    last, the bias, which comes with the constants; -1 for none."""
    pieces: tuple[int, ...]
    """How many variables of a block are enumerated together, piece by piece."""
    group: int
    """Blocks between two updates of the far correlations."""

    @property
    def block(self) -> int:
        """Variables in a block."""
        return sum(self.pieces)


def columns_of(parts: tuple[Part, ...], most: int) -> Columns:
    """Blocks of as many whole taps as ``most`` variables are, or of one in equal pieces; constants last."""
    members = max(part.stream.slots.members.shape[1] for part in parts)
    whole = max(1, most // members)
    count = math.ceil(members / most)
    pieces = tuple((whole * members + k) // count for k in reversed(range(count)))
    block = sum(pieces)
    *first, empty = np.cumsum([0, *(part.random.rows.size for part in parts)]).tolist()
    places: list[list[int]] = []
    shares: list[list[int]] = []
    number = 0
    for part, before in zip(parts, first, strict=True):
        slots, (taps, width, _) = part.stream.slots, part.random.shape
        numbers = before + width * np.arange(taps)[:, None] + slots.members[:, None]
        inputs = np.where(slots.gain[:, None] != 0, numbers, empty).reshape(-1, slots.members.shape[1])
        for start in range(0, len(inputs), whole):
            chosen = inputs[start : start + whole]
            places.append(chosen.reshape(-1).tolist())
            shares.append(list(range(number + start, number + start + len(chosen))))
        number += len(inputs)
    constants = [first[p] + tap * parts[p].random.shape[1] + c for p, tap, c in constant_variables(parts)[0]]
    for start in range(0, len(constants), block):
        places.append(constants[start : start + block])
        shares.append([] if start else [number])
    # Few groups cost products of few rows, which are slow, and wide ones many updates within.
    group = GROUP * min(4, max(1, len(places) // (32 * GROUP)))
    spare = [[]] * (-len(places) % group)
    share = _filled(shares + spare, max(map(len, shares)), -1)
    return Columns(_filled(places + spare, block, empty).reshape(-1), share, pieces, group)


def _filled(rows: list[list[int]], width: int, empty: int) -> Int[np.ndarray, "rows width"]:
    """Rows of one length."""
    return np.array([row + [empty] * (width - len(row)) for row in rows])


def _reading(part: Part, channels: Int[np.ndarray, " _"]) -> Part:
    """The part, reading some channels of the ticket alone."""
    ticket = part.stream.ticket
    assert ticket is not None
    return part._replace(stream=part.stream._replace(ticket=ticket[..., channels]))


@jax.jit
def _of_all(found: "Moments", index: Array, ratio: Array) -> "Moments":
    """The moments of all variables from those of the few."""
    gram = found.gram[index][:, index] * ratio[:, None] * ratio[None]
    return Moments(gram, *(a[index] * ratio[:, None] for a in (found.inputs, found.skip)))


class Moments(NamedTuple):
    """Second moments over the samples."""

    gram: Float[Array, "n n"]
    """E[z z^T] without ridge."""
    inputs: Float[Array, "n shares"]
    """E[z x] for every (part, slot, tap) of the target and, last, E[z]."""
    skip: Float[Array, "n rows"]
    """E[z (target's skip - realised skip)]; no columns where no skip is carried."""


class Sums(NamedTuple):
    """Sums of products over sampled positions, for each of `CUTS` blocks of variables.

    E[z z^T] is symmetric: a block's products with itself and with the `AROUND` - 1 blocks that follow it, the
    last followed by the first, are all that there are. So every block has equally many of them.
    """

    gram: Float[Array, "cuts width around"]
    beside: Float[Array, "cuts width wanted"]
    """With the target's inputs, 1 and what a carried skip misses."""


def moments(
    parts: tuple[Part, ...],
    columns: Columns,
    samples: Samples,
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
) -> Moments:
    """The moments of a node; ``outputs``: the source channels of the copies.

    Where a convolution is looked at in a window of each image, they are products of shifted images
    (`slth.construction.shifts`). Otherwise samples are gathered piece by piece and their products added in
    place; on several devices each has some of the blocks of variables, and all samples in their order. Bits
    do not depend on how many devices there are.
    """
    multiples = multiples_of(parts, columns.place)
    if multiples is not None:
        narrow = tuple(map(_reading, parts, multiples.channels))
        few = _moments(narrow, multiples.place, samples, skip, outputs)
        return _of_all(few, multiples.index, np.float32(multiples.ratio))
    return _moments(parts, columns.place, samples, skip, outputs)


def _moments(
    parts: tuple[Part, ...],
    place: Int[np.ndarray, " n"],
    samples: Samples,
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
) -> Moments:
    """The moments of the variables at some places."""
    total, count = len(samples.image), len(place)
    devices = tuple(jax.local_devices())
    shifted = _shifted(parts, place, samples, skip)
    if shifted is not None:
        (part, skip), shifts = shifted
        return Moments(*shifted_moments(part, shifts, place, skip, outputs, devices))
    some = devices[: min(CUTS, 2 ** int(math.log2(len(devices))))]
    add = _adding(some)
    empty = sum(part.random.rows.size for part in parts)
    order = np.append(place, np.full(-count % CUTS, empty))
    sums = None
    for piece in samples.pieces(PIECE):
        values = _values(parts, piece, order, skip, outputs)
        if sums is None:
            width = len(order) // CUTS
            shapes = AROUND * width, values.wanted.shape[1]
            sums = Sums(*(jnp.zeros((CUTS, width, size)) for size in shapes))
        sums = add(sums, np.arange(CUTS), on_all(values, some))
    assert sums is not None
    sums = jax.device_put(sums, devices[0])
    return _means(sums, np.float32(total), count, 0 if skip is None else len(outputs))


def _shifted(
    parts: tuple[Part, ...], place: Int[np.ndarray, " n"], samples: Samples, skip: Stream | None
) -> tuple[tuple[Part, Stream | None], Shifts] | None:
    """A node that is one convolution, within the windows that are looked at, and the shifts of its taps."""
    part, count = parts[0], len(place)
    layer, window = part.layer, samples.window
    if len(parts) > 1 or not isinstance(layer, Conv) or window is None:
        return None
    whole = window == layer.output_shape(part.read.shape)[:-1]
    padding = layer.padding if whole else ((0, 0),) * len(window)
    read = tuple(
        (kernel - 1) * dilation + size - sum(zeros)
        for kernel, dilation, size, zeros in zip(layer.kernel, layer.dilation, window, padding, strict=True)
    )
    shifts = shifts_of(replace(layer, padding=padding), (*read, part.read.shape[-1]))
    if shifts is None:
        return None
    # Within the memory that a node is said to take (`slth.construction.compensated.bytes_of`).
    images, taps = len(seen(part.stream)[0]), len(shifts.taps)
    size = math.ceil(count / taps) + len(part.stream.slots.channel) + 1
    pixels = images * math.prod(n + 2 * zeros for n, zeros in zip(read, shifts.reach, strict=True))
    if taps * size > 1.5 * count or pixels * size > 4 * PIECE * count:
        return None
    if not whole:
        corner = np.asarray(samples.place).reshape(images, -1, len(window))[:, 0]
        first = corner + np.array([offsets[0] for offsets in tap_offsets(layer)])
        part = part._replace(stream=_within(part.stream, first, read))
        skip = skip and _within(skip, corner, window)
    return (part, skip), shifts


def _within(stream: Stream, first: Int[np.ndarray, "images axes"], size: tuple[int, ...]) -> Stream:
    """A stream of some pixels of each image, from the first one on; zeros where there are none."""
    x, ticket = (pixels_from(a, first, size) for a in seen(stream))
    return stream._replace(x=x, ticket=ticket)


class Values(NamedTuple):
    """What the moments are of, at some samples."""

    z: Float[Array, "samples n"]
    wanted: Float[Array, "samples wanted"]
    """The target's inputs, 1 and what a carried skip misses."""


def _values(
    parts: tuple[Part, ...],
    samples: Samples,
    order: Int[np.ndarray, " n"],
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
) -> Values:
    """The values at some samples, variables in their order.

    Reading is one program and ordering another: XLA would merge the two into one that looks up where an entry
    is read for each entry, and takes ten times as long.
    """
    seen, wanted = [], []
    for part in parts:
        layer, slots, flat = part.layer, part.stream.slots, part.read.flat
        x, ticket = (_patches(layer, a, samples, flat) for a in (part.stream.x, part.stream.ticket))
        seen.append(ticket)
        wanted.append((x, slots.channel, slots.sign))
    carried = None
    if skip is not None:
        here = (samples.image, *samples.place.T)
        carried = _at(skip.x, here), _at(skip.ticket, here)
    return _ordered(seen, wanted, order, carried, outputs)


_patches = jax.jit(patches, static_argnums=(0, 3))


@jax.jit
def _at(x: Array, here: tuple[Array, ...]) -> Array:
    return x[here]


@jax.jit
def _ordered(seen, wanted, order, carried, outputs) -> Values:
    """What is read, as `Values`; a place of ``order`` behind all that is read is 0."""
    count = len(seen[0])
    z = jnp.concatenate([a.reshape(count, -1) for a in seen], 1)
    z = z.at[:, order].get(mode="fill", fill_value=0)
    values = [
        slot_values(x, channel, sign).transpose(0, 2, 1).reshape(count, -1) for x, channel, sign in wanted
    ]
    values.append(jnp.ones((count, 1)))
    if carried is not None:
        x, ticket = carried
        values.append(missed_by_skip(x, ticket, outputs))
    return Values(z, jnp.concatenate(values, 1))


@functools.cache
def _adding(devices: Devices) -> Callable:
    """`_added`, each device with its share of the blocks of variables."""
    return over_devices(_added, devices, (SPLIT, SPLIT, WHOLE), SPLIT, donate_argnums=0)


def _added(sums: Sums, numbers: Int[Array, " cuts"], values: Values) -> Sums:
    """The sums with the products of some more samples; ``numbers``: which blocks of variables they are of."""
    z, wanted = values
    cuts, width, around = sums.gram.shape
    circle = jnp.concatenate([z, z[:, : around - width]], 1)

    def add(index: Array, sums: Sums) -> Sums:
        start = numbers[index] * width
        own = lax.dynamic_slice_in_dim(z, start, width, 1).T
        others = lax.dynamic_slice_in_dim(circle, start, around, 1), wanted
        found = (jnp.dot(own, other, precision=HIGHEST) for other in others)
        return Sums(*(a.at[index].add(more) for a, more in zip(sums, found, strict=True)))

    return lax.fori_loop(0, cuts, add, sums)


@partial(jax.jit, static_argnums=(2, 3))
def _means(sums: Sums, total: Array, count: int, rows: int) -> Moments:
    """The moments of ``count`` variables from sums over ``total`` samples; a skip reaches ``rows``."""
    cuts, width, around = sums.gram.shape

    def whole(index: Array) -> Array:
        """All columns of a block of rows: its own products, then those that other blocks have with it."""
        others = range(around // width, cuts)
        back = [
            lax.dynamic_slice_in_dim(sums.gram[(index + k) % cuts], (cuts - k) * width, width, 1).T
            for k in others
        ]
        return jnp.roll(jnp.concatenate([sums.gram[index], *back], 1) / total, index * width, 1)

    gram = lax.map(whole, jnp.arange(cuts)).reshape(cuts * width, cuts * width)
    beside = sums.beside.reshape(cuts * width, -1)[:count] / total
    shares = beside.shape[1] - rows
    return Moments(gram[:count, :count], beside[:, :shares], beside[:, shares:])


def share_weights(part: Part) -> Float[np.ndarray, "taps slots cout"]:
    """Weights of the target's inputs: w for a channel or its positive part, -w for its negative part."""
    slots = part.stream.slots
    return np.where(slots.sign == 0, 1, slots.sign)[:, None] * part.weight[:, slots.channel]
