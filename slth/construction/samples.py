"""Where calibration images are looked at, and what a layer reads there."""

import functools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten
from slth.types import AnyArray

SAMPLED = 4096
"""Positions gathered at a time."""
PART = 32
"""Windows are at least one of so many parts of an image: in smaller ones all positions are much the same."""


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


def tap_offsets(layer: Conv) -> list[Int[np.ndarray, " kernel"]]:
    """On each axis, where the taps read for the output position 0; below 0 is padding."""
    return [
        np.arange(kernel) * dilation - low
        for kernel, dilation, (low, _) in zip(layer.kernel, layer.dilation, layer.padding, strict=True)
    ]


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


@partial(jax.jit, static_argnums=2)
def pixels_from(
    x: Float[Array, "n *space c"], first: Int[Array, "n axes"], size: tuple[int, ...]
) -> Float[Array, "n *size c"]:
    """So many pixels of each image, from its first one on; zero where there are none."""
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, size), indexing="ij"))
    at = first.T.reshape(len(size), -1, *(1,) * len(size)) + grid[:, None]
    return _inside(x, jnp.arange(len(x)).reshape(-1, *(1,) * len(size)), at)


def _inside(x: Array, image: AnyArray, at: Sequence[AnyArray] | Array) -> Array:
    """The pixels of some images at some places, which need not be inside; zero where there is none."""
    # Not a padded copy of the images, which are the largest arrays of a construction.
    sizes = x.shape[1:-1]
    inside = [(place >= 0) & (place < size) for place, size in zip(at, sizes, strict=True)]
    near = (jnp.clip(place, 0, size - 1) for place, size in zip(at, sizes, strict=True))
    return jnp.where(functools.reduce(jnp.logical_and, inside)[..., None], x[(image, *near)], 0)
