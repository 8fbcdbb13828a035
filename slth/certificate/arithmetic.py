r"""Linear maps and windows in float64, with a bound of their rounding.

A sum of n products in any order, fused or not, is off by at most :math:`\gamma_n \sum |a_i b_i|` with
:math:`\gamma_n = n u / (1 - n u)` and :math:`u = 2^{-53}` (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1). Sums of non-negative terms are therefore rounded up by a factor, and signed
sums carry :math:`\gamma_n |a|` along with their radius.
"""

import math
from typing import TypeGuard

import numpy as np
from jaxtyping import Bool, Float

from slth.nn.layers import Conv, Dense
from slth.nn.pooling import GlobalMean, Pool

UNIT = 2.0**-53
Values = Float[np.ndarray, "n *shape"]
Kernel = Float[np.ndarray, "*taps cin cout"]


def gamma(terms: int) -> float:
    """Twice gamma_n for sums of n terms and a few operations around them."""
    return 2 * (terms + 16) * UNIT


def terms(kernel: Kernel) -> int:
    """Number of products in one output of a linear map."""
    return math.prod(kernel.shape[:-1])


def correlate(layer: Conv | Dense, x: Values, kernel: Kernel) -> Values:
    """The linear map of a layer without its bias; the kernel may have any numbers of channels."""
    cin, cout = kernel.shape[-2:]
    if isinstance(layer, Dense):
        return x @ kernel
    places = _places(layer, x.shape[1:])
    x = np.pad(x, ((0, 0), *layer.padding, (0, 0)))
    shape = (*x[next(iter(places.values()))].shape[:-1], cout)
    if cin * 4 < cout:  # few inputs: one product of all taps is faster than a product for each
        x = np.concatenate([x[place] for place in places.values()], -1)
        return (x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, cout)).reshape(shape)
    y = np.zeros((math.prod(shape[:-1]), cout))
    for tap, place in places.items():  # as matrices: NumPy multiplies stacks of them one by one
        y += x[place].reshape(-1, cin) @ kernel[tap]
    return y.reshape(shape)


def transposed(layer: Conv | Dense, y: Values, kernel: Kernel, shape: tuple[int, ...]) -> Values:
    """The transpose of `correlate`, to inputs of spatial shape ``shape[:-1]``."""
    if isinstance(layer, Dense):
        return y @ kernel.T
    padded = [size + sum(pad) for size, pad in zip(shape, layer.padding, strict=False)]
    x = np.zeros((len(y), *padded, kernel.shape[-2]))
    for tap, place in _places(layer, shape).items():
        x[place] += (y.reshape(-1, y.shape[-1]) @ kernel[tap].T).reshape(x[place].shape)
    inside = (slice(low, low + size) for (low, _), size in zip(layer.padding, shape, strict=False))
    return x[(slice(None), *inside)]


def _places(layer: Conv, shape: tuple[int, ...]) -> dict[tuple[int, ...], tuple[slice, ...]]:
    """For each tap the entries of the padded input that it meets."""
    output = layer.output_shape((*shape[:-1], 1))[:-1]
    return {
        tap: (
            slice(None),
            *(
                slice(d * t, d * t + s * (out - 1) + 1, s)
                for t, d, s, out in zip(tap, layer.dilation, layer.stride, output, strict=True)
            ),
        )
        for tap in np.ndindex(*layer.kernel)
    }


def mean(layer: Pool | GlobalMean, x: Values) -> Values:
    """Mean pooling."""
    if isinstance(layer, GlobalMean):
        return x.mean(tuple(range(1, x.ndim - 1)))
    total = windows(layer, x, 0.0).sum(0)
    return total / mean_sizes(layer, x.shape[1:])


def mean_transposed(layer: Pool | GlobalMean, y: Values, shape: tuple[int, ...]) -> Values:
    """The transpose of mean pooling of inputs of the given shape."""
    if isinstance(layer, GlobalMean):
        y = y.reshape(len(y), *(1,) * (len(shape) - 1), -1)
        return np.broadcast_to(y, (len(y), *shape)) / math.prod(shape[:-1])
    y = y / mean_sizes(layer, shape)
    output = layer.output_shape((*shape[:-1], 1))[:-1]
    tops = [
        max(low + size, (out - 1) * stride + window)
        for size, (low, _), window, stride, out in zip(
            shape, layer.padding, layer.window, layer.stride, output, strict=False
        )
    ]
    x = np.zeros((len(y), *tops, shape[-1]))
    for tap in np.ndindex(*layer.window):
        place = (
            slice(t, t + stride * (out - 1) + 1, stride)
            for t, stride, out in zip(tap, layer.stride, output, strict=True)
        )
        x[(slice(None), *place)] += y
    inside = (slice(low, low + size) for (low, _), size in zip(layer.padding, shape, strict=False))
    return x[(slice(None), *inside)]


def mean_sizes(layer: Pool, shape: tuple[int, ...]) -> Float[np.ndarray, "*space 1"]:
    """By what each window of mean pooling divides."""
    entries = np.ones((1, *shape[:-1], 1))
    if not layer.count_padding:
        return windows(layer, entries, 0.0).sum(0)[0]
    counted = np.pad(entries, ((0, 0), *layer.padding, (0, 0)), constant_values=1)
    return _windows(layer, counted, shape, 0.0, padded=True).sum(0)[0]


def is_max(layer: Pool | GlobalMean) -> TypeGuard[Pool]:
    """Whether a pooling takes the largest entry; else it is a mean."""
    return isinstance(layer, Pool) and layer.kind == "max"


def pool(layer: Pool | GlobalMean, x: Values) -> Values:
    """Max or mean pooling."""
    return windows(layer, x, -np.inf).max(0) if is_max(layer) else mean(layer, x)


def windows(
    layer: Pool, x: Float[np.ndarray, "n *space c"], fill: float | bool
) -> Float[np.ndarray, "taps n *out c"]:
    """The entries of each window, tap by tap; ``fill`` in the padding."""
    return _windows(layer, x, x.shape[1:], fill, padded=False)


def _windows(layer: Pool, x: np.ndarray, shape: tuple[int, ...], fill: float | bool, *, padded: bool):
    output = layer.output_shape((*shape[:-1], 1))[:-1]
    pads = []
    for size, (low, high), window, stride, out in zip(
        shape, layer.padding, layer.window, layer.stride, output, strict=False
    ):
        need = (out - 1) * stride + window - size - low
        pads.append((0, max(0, need - high)) if padded else (low, max(0, need)))
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return np.stack(
        [
            x[
                (
                    slice(None),
                    *(
                        slice(t, t + stride * (out - 1) + 1, stride)
                        for t, stride, out in zip(tap, layer.stride, output, strict=True)
                    ),
                )
            ]
            for tap in np.ndindex(*layer.window)
        ]
    )


def gather(
    x: Float[np.ndarray, "... c"], index: np.ndarray, held: Bool[np.ndarray, " channels"]
) -> Float[np.ndarray, "... channels"]:
    """Channels ``index`` of x, 0 where none is held."""
    y = x[..., np.where(held, index, 0)]
    return y if held.all() else y * held
