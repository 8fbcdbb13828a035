"""The matrix of a convolution: sparse, and with few weights that it shares many times.

Convolution with a fixed w is linear in x, so it is a product with a matrix T whose entry
T[i, j] = w[i - j + start] depends on i - j only: a Toeplitz matrix (``start`` is 0, (R - 1) // 2,
R - 1 in the modes full, same, valid). With two axes and x flattened row by row the rule holds for
each axis: blocks T[i1, j1] depend on i1 - j1 only and each block is Toeplitz, *doubly blocked*
Toeplitz. A dense layer of the same size has a free weight in each entry.

Source: Goodfellow, Bengio, Courville, *Deep Learning* (2016), section 9.1.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slth.nn.convolution import Mode, mode_padding
from slth.types import AnyArray, Shape


class ToeplitzFacts(NamedTuple):
    """How sparse the matrix of a convolution is and how much it shares; read fields by name."""

    shape: tuple[int, int]  # outputs, inputs
    occupied: int  # entries that hold a weight, whatever its value
    sparsity: float  # share of the other entries, which are zero for every w; in [0, 1]
    weights: int  # distinct weights that occur: the free parameters of the matrix


def toeplitz(w: Float[AnyArray, "*taps"], size: Shape, mode: Mode = "full") -> Float[Array, "outputs inputs"]:
    """T with T vec(x) = vec(x * w), where vec reads x row by row.

    Correlation with w has the matrix of flip(w). The transpose of the matrix of the valid
    correlation with w is the matrix of the full convolution with w: that is why the input's
    gradient of a correlation is a full convolution.

    Args:
      w: kernel with one axis or two.
      size: lengths of x.
      mode: as in `slth.nn.convolution`.
    Raises: ValueError if the axes differ or w is larger than x in mode "valid".
    Cost: prod(out) prod(size) entries, dense. Differentiable in w.

    >>> toeplitz(jnp.array([1.0, 2.0]), (3,))
    Array([[1., 0., 0.],
           [2., 1., 0.],
           [0., 2., 1.],
           [0., 0., 2.]], dtype=float32)
    """
    return _toeplitz(jnp.asarray(w), tuple(size), mode)


def toeplitz_taps(taps: Shape, size: Shape, mode: Mode = "full") -> Int[np.ndarray, "outputs inputs"]:
    """Which tap of w, counted row by row, each entry of its `toeplitz` matrix holds; -1 is none.

    >>> toeplitz_taps((2,), (3,)).tolist()
    [[0, -1, -1], [1, 0, -1], [-1, 1, 0], [-1, -1, 1]]
    """
    matrix = np.zeros((1, 1), np.int64)
    for r, i, out, start in _axes(taps, size, mode):
        axis = np.arange(out)[:, None] - np.arange(i)[None, :] + start
        axis = np.where((axis >= 0) & (axis < r), axis, -1)
        outer, inner = matrix[:, None, :, None], axis[None, :, None, :]
        both = np.where((outer >= 0) & (inner >= 0), outer * r + inner, -1)
        matrix = both.reshape(matrix.shape[0] * out, matrix.shape[1] * i)
    return matrix


def toeplitz_facts(taps: Shape, size: Shape, mode: Mode = "full") -> ToeplitzFacts:
    """Shape, occupied entries, sparsity and distinct weights of a `toeplitz` matrix, not built.

    Each is a product over the axes: tap r of an axis stands once in each row i whose column
    j = i + start - r lies in [0, I). In mode "valid" every row holds all taps once, so the
    sparsity is 1 - prod(R) / prod(I).

    >>> toeplitz_facts((3, 3), (28, 28), "same")
    ToeplitzFacts(shape=(784, 784), occupied=6724, sparsity=0.989, weights=9)
    """
    shape, occupied, weights = (1, 1), 1, 1
    for r, i, out, start in _axes(taps, size, mode):
        tap = np.arange(r)
        rows = np.minimum(out, i - start + tap) - np.maximum(0, tap - start)
        rows = np.maximum(rows, 0)
        shape = (shape[0] * out, shape[1] * i)
        occupied *= int(rows.sum())
        weights *= int((rows > 0).sum())
    return ToeplitzFacts(shape, occupied, 1 - occupied / math.prod(shape), weights)


@partial(jax.jit, static_argnames=("size", "mode"))
def _toeplitz(w: Array, size: Shape, mode: Mode) -> Array:
    taps = toeplitz_taps(w.shape, size, mode)
    return jnp.where(taps >= 0, w.ravel()[taps], jnp.zeros((), w.dtype))


def _axes(taps: Shape, size: Shape, mode: Mode) -> list[tuple[int, int, int, int]]:
    """For each axis the taps R, the inputs I, the outputs, and the tap that entry (0, 0) holds."""
    if len(taps) != len(size) or len(taps) not in (1, 2) or min(*taps, *size) < 1:
        raise ValueError(f"w and x must both have one axis or two, got {taps} and {size}")
    pads = mode_padding(mode, taps)
    axes = [
        (r, i, i + sum(pair) - r + 1, r - 1 - pair[0]) for r, i, pair in zip(taps, size, pads, strict=True)
    ]
    if min(out for _, _, out, _ in axes) < 1:
        raise ValueError(f'mode "valid" needs w inside x, got {taps} and {size}')
    return axes
