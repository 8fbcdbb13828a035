r"""A convolution of 3 x 3 taps with 2.25 times fewer multiplications.

An output of 2 x 2 pixels reads 4 x 4 inputs d. Each of its pixels is a sum of nine products, 36 in all.
Winograd's way takes 16 products: with w the kernel and :math:`\odot` the product entry by entry,

    y = A^T ((G w G^T) \odot (B^T d B)) A,

where for one axis

    B^T d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3),
    G w   = (w0, (w0 + w1 + w2) / 2, (w0 - w1 + w2) / 2, w2),
    A^T m = (m0 + m1 + m2, m1 - m2 - m3).

With channels, each of the 16 products is one matrix product of all tiles' inputs with a (cin, cout) matrix.
The result differs from that of `slth.nn.convolution.correlate_channels` in the last bits: by up to 1e-6 of
its largest entry. So it serves where a network is run very often and its last bits decide nothing.

Sources: Winograd, *Arithmetic Complexity of Computations* (1980); Lavin and Gray, arXiv:1509.09308.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from slth.nn.layers import Conv, Linear
from slth.nn.spec import positions
from slth.types import AnyArray, Batch, Pairs, Params, Shape

CHANNELS = 48
"""Inputs and outputs from which a CPU is faster with this: what is added costs as much for any number."""
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
"""G."""


def suits_tiles(layer: Linear, shape: Shape) -> bool:
    """Whether a layer has 3 x 3 taps, side by side at stride 1, and channels enough on this machine.

    On a GPU, cuDNN chooses the way of a convolution.
    """
    if not isinstance(layer, Conv) or layer.kernel != (3, 3) or layer.groups > 1:
        return False
    plain = all(step == 1 for step in (*layer.stride, *layer.dilation))
    return plain and min(shape[-1], layer.features) >= CHANNELS and jax.local_devices()[0].platform == "cpu"


def tiles_of(layer: Linear, shape: Shape) -> int:
    """Tiles that one image's outputs are divided into."""
    return math.prod(-(-size // 2) for size in layer.output_shape(shape)[:-1])


def apply_tiles(layer: Linear, params: Params, x: Batch) -> Array:
    """What a layer that `suits_tiles` computes of its parameters and inputs."""
    assert isinstance(layer, Conv)
    y = correlate_tiles(x, params["kernel"], layer.padding)
    return y + jnp.asarray(params["bias"]).reshape(1, 1, 1, -1) if layer.use_bias else y


@partial(jax.jit, static_argnames="padding")
def correlate_tiles(
    x: Float[AnyArray, "n height width cin"], w: Float[AnyArray, "3 3 cin cout"], padding: Pairs
) -> Float[Array, "n out_height out_width cout"]:
    """What a convolutional layer of stride 1 computes, tile by tile.

    Args:
      x: n inputs with channels last.
      w: kernels of 3 x 3 taps.
      padding: pairs of zeros before and after both axes.
    Returns: as `slth.nn.convolution.correlate_channels`, up to rounding.

    >>> correlate_tiles(jnp.ones((1, 2, 3, 1)), jnp.ones((3, 3, 1, 1)), ((1, 1), (1, 1)))[0, ..., 0]
    Array([[4., 6., 4.],
           [4., 6., 4.]], dtype=float32)
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    count, cin, cout = len(x), *w.shape[2:]
    size = positions(x.shape[1:-1], (3, 3), (1, 1), padding, (1, 1))
    tiles = [-(-n // 2) for n in size]
    # A last tile may reach one pixel beyond the outputs.
    ends = [
        (before, after + 2 * n - outputs)
        for (before, after), n, outputs in zip(padding, tiles, size, strict=True)
    ]
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    kernels = jnp.einsum("ir,js,rsab->ijab", _KERNEL, _KERNEL, w, precision=lax.Precision.HIGHEST)
    products = [
        [
            jnp.dot(seen.reshape(-1, cin), kernels[i, j], precision=lax.Precision.HIGHEST)
            for j, seen in enumerate(_seen(row, 2, tiles[1]))
        ]
        for i, row in enumerate(_seen(x, 1, tiles[0]))
    ]
    rows = zip(*(_outputs(column) for column in zip(*products, strict=True)), strict=True)
    pixels = [[y.reshape(count, *tiles, cout) for y in _outputs(row)] for row in rows]
    y = jnp.stack([jnp.stack(row, 3) for row in pixels], 2)
    return y.reshape(count, 2 * tiles[0], 2 * tiles[1], cout)[:, : size[0], : size[1]]


def _seen(x: Array, axis: int, number: int) -> tuple[Array, ...]:
    """B^T d of the tiles along an axis."""
    d = [lax.slice_in_dim(x, start, start + 2 * number - 1, 2, axis) for start in range(4)]
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _outputs(m: Sequence[Array]) -> tuple[Array, Array]:
    """A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
