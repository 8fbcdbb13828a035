"""Channels and features on the move: flattened, carried by a skip, and back again."""

import numpy as np
from jaxtyping import Float, Int

from slth.nn.pooling import Flatten

Array = np.ndarray


def spread(values: Array, order: str, positions: int) -> Array:
    """What each channel has, for each feature of a flattened array."""
    repeats = (1,) * (values.ndim - 1)
    return np.tile(values, (*repeats, positions)) if order == "hwc" else np.repeat(values, positions, -1)


def spread_index(index: Int[Array, "... channels"], channels: int, order: str, positions: int) -> Array:
    """Numbers of channels as numbers of features."""
    wide = spread(index, order, positions)
    place = np.arange(positions)
    place = np.repeat(place, index.shape[-1]) if order == "hwc" else np.tile(place, index.shape[-1])
    return place * channels + wide if order == "hwc" else wide * positions + place


def carried(
    stride: tuple[int, ...], channels: Int[Array, " out"], x: Float[Array, "n *space c"]
) -> Float[Array, "n *out out"]:
    """Every stride-th position of the given channels, 0 for -1."""
    x = x[(slice(None), *(slice(None, None, s) for s in stride))][..., channels]
    return x if (channels >= 0).all() else x * (channels >= 0)


def carried_transposed(
    stride: tuple[int, ...],
    channels: Int[Array, " out"],
    y: Float[Array, "n *out out"],
    shape: tuple[int, ...],
) -> Float[Array, "n *shape"]:
    """The transpose of `carried`, to inputs of the given shape."""
    x = np.zeros((len(y), *shape))
    held = np.flatnonzero(channels >= 0)
    place = (slice(None), *(slice(None, None, s) for s in stride))
    wide = np.zeros((*y.shape[:-1], shape[-1]))
    np.add.at(np.moveaxis(wide, -1, 0), channels[held], np.moveaxis(y[..., held], -1, 0))
    x[place] = wide
    return x


def flattened_transposed(
    layer: Flatten, y: Float[Array, "n features"], shape: tuple[int, ...]
) -> Float[Array, "n *shape"]:
    """The transpose of `flattened`."""
    if layer.order == "hwc":
        return y.reshape(len(y), *shape)
    return np.moveaxis(y.reshape(len(y), shape[-1], *shape[:-1]), 1, -1)


def flattened(layer: Flatten, x: Float[Array, "n *shape"]) -> Float[Array, "n features"]:
    """All features in one axis."""
    return (np.moveaxis(x, -1, 1) if layer.order == "chw" else x).reshape(len(x), -1)
