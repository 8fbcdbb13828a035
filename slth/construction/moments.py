"""What compensated rows are solved against: variables in blocks, sampled positions, second moments."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from slth.construction.biases import constant_variables
from slth.construction.noise import slot_values
from slth.construction.state import Part, Stream
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
                    (index, tap, int(channel)) if gain != 0 else (-1, 0, 0)
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
    image: Int[AnyArray, " samples"],
    place: Int[AnyArray, "samples axes"],
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
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
) -> Moments:
    """The moments of a node, gathered piece by piece; ``outputs``: the source channels of the copies."""
    carried = None if skip is None else (skip.x, skip.ticket)
    reads = tuple((part.layer, part.read.flat) for part in parts)
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
