"""What compensated rows are solved against: variables in blocks, sampled positions, second moments."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
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
from slth.construction.shifts import Shifts, missed_by_skip, shifted_moments, shifts_of, tap_offsets
from slth.construction.state import Part, Rows, Stream
from slth.devices import SPLIT, WHOLE, Devices, on_all, over_devices
from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten
from slth.types import AnyArray

HIGHEST = lax.Precision.HIGHEST
SAMPLED = 4096
"""Positions gathered at a time."""
PIECE = 2048
"""The same for `moments`, whose rows are the widest."""
CUTS = 8
"""Blocks of variables that moments of sampled positions are summed in: the most devices that take part."""
AROUND = CUTS // 2 + 1
"""Of which each has its products with so many."""
PART = 32
"""Windows are at least one of so many parts of an image: in smaller ones all positions are much the same."""
GROUP = 8
"""Blocks between two updates of the far correlations; more where there are many (`columns_of`)."""


class Samples(NamedTuple):
    """Where the calibration images are looked at: image and output position."""

    image: Int[AnyArray, " samples"]
    place: Int[AnyArray, "samples axes"]
    window: tuple[int, ...] | None = None
    """Size of the window of positions that each image is looked at in, where these are all."""

    def pieces(self, size: int) -> "Iterator[Samples]":
        """A few samples at a time."""
        for start in range(0, len(self.image), size):
            yield Samples(self.image[start : start + size], self.place[start : start + size])


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


def draw_samples(
    layer: Linear, shape: tuple[int, ...], images: int, most: int, *, windows: bool = False
) -> Samples:
    """All output positions of all images, or ``most`` of them drawn without replacement.

    Args:
      windows: whether one window of each image is drawn instead where the stride is 1, as large as ``most``
        allows, if that is not too small: its positions lie side by side.
    """
    spatial = layer.output_shape(shape)[:-1] if isinstance(layer, Conv) else ()
    total = images * math.prod(spatial)
    windows &= isinstance(layer, Conv) and max(layer.stride) == 1 and total <= PART * most
    if spatial and (total <= most or (windows and images <= most)):
        return _windows(spatial, images, most // images)
    flat = np.arange(total)
    if total > most:
        flat = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    image, *place = np.unravel_index(flat, (images, *spatial))
    return Samples(image, np.stack(place, 1) if place else np.zeros((len(flat), 0), int))


def _windows(spatial: tuple[int, ...], images: int, most: int) -> Samples:
    """All positions of one window of each image, of up to ``most`` positions.

    The windows lie side by side on a grid, and each place of it takes its turn: the edges of images, where
    layers read padding, are seen as often as the rest.
    """
    sides, left = np.array(spatial), float(most)
    for number, axis in enumerate(np.argsort(spatial)):
        sides[axis] = min(spatial[axis], int(left ** (1 / (len(spatial) - number)) + 1e-9))
        left /= sides[axis]
    grid = -(-np.array(spatial) // sides)
    rng, cells = np.random.default_rng(0), math.prod(grid)
    turns = np.concatenate([rng.permutation(cells) for _ in range(math.ceil(images / cells))])[:images]
    corner = np.minimum(np.stack(np.unravel_index(turns, grid), 1) * sides, spatial - sides)
    inside = np.stack(np.unravel_index(np.arange(math.prod(sides)), sides), 1)
    place = (corner[:, None] + inside).reshape(-1, len(sides))
    return Samples(np.repeat(np.arange(images), len(inside)), place, tuple(sides.tolist()))


def patches(
    layer: Linear, x: Float[Array, "n *space c"], samples: Samples, flat: Flatten | None = None
) -> Float[Array, "samples taps c"]:
    """What a layer reads at each sample, tap by tap; zero in the padding."""
    image, place, _ = samples
    if not isinstance(layer, Conv):
        return x[image].reshape(len(image), -1 if flat else 1, x.shape[-1])
    index = [
        place[:, axis, None] * layer.stride[axis] + grid.reshape(1, -1)
        for axis, grid in enumerate(np.meshgrid(*tap_offsets(layer), indexing="ij"))
    ]
    return _inside(x, image[:, None], index)


def _inside(x: Array, image: AnyArray, at: Sequence[AnyArray] | Array) -> Array:
    """The pixels of some images at some places, which need not be inside; zero where there is none."""
    # Not a padded copy of the images, which are the largest arrays of a construction.
    sizes = x.shape[1:-1]
    inside = [(place >= 0) & (place < size) for place, size in zip(at, sizes, strict=True)]
    near = (jnp.clip(place, 0, size - 1) for place, size in zip(at, sizes, strict=True))
    return jnp.where(functools.reduce(jnp.logical_and, inside)[..., None], x[(image, *near)], 0)


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
    x, ticket = (_cut(a, first, size) for a in seen(stream))
    return stream._replace(x=x, ticket=ticket)


@partial(jax.jit, static_argnums=2)
def _cut(a: Array, first: Array, size: tuple[int, ...]) -> Array:
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, size), indexing="ij"))
    at = first.T.reshape(len(size), -1, *(1,) * len(size)) + grid[:, None]
    return _inside(a, jnp.arange(len(a)).reshape(-1, *(1,) * len(size)), at)


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


class Regression(NamedTuple):
    """What the best rows of a node follow from: moments about the means.

    There is one input for each (part, tap, slot), what the slot's members hold in units of their gains.
    """

    gram: Float[np.ndarray, "n n"]
    """Covariance of the inputs."""
    cross: Float[np.ndarray, "n rows"]
    """Covariance of inputs and wanted outputs."""
    mean_input: Float[np.ndarray, " n"]
    mean_output: Float[np.ndarray, " rows"]


def regression(parts: tuple[Part, ...], samples: Samples, skip: Stream | None, rows: Rows) -> Regression:
    """The moments of a node whose slots' members differ by their gains alone, in float64.

    The output that is wanted of a row is the target's, biases included, less what a carried skip brings.
    """
    outputs = rows.columns.reshape(-1)
    reads = tuple((part.layer, part.read.flat) for part in parts)
    streams = tuple(part.stream for part in parts)
    weights = tuple(np.float32(share_weights(part)).reshape(-1, part.weight.shape[2]) for part in parts)
    total = len(samples.image)
    pieces = list(samples.pieces(SAMPLED))
    count = sum(weight.shape[0] for weight in weights)
    # Products in float32 of values about their means: of the first piece, which are near those of all.
    about = np.zeros(count + 1 + len(outputs), np.float32)
    arguments = reads, streams, weights
    first = np.asarray(_products(*arguments, pieces[0], skip, outputs, about)[-1]) / len(pieces[0].image)
    about = np.where(np.arange(len(about)) == count, 0, first).astype(np.float32)
    products = sum(np.asarray(_products(*arguments, one, skip, outputs, about), np.float64) for one in pieces)
    products = np.asarray(products) / total
    mean, mean_output = products[-1, :count], products[-1, count + 1 :]
    gram = products[:count, :count] - np.outer(mean, mean)
    cross = products[:count, count + 1 :] - np.outer(mean, mean_output)
    bias = np.repeat(rows.bias, rows.columns.shape[1])
    return Regression(gram, cross, mean + about[:count], mean_output + about[count + 1 :] + bias)


def share_weights(part: Part) -> Float[np.ndarray, "taps slots cout"]:
    """Weights of the target's inputs: w for a channel or its positive part, -w for its negative part."""
    slots = part.stream.slots
    return np.where(slots.sign == 0, 1, slots.sign)[:, None] * part.weight[:, slots.channel]


@partial(jax.jit, static_argnums=0)
def _products(reads, streams, weights, samples, carried, outputs, about) -> Array:
    """Sums of products of (inputs, 1) with (inputs, 1, wanted outputs), less ``about``, over some samples."""
    count = len(samples.image)
    inputs, wanted = [], jnp.zeros((count, len(outputs)))
    for (layer, flat), stream, weight in zip(reads, streams, weights, strict=True):
        slots = stream.slots
        largest = jnp.abs(slots.gain).argmax(1)
        member = jnp.take_along_axis(slots.members, largest[:, None], 1)[:, 0]
        gain = jnp.take_along_axis(slots.gain, largest[:, None], 1)[None, None, :, 0]
        # Less phi(0) before it is padded: what constants cancel tap by tap is not there in the padding.
        held = patches(layer, stream.ticket[..., member] - slots.base, samples, flat)
        inputs.append(jnp.where(gain == 0, 0, held / jnp.where(gain == 0, 1, gain)).reshape(count, -1))
        x = slot_values(patches(layer, stream.x, samples, flat), slots.channel, slots.sign)
        wide = jnp.repeat(weight, len(outputs) // weight.shape[1], 1)
        wanted = wanted + jnp.dot(x.reshape(count, -1), wide, precision=HIGHEST)
    if carried is not None:
        here = (samples.image, *samples.place.T)
        x, ticket = carried.x[here], carried.ticket[here]
        wanted = wanted + jnp.repeat(x, len(outputs) // x.shape[1], 1) - ticket[:, outputs]
    every = jnp.concatenate([*inputs, jnp.ones((count, 1)), wanted], 1) - about[None]
    return jnp.dot(every[:, : -len(outputs)].T, every, precision=HIGHEST)
