r"""Linear maps, windows and moves in float64, each with its transpose, and a bound of their rounding.

A sum of n products in any order, fused or not, is off by at most :math:`\gamma_n \sum |a_i b_i|` with
:math:`\gamma_n = n u / (1 - n u)` and :math:`u = 2^{-53}` (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1). Sums of non-negative terms are therefore rounded up by a factor, and signed
sums carry :math:`\gamma_n |a|` along with their radius.
"""

import math
from collections.abc import Iterable
from typing import TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Float, Int

from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten, GlobalMean, Pool
from slth.types import Shape

UNIT = 2.0**-53
Values = Float[np.ndarray, "n ..."]
Kernel = Float[np.ndarray, "*taps cin cout"]
Mover: TypeAlias = Flatten | GlobalMean | Pool
"""A layer without parameters that acts on positions, the same for every channel."""
Places = dict[tuple[int, ...], tuple[slice, ...]]
"""By tap, the entries of the padded input that the tap meets."""


def gamma(terms: int) -> float:
    """Twice gamma_n for sums of n terms and a few operations around them."""
    return 2 * (terms + 16) * UNIT


def terms(kernel: Kernel) -> int:
    """Number of products in one output of a linear map."""
    return math.prod(kernel.shape[:-1])


def correlate(layer: Linear, x: Values, kernel: Kernel) -> Values:
    """The linear map of a layer without its bias; the kernel may have any numbers of channels."""
    if not isinstance(layer, Conv):
        return x @ kernel
    cin, cout = kernel.shape[-2:]
    places = _conv_places(layer, x.shape[1:])
    x = np.pad(x, ((0, 0), *layer.padding, (0, 0)))
    shape = (*x[next(iter(places.values()))].shape[:-1], cout)
    if cin * 4 < cout:  # few inputs: one product of all taps is faster than a product for each
        x = np.concatenate([x[place] for place in places.values()], -1)
        return (x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, cout)).reshape(shape)
    y = np.zeros((math.prod(shape[:-1]), cout))
    for tap, place in places.items():  # as matrices: NumPy multiplies stacks of them one by one
        y += x[place].reshape(-1, cin) @ kernel[tap]
    return y.reshape(shape)


def transposed(layer: Linear, y: Values, kernel: Kernel, shape: Shape) -> Values:
    """The transpose of `correlate`, to inputs of spatial shape ``shape[:-1]``."""
    if not isinstance(layer, Conv):
        return y @ kernel.T
    places = _conv_places(layer, shape)
    flat = y.reshape(-1, y.shape[-1])
    parts = ((flat @ kernel[tap].T).reshape(*y.shape[:-1], -1) for tap in places)
    return _scattered(layer, places, parts, (len(y), *shape[:-1], kernel.shape[-2]))


def _conv_places(layer: Conv, shape: Shape) -> Places:
    return _places(layer.kernel, layer.stride, layer.output_shape((*shape[:-1], 1))[:-1], layer.dilation)


def _places(size: Shape, stride: Shape, output: Shape, dilation: Shape | None = None) -> Places:
    dilation = dilation or (1,) * len(size)
    return {
        tap: (
            slice(None),
            *(
                slice(d * t, d * t + s * (out - 1) + 1, s)
                for t, d, s, out in zip(tap, dilation, stride, output, strict=True)
            ),
        )
        for tap in np.ndindex(*size)
    }


def _scattered(layer: Conv | Pool, places: Places, parts: Iterable[Values], shape: Shape) -> Values:
    """The parts of all taps, each added to the entries that its tap meets, for inputs of this shape."""
    start = [low for low, _ in layer.padding]
    last = next(reversed(places.values()))[1:]
    tops = [max(low + size, at.stop) for low, size, at in zip(start, shape[1:], last, strict=False)]
    x = np.zeros((shape[0], *tops, shape[-1]))
    for place, part in zip(places.values(), parts, strict=True):
        x[place] += part
    inside = (slice(low, low + size) for low, size in zip(start, shape[1:], strict=False))
    return x[(slice(None), *inside)]


def is_max(layer: object) -> TypeGuard[Pool]:
    """Whether a layer takes the largest entry of each window."""
    return isinstance(layer, Pool) and layer.kind == "max"


def moved(layer: Mover, x: Values) -> Values:
    """Pooling or flattening; all but max pooling is linear."""
    if isinstance(layer, Flatten):
        return (np.moveaxis(x, -1, 1) if layer.order == "chw" else x).reshape(len(x), -1)
    if isinstance(layer, GlobalMean):
        return x.mean(tuple(range(1, x.ndim - 1)))
    if is_max(layer):
        return windows(layer, x, -np.inf).max(0)
    return windows(layer, x, 0.0).sum(0) / _mean_sizes(layer, x.shape[1:])


def moved_transposed(layer: Mover, y: Values, shape: Shape) -> Values:
    """The transpose of mean pooling or flattening of inputs of the given shape."""
    if isinstance(layer, Flatten):
        if layer.order == "hwc":
            return y.reshape(len(y), *shape)
        return np.moveaxis(y.reshape(len(y), shape[-1], *shape[:-1]), 1, -1)
    if isinstance(layer, GlobalMean):
        y = y.reshape(len(y), *(1,) * (len(shape) - 1), -1)
        return np.broadcast_to(y, (len(y), *shape)) / math.prod(shape[:-1])
    y = y / _mean_sizes(layer, shape)
    places = _places(layer.window, layer.stride, y.shape[1:-1])
    return _scattered(layer, places, (y for _ in places), (len(y), *shape))


def _mean_sizes(layer: Pool, shape: Shape) -> Float[np.ndarray, "*space 1"]:
    """By what each window of mean pooling divides."""
    entries = np.ones((1, *shape[:-1], 1))
    if not layer.count_padding:
        return windows(layer, entries, 0.0).sum(0)[0]
    counted = np.pad(entries, ((0, 0), *layer.padding, (0, 0)), constant_values=1)
    return windows(layer, counted, 0.0, shape).sum(0)[0]


def windows(
    layer: Pool, x: Float[np.ndarray, "n *space c"], fill: float, shape: Shape | None = None
) -> Float[np.ndarray, "taps n *out c"]:
    """The entries of each window, tap by tap; ``fill`` in the padding.

    Args:
      shape: of an input that is padded already, without its padding; None for one that is not.
    """
    output = layer.output_shape((*(x.shape[1:] if shape is None else shape)[:-1], 1))[:-1]
    places = _places(layer.window, layer.stride, output)
    pads = []
    for (low, _), size, at in zip(
        layer.padding, x.shape[1:-1], next(reversed(places.values()))[1:], strict=True
    ):
        low = low if shape is None else 0
        pads.append((low, max(0, at.stop - low - size)))
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return np.stack([x[place] for place in places.values()])


def carried(
    stride: Shape, channels: Int[np.ndarray, " out"], x: Float[np.ndarray, "n *space c"]
) -> Float[np.ndarray, "n *out out"]:
    """Every stride-th position of the given channels, 0 for -1."""
    x = x[(slice(None), *(slice(None, None, s) for s in stride))][..., channels]
    return x if (channels >= 0).all() else x * (channels >= 0)


def carried_transposed(
    stride: Shape, channels: Int[np.ndarray, " out"], y: Float[np.ndarray, "n *out out"], shape: Shape
) -> Float[np.ndarray, "n *shape"]:
    """The transpose of `carried`, to inputs of the given shape."""
    x = np.zeros((len(y), *shape))
    held = np.flatnonzero(channels >= 0)
    thin = np.zeros((*y.shape[:-1], shape[-1]))
    np.add.at(np.moveaxis(thin, -1, 0), channels[held], np.moveaxis(y[..., held], -1, 0))
    x[(slice(None), *(slice(None, None, s) for s in stride))] = thin
    return x
