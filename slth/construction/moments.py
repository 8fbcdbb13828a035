"""What compensated rows are solved against: variables in blocks, sampled positions, second moments."""

import math
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from slth.construction.biases import constant_variables
from slth.construction.noise import slot_values
from slth.construction.state import Part, Rows, Stream
from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten
from slth.types import AnyArray

HIGHEST = lax.Precision.HIGHEST
SAMPLED = 4096
"""Positions gathered at a time."""
GROUP = 8
"""Blocks between two updates of the far correlations."""


class Samples(NamedTuple):
    """Where the calibration images are looked at: image and output position."""

    image: Int[AnyArray, " samples"]
    place: Int[AnyArray, "samples axes"]


class Columns(NamedTuple):
    """The variables of a node's rows in the order in which they are solved, in blocks of equal size."""

    place: Int[np.ndarray, " n"]
    """Number of a variable among all (part, tap, channel); one more than the last for a place that is empty,
    to fill a block."""
    share: Int[np.ndarray, "blocks shares"]
    """Inputs of the target that a block brings in, as numbers into the list of all (part, slot, tap) and,
    last, the bias, which comes with the constants; -1 for none."""
    block: int
    """Variables in a block."""


def columns_of(parts: tuple[Part, ...], most: int) -> Columns:
    """Blocks of as many whole taps as fit into ``most`` variables, or equal pieces of one; constants last."""
    members = max(part.stream.slots.members.shape[1] for part in parts)
    pieces = math.ceil(members / most)
    piece = math.ceil(members / pieces)
    whole = max(1, most // members) if pieces == 1 else 1
    block = piece * whole
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
            for cut in range(0, members, piece):
                places.append(chosen[:, cut : cut + piece].reshape(-1).tolist())
                shares.append([] if cut else list(range(number + start, number + start + len(chosen))))
        number += len(inputs)
    constants = [first[p] + tap * parts[p].random.shape[1] + c for p, tap, c in constant_variables(parts)[0]]
    for start in range(0, len(constants), block):
        places.append(constants[start : start + block])
        shares.append([] if start else [number])
    share = _filled(shares, max(map(len, shares)), -1)
    return Columns(_filled(places, block, empty).reshape(-1), share, block)


def _filled(rows: list[list[int]], width: int, empty: int) -> Int[np.ndarray, "rows width"]:
    """Rows of one length, and as many as whole groups have."""
    rows = rows + [[]] * (-len(rows) % GROUP)
    return np.array([row + [empty] * (width - len(row)) for row in rows])


def draw_samples(layer: Linear, shape: tuple[int, ...], images: int, most: int) -> Samples:
    """All output positions of all images, or ``most`` of them drawn without replacement."""
    spatial = layer.output_shape(shape)[:-1] if isinstance(layer, Conv) else ()
    total = images * math.prod(spatial)
    flat = np.arange(total)
    if total > most:
        flat = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    image, *place = np.unravel_index(flat, (images, *spatial))
    return Samples(image, np.stack(place, 1) if place else np.zeros((len(flat), 0), int))


def patches(
    layer: Linear, x: Float[Array, "n *space c"], samples: Samples, flat: Flatten | None = None
) -> Float[Array, "samples taps c"]:
    """What a layer reads at each sample, tap by tap; zero in the padding."""
    image, place = samples
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
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
) -> Moments:
    """The moments of a node, gathered piece by piece; ``outputs``: the source channels of the copies."""
    reads = tuple((part.layer, part.read.flat) for part in parts)
    streams = tuple(part.stream for part in parts)
    total = len(samples.image)
    some = (Samples(*(a[start : start + SAMPLED] for a in samples)) for start in range(0, total, SAMPLED))
    pieces = (_piece(reads, streams, columns.place, one, skip, outputs) for one in some)
    sums = reduce(partial(jax.tree.map, jnp.add), pieces)
    return jax.tree.map(lambda a: a / total, sums)


@partial(jax.jit, static_argnums=0)
def _piece(reads, streams, order, samples, carried, outputs) -> Moments:
    """Sums of products over some samples."""
    count = len(samples.image)
    seen = [
        patches(layer, stream.ticket, samples, flat).reshape(count, -1)
        for (layer, flat), stream in zip(reads, streams, strict=True)
    ]
    z = jnp.concatenate([*seen, jnp.zeros((count, 1))], 1)[:, order]
    values = [
        slot_values(patches(layer, stream.x, samples, flat), stream.slots.channel, stream.slots.sign)
        .transpose(0, 2, 1)
        .reshape(count, -1)
        for (layer, flat), stream in zip(reads, streams, strict=True)
    ]
    shares = jnp.concatenate([*values, jnp.ones((count, 1))], 1)
    skip = jnp.zeros((count, 0))
    if carried is not None:
        here = (samples.image, *samples.place.T)
        x, ticket = carried.x[here], carried.ticket[here]
        skip = jnp.repeat(x, len(outputs) // x.shape[1], 1) - ticket[:, outputs]

    def with_z(a: Array) -> Array:
        return jnp.dot(z.T, a, precision=HIGHEST)

    return Moments(with_z(z), with_z(shares), with_z(skip))


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
    pieces = [Samples(*(a[start : start + SAMPLED] for a in samples)) for start in range(0, total, SAMPLED)]
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
