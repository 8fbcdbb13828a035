r"""Linear maps, windows and moves in float64, each with its transpose, and a bound of their rounding.

A sum of n products in any order, fused or not, is off by at most :math:`\gamma_n \sum |a_i b_i|` with
:math:`\gamma_n = n u / (1 - n u)` and :math:`u = 2^{-53}` (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, section 3.1). Sums of non-negative terms are therefore rounded up by a factor, and signed
sums carry :math:`\gamma_n |a|` along with their radius.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise, repeat
from typing import TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Float, Int, Shaped

from slth.nn.layers import Conv, Linear
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Upsample
from slth.types import Shape

UNIT = 2.0**-53
Values = Float[np.ndarray, "n ..."]
Entries = Shaped[np.ndarray, "n ..."]
"""Values, or what else each of them has."""
Kernel = Float[np.ndarray, "*taps rows cout"]
Inputs = Int[np.ndarray, "rows cout"] | None
"""Which channel each output reads by each row of a kernel; None where rows are all channels in order."""
Mover: TypeAlias = Flatten | GlobalMax | GlobalMean | Pool | Upsample
"""A layer without parameters that acts on positions, the same for every channel."""


def gamma(terms: int) -> float:
    """Twice gamma_n for sums of n terms and a few operations around them."""
    return 2 * (terms + 16) * UNIT


def terms(kernel: Kernel) -> int:
    """Number of products in one output of a linear map."""
    return math.prod(kernel.shape[:-1])


def correlate(layer: Linear, x: Values, kernel: Kernel, inputs: Inputs = None) -> Values:
    """The linear map of a layer of one group, without its bias; a kernel may have any numbers of channels."""
    if inputs is not None:
        assert isinstance(layer, Conv)
        y = np.zeros((len(x), *layer.output_shape(x.shape[1:])[:-1], kernel.shape[-1]))
        for outputs, channels, block in _blocks(kernel, inputs):
            y[..., outputs] = correlate(layer, x[..., channels], block)
        return y
    if not isinstance(layer, Conv):
        return x @ kernel
    cin, cout = kernel.shape[-2:]
    places = _places(layer, x.shape[1:])
    shape = (len(x), *layer.output_shape(x.shape[1:])[:-1], cout)
    x = np.pad(x, ((0, 0), *layer.padding, (0, 0)))
    if cin * 4 < cout:  # few inputs: one product of all taps is faster than a product for each
        x = np.concatenate([x[:, *place] for place in places.values()], -1)
        return (x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, cout)).reshape(shape)
    y = np.zeros((math.prod(shape[:-1]), cout))
    for tap, place in places.items():  # as matrices: NumPy multiplies stacks of them one by one
        y += x[:, *place].reshape(-1, cin) @ kernel[tap]
    return y.reshape(shape)


def transposed(layer: Linear, y: Values, kernel: Kernel, shape: Shape, inputs: Inputs = None) -> Values:
    """The transpose of `correlate`, to inputs of this shape (of as many channels as the kernel has rows, but
    for one with ``inputs``)."""
    if inputs is not None:
        x = np.zeros((len(y), *shape))
        for outputs, channels, block in _blocks(kernel, inputs):
            x[..., channels] += transposed(layer, y[..., outputs], block, shape)
        return x
    if not isinstance(layer, Conv):
        return y @ kernel.T
    flat = y.reshape(-1, y.shape[-1])
    parts = ((flat @ kernel[tap].T).reshape(*y.shape[:-1], -1) for tap in np.ndindex(*layer.kernel))
    return _scattered(layer, parts, (len(y), *shape[:-1], kernel.shape[-2]))


def _blocks(
    kernel: Kernel, inputs: Int[np.ndarray, "rows cout"]
) -> Iterator[tuple[slice, Int[np.ndarray, " rows"], Kernel]]:
    """The parts of a kernel whose outputs read the same channels: outputs, channels and kernel of each."""
    starts = np.flatnonzero((np.diff(inputs, axis=1, prepend=-1) != 0).any(0))
    for start, stop in pairwise([*starts.tolist(), inputs.shape[1]]):
        block = kernel[..., start:stop]
        rows = np.flatnonzero(block.reshape(-1, *block.shape[-2:]).any((0, 2)))
        if len(rows):
            yield slice(start, stop), inputs[rows, start], block[..., rows, :]


def sizes_by_input(kernel: Kernel, inputs: Inputs, channels: int) -> Float[np.ndarray, " channels"]:
    """Sums of all |weights| that read each channel."""
    weights = np.abs(kernel).sum(tuple(range(kernel.ndim - 2)))
    if inputs is None:
        return np.asarray(weights.sum(1))
    return np.bincount(inputs.reshape(-1), weights.reshape(-1), channels)


def _places(layer: Conv | Pool, shape: Shape) -> dict[Shape, tuple[slice, ...]]:
    """By tap, the entries of a padded input that the tap meets; ``shape`` is the input's without padding."""
    conv = isinstance(layer, Conv)
    size, dilation = (layer.kernel, layer.dilation) if conv else (layer.window, (1,) * len(layer.window))
    axes = list(zip(dilation, layer.stride, layer.output_shape(shape), strict=False))
    return {
        tap: tuple(
            slice(d * t, d * t + s * (out - 1) + 1, s) for t, (d, s, out) in zip(tap, axes, strict=True)
        )
        for tap in np.ndindex(*size)
    }


def _scattered(layer: Conv | Pool, parts: Iterable[Values], shape: Shape) -> Values:
    """The parts of all taps, each added to the entries that its tap meets, for inputs of this shape."""
    places = list(_places(layer, shape[1:]).values())
    start = [low for low, _ in layer.padding]
    tops = [max(low + size, at.stop) for low, size, at in zip(start, shape[1:], places[-1], strict=False)]
    x = np.zeros((shape[0], *tops, shape[-1]))
    for place, part in zip(places, parts, strict=True):
        x[:, *place] += part
    return x[:, *(slice(low, low + size) for low, size in zip(start, shape[1:], strict=False))]


def is_max(layer: object) -> TypeGuard[Pool | GlobalMax]:
    """Whether a layer takes the largest entry of each window."""
    return isinstance(layer, GlobalMax) or (isinstance(layer, Pool) and layer.kind == "max")


def moved(layer: Mover, x: Entries) -> Entries:
    """Pooling, upsampling or flattening; all but the largest of a window is linear."""
    if isinstance(layer, Flatten):
        return (np.moveaxis(x, -1, 1) if layer.order == "chw" else x).reshape(len(x), -1)
    if isinstance(layer, GlobalMean):
        return x.mean(tuple(range(1, x.ndim - 1)))
    if isinstance(layer, Upsample):
        for axis, factor in enumerate(layer.factor, start=1):
            x = np.repeat(x, factor, axis)
        return x
    if is_max(layer):
        return windows(layer, x, -np.inf).max(0)
    assert isinstance(layer, Pool)
    return windows(layer, x, 0.0).sum(0) / _mean_sizes(layer, x.shape[1:])


def moved_transposed(layer: Mover, y: Entries, shape: Shape) -> Entries:
    """The transpose of mean pooling, upsampling or flattening of inputs of the given shape."""
    if isinstance(layer, Flatten):
        if layer.order == "hwc":
            return y.reshape(len(y), *shape)
        return np.moveaxis(y.reshape(len(y), shape[-1], *shape[:-1]), 1, -1)
    if isinstance(layer, GlobalMean):
        y = y.reshape(len(y), *(1,) * (len(shape) - 1), -1)
        return np.broadcast_to(y, (len(y), *shape)) / math.prod(shape[:-1])
    if isinstance(layer, Upsample):
        pairs = (pair for size_factor in zip(shape, layer.factor, strict=False) for pair in size_factor)
        return y.reshape(len(y), *pairs, shape[-1]).sum(tuple(range(2, 2 * len(shape) - 1, 2)))
    assert isinstance(layer, Pool)
    parts = repeat(y / _mean_sizes(layer, shape), math.prod(layer.window))
    return _scattered(layer, parts, (len(y), *shape))


def _mean_sizes(layer: Pool, shape: Shape) -> Float[np.ndarray, "*space 1"]:
    """By what each window of mean pooling divides: its entries along each axis, multiplied."""
    counts = np.ones(())
    axes = zip(layer.output_shape(shape)[:-1], shape, layer.padding, layer.window, layer.stride, strict=False)
    for output, size, (low, high), window, stride in axes:
        start = stride * np.arange(output) - low
        first, last = (-low, size + high) if layer.count_padding else (0, size)
        counts = np.multiply.outer(counts, np.minimum(start + window, last) - np.maximum(start, first))
    return counts[..., None]


def windows(
    layer: Pool | GlobalMax, x: Float[np.ndarray, "n *space c"], fill: float
) -> Float[np.ndarray, "taps n *out c"]:
    """The entries of each window, tap by tap; ``fill`` in the padding."""
    if isinstance(layer, GlobalMax):
        return np.moveaxis(x.reshape(len(x), -1, x.shape[-1]), 1, 0)
    places = _places(layer, x.shape[1:])
    # No window that sticks out at the end does so by more than its size.
    pads = [(low, size) for (low, _), size in zip(layer.padding, layer.window, strict=True)]
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    return np.stack([x[:, *place] for place in places.values()])
