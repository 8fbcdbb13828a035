r"""Second moments of a convolution at all of its positions, from products of images with shifted images.

For each output position p, the taps t and s of a kernel read a value v at the places p + t and p + s. With
q = p + t, the sum of their products is :math:`\sum_q v(q) v(q + s - t)^T`. So two pairs of taps of equal
difference s - t sum the same products of pixels, but for pixels at the edges, which not every tap reaches.

Images are therefore cut into boxes of pixels, each of which a tap reaches whole or not at all. Products are
summed box by box, once for each difference, and each pair of taps adds up the boxes that its first tap
reaches. A 3x3 kernel has 45 pairs of taps and 13 differences.
"""

import functools
import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from slth.construction.means import seen
from slth.construction.noise import slot_values
from slth.construction.samples import tap_offsets
from slth.construction.state import Part, Stream
from slth.devices import Devices
from slth.nn.layers import Conv

HIGHEST = lax.Precision.HIGHEST


class Shifts(NamedTuple):
    """The taps of a kernel, the boxes of pixels that they reach, and their differences."""

    taps: Int[np.ndarray, "taps axes"]
    """Where a tap reads, for the output position 0."""
    outputs: tuple[int, ...]
    """Output positions on each axis."""
    edges: tuple[tuple[int, ...], ...]
    """On each axis, where boxes begin, and last the size of the image."""
    reached: Bool[np.ndarray, "taps boxes"]
    """Whether a tap reads a box, at some of the output positions."""
    differences: Int[np.ndarray, "differences axes"]
    """s - t of all pairs of taps, one of each two that differ in sign."""
    reach: tuple[int, ...]
    """Zeros around the images on each axis, so that every tap reads inside."""


def missed_by_skip(
    x: Float[Array, "*n c"], ticket: Float[Array, "*n source_c"], outputs: Int[Array, " rows"]
) -> Float[Array, "*n rows"]:
    """What a carried skip should bring to the copies less what it brings; ``outputs``: their channels."""
    return jnp.repeat(x, len(outputs) // x.shape[-1], -1) - ticket[..., outputs]


def shifts_of(layer: Conv, shape: tuple[int, ...]) -> Shifts | None:
    """The shifts of a convolution of images of a shape; None where they do not save products.

    Each pair of taps has one product for every output position, each difference one for every pixel. So they
    save some where differences times pixels are fewer than pairs times positions.
    """
    if any(step != 1 for step in layer.stride):
        return None
    sizes, outputs = shape[:-1], layer.output_shape(shape)[:-1]
    axes = tap_offsets(layer)
    taps = np.array(list(itertools.product(*axes)))
    edges, inside = [], []
    for offsets, size, count in zip(axes, sizes, outputs, strict=True):
        found = np.unique(np.concatenate([[0, size], offsets, offsets + count]).clip(0, size))
        edges.append(tuple(found.tolist()))
        first, last = found[:-1], found[1:]
        inside.append((offsets[:, None] <= first) & (last <= offsets[:, None] + count))
    reached = functools.reduce(np.kron, inside)
    pairs = (taps[None] - taps[:, None]).reshape(-1, taps.shape[1])
    differences = np.unique(pairs, axis=0)
    differences = differences[len(differences) // 2 :]  # sorted, so that the first half has the other sign
    count = len(taps)
    if len(differences) * np.prod(sizes) >= count * (count + 1) // 2 * np.prod(outputs):
        return None
    reach = tuple(
        max((kernel - 1) * dilation, *padding)
        for kernel, dilation, padding in zip(layer.kernel, layer.dilation, layer.padding, strict=True)
    )
    return Shifts(taps, outputs, tuple(edges), reached, differences, reach)


def shifted_moments(
    part: Part,
    shifts: Shifts,
    place: Int[np.ndarray, " n"],
    skip: Stream | None,
    outputs: Int[np.ndarray, " rows"],
    devices: Devices,
) -> tuple[Float[Array, "n n"], Float[Array, "n shares"], Float[Array, "n rows"]]:
    """Moments as `slth.construction.moments.Moments` has them, over all positions of all images.

    Every device has all images, and the products of some of the differences; the sums of one difference are
    one device's alone, so that bits do not depend on the number of devices.

    Args:
      place: number of each variable among all (tap, channel); more than there are for an empty place.
      skip: what is carried to the node, or None; ``outputs``: the source channels of its copies.
    """
    (x, ticket), slots = seen(part.stream), part.stream.slots
    taps = len(shifts.taps)
    tap, channel = np.divmod(place, ticket.shape[-1])
    channels, number = np.unique(np.where(tap < taps, channel, channel[0]), return_inverse=True)
    pixels = _pixels(ticket, x, channels, slots.channel, slots.sign, shifts.reach)
    width, size = len(channels), pixels.shape[-1]
    rows, columns = (np.minimum(tap * each + number, taps * each) for each in (width, size))
    copies = [jax.device_put(pixels, device) for device in devices]
    gram = jnp.zeros((taps, width, taps, size))
    differences = list(shifts.differences)
    for start in range(0, len(differences), len(devices)):
        turn = list(zip(differences[start : start + len(devices)], copies, strict=False))
        found = [
            _products(copy, difference, shifts.reached, shifts.edges, shifts.reach)
            for difference, copy in turn
        ]
        for (difference, _), sums in zip(turn, found, strict=True):
            first, second = _pairs(shifts.taps, difference)
            gram = _placed(gram, jax.device_put(sums, devices[0]), first, second)
        jax.block_until_ready(gram)  # the sums of many differences would be held at once
    total = np.float32(len(x) * np.prod(shifts.outputs))
    gram, inputs = _chosen(gram, rows, columns, total)
    missed = jnp.zeros((len(place), 0))
    if skip is not None:
        carried = skip.x, skip.ticket
        missed = _missed(copies[0], carried, outputs, shifts.taps, rows, total, shifts.reach, width)
    return gram, inputs, missed


def _pairs(
    taps: Int[np.ndarray, "taps axes"], difference: Int[np.ndarray, " axes"]
) -> tuple[Int[np.ndarray, " taps"], Int[np.ndarray, " taps"]]:
    """Pairs of taps of a difference, as many as there are taps: the first pair again where they are fewer."""
    equal = (taps[:, None] + difference == taps[None]).all(-1)
    first, second = np.nonzero(equal)
    left = (0, len(taps) - len(first))
    return np.pad(first, left, constant_values=first[0]), np.pad(second, left, constant_values=second[0])


@partial(jax.jit, static_argnums=5)
def _pixels(
    ticket: Array, x: Array, channels: Array, channel: Array, sign: Array, reach: tuple[int, ...]
) -> Float[Array, "*space images values"]:
    """What is read at each pixel: variables, the target's inputs, and 1; zeros around them.

    Images stand behind positions: a row of pixels is then one piece of memory.
    """
    values = [ticket[..., channels], slot_values(x, channel, sign), jnp.ones((*x.shape[:-1], 1))]
    pixels = jnp.moveaxis(jnp.concatenate(values, -1), 0, -2)
    return jnp.pad(pixels, [*((zeros, zeros) for zeros in reach), (0, 0), (0, 0)])


@partial(jax.jit, static_argnums=(3, 4))
def _products(
    pixels: Float[Array, "*space images values"],
    difference: Int[Array, " axes"],
    reached: Bool[Array, "taps boxes"],
    edges: tuple[tuple[int, ...], ...],
    reach: tuple[int, ...],
) -> Float[Array, "taps values values"]:
    """Sums of v(q) v(q + difference)^T over the pixels q that each tap reaches.

    Row by row of pixels, so that what is multiplied at a time stays in a processor's cache.
    """
    size = pixels.shape[-1]
    (rows, *others), strip = edges, np.repeat(np.arange(len(edges[0]) - 1), np.diff(edges[0]))
    boxes = list(itertools.product(*(list(itertools.pairwise(edge)) for edge in others)))

    def read(start: list, sizes: list[int]) -> Array:
        begin = [a + zeros for a, zeros in zip(start, reach, strict=True)]
        cut = lax.dynamic_slice(pixels, (*begin, 0, 0), (*sizes, *pixels.shape[-2:]))
        return cut.reshape(-1, size)

    def add(row: Array, sums: Array) -> Array:
        for number, box in enumerate(boxes):
            start, sizes = [row, *(low for low, _ in box)], [1, *(high - low for low, high in box)]
            here = read(start, sizes)
            there = read([a + moved for a, moved in zip(start, difference, strict=True)], sizes)
            found = jnp.dot(here.T, there, precision=HIGHEST)
            sums = sums.at[jnp.asarray(strip)[row], number].add(found)
        return sums

    sums = jnp.zeros((len(rows) - 1, len(boxes), size, size))
    sums = lax.fori_loop(0, rows[-1], add, sums).reshape(-1, size * size)
    of_taps = jnp.dot(reached.astype(jnp.float32), sums, precision=HIGHEST)
    return of_taps.reshape(len(reached), size, size)


@partial(jax.jit, donate_argnums=0)
def _placed(
    gram: Float[Array, "taps width taps values"],
    sums: Float[Array, "taps values values"],
    first: Int[Array, " pairs"],
    second: Int[Array, " pairs"],
) -> Float[Array, "taps width taps values"]:
    """The moments of the variables with the sums of some pairs of taps, and what is symmetric to them."""
    width = gram.shape[1]

    def put(index: Array, gram: Array) -> Array:
        t, s = first[index], second[index]
        gram = lax.dynamic_update_slice(gram, sums[t, :width][None, :, None], (t, 0, s, 0))
        return lax.dynamic_update_slice(gram, sums[t, :, :width].T[None, :, None], (s, 0, t, 0))

    return lax.fori_loop(0, len(first), put, gram)


@jax.jit
def _chosen(
    gram: Float[Array, "taps width taps values"],
    rows: Int[Array, " n"],
    columns: Int[Array, " n"],
    total: Array,
) -> tuple[Float[Array, "n n"], Float[Array, "n shares"]]:
    """Moments of the variables in their places, and those with the target's inputs, slot by slot, and 1."""
    taps, width, _, size = gram.shape
    flat = gram.reshape(taps * width, taps * size)
    inputs = gram[..., width : size - 1].transpose(0, 1, 3, 2).reshape(taps * width, -1)
    one = jnp.diagonal(gram[..., size - 1], axis1=0, axis2=2).T.reshape(-1, 1)
    beside = _filled(jnp.concatenate([inputs, one], 1), rows) / total

    def row(at: Array) -> Array:
        return _filled(_filled(flat, at), columns) / total

    return lax.map(row, rows, batch_size=16), beside


def _filled(array: Float[Array, "all ..."], index: Int[Array, "..."]) -> Float[Array, "..."]:
    """Some of an array; 0 for a number behind the last."""
    return array.at[index].get(mode="fill", fill_value=0)


@partial(jax.jit, static_argnums=(6, 7))
def _missed(
    pixels: Float[Array, "*space images values"],
    skip: tuple[Array, Array],
    outputs: Int[Array, " rows"],
    taps: Int[Array, "taps axes"],
    rows: Int[Array, " n"],
    total: Array,
    reach: tuple[int, ...],
    width: int,
) -> Float[Array, "n rows"]:
    """Moments of the variables in their places with what a carried skip misses of the target's."""
    wanted = jnp.moveaxis(missed_by_skip(*skip, outputs), 0, -2)
    sizes = (1, *wanted.shape[1:-2], pixels.shape[-2])

    def of_tap(tap: Array) -> Array:
        def add(row: Array, sums: Array) -> Array:
            begin = [a + zeros for a, zeros in zip(tap, reach, strict=True)]
            begin[0] += row
            own = lax.dynamic_slice(pixels, (*begin, 0, 0), (*sizes, width)).reshape(-1, width)
            return sums + jnp.dot(own.T, wanted[row].reshape(-1, len(outputs)), precision=HIGHEST)

        return lax.fori_loop(0, len(wanted), add, jnp.zeros((width, len(outputs))))

    return _filled(lax.map(of_tap, taps).reshape(-1, len(outputs)), rows) / total
