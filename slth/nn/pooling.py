"""Layers without parameters that move, merge or re-order entries: pooling, flatten, subsampling."""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from slth.nn.spec import Stateless, check_positive, positions
from slth.types import Batch, Pairs, Params, Shape, Values


@dataclass(frozen=True)
class Pool(Stateless):
    """Max or mean over windows; padding counts as minus infinity (max) or not at all (mean).

    Args:
      kind: "max" or "mean".
      window, stride: one number for each spatial axis; the stride's default is the window.
      padding: before and after each spatial axis; less than the window, so that no window is empty.
      incomplete: also take the windows that stick out at the end (over the entries they do have).
      count_padding: a mean divides by the window's size, padding included (PyTorch's default), not by the
        number of true entries.

    Example:
      >>> from slth import nn
      >>> nn.Pool("max", (2, 2)).output_shape((7, 7, 3))
      (3, 3, 3)
      >>> nn.Pool("max", (2, 2), incomplete=True).output_shape((7, 7, 3))
      (4, 4, 3)
    """

    kind: Literal["max", "mean"]
    window: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: Pairs = ()
    incomplete: bool = False
    count_padding: bool = False

    def __post_init__(self) -> None:
        rank = len(self.window)
        object.__setattr__(self, "stride", self.stride or self.window)
        object.__setattr__(self, "padding", self.padding or ((0, 0),) * rank)
        check_positive(f"{self.kind} pooling", self, "window", "stride")
        if self.kind not in ("max", "mean"):
            raise ValueError(f"pooling is max or mean, got {self.kind!r}")
        if any(max(pad) >= size for pad, size in zip(self.padding, self.window, strict=True)):
            raise ValueError(f"pooling: padding {self.padding} must be smaller than the window {self.window}")

    def full_padding(self, shape: Shape) -> Pairs:
        """Padding of an input of this shape with which every window is complete."""
        if not self.incomplete:
            return self.padding
        pairs = []
        for size, (a, b), window, stride in zip(shape, self.padding, self.window, self.stride, strict=False):
            spare = size + a + b - window
            extra = -spare % stride
            # A window must start inside the input or its left padding, or it would hold nothing.
            pairs.append((a, b + extra if spare + extra < size + a else b))
        return tuple(pairs)

    def output_shape(self, shape: Shape) -> Shape:
        """(*spatial, c), lengths ``(I + padding - window) // stride + 1``, rounded up if ``incomplete``."""
        if len(shape) != len(self.window) + 1:
            raise ValueError(f"{self.kind} pooling over {self.window} cannot read an input of shape {shape}")
        no_dilation = (1,) * len(self.window)
        out = positions(shape[:-1], self.window, self.stride, self.full_padding(shape), no_dilation)
        if min(out) < 1:
            raise ValueError(f"{self.kind} pooling: window {self.window} is larger than its input {shape}")
        return (*out, shape[-1])

    def apply(self, params: Params, x: Batch) -> Values:
        """The pooled batch."""
        window, stride = (1, *self.window, 1), (1, *self.stride, 1)
        padding = ((0, 0), *self.full_padding(x.shape[1:]), (0, 0))
        if self.kind == "max":
            return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, padding)
        total = lax.reduce_window(x, 0.0, lax.add, window, stride, padding)
        return total / self.divisors(x.shape[1:]).astype(x.dtype)

    def divisors(self, shape: Shape) -> Float[Array, "1 *out 1"]:
        """For an input of this shape, what a mean divides the sum of each window by."""
        entries = jnp.ones((1, *shape[:-1], 1))
        own = ((0, 0), *self.padding, (0, 0))
        entries = jnp.pad(entries, own, constant_values=float(self.count_padding))
        full = ((0, 0), *self.full_padding(shape), (0, 0))
        rest = tuple((0, after - within) for (_, after), (_, within) in zip(full, own, strict=True))
        return lax.reduce_window(entries, 0.0, lax.add, (1, *self.window, 1), (1, *self.stride, 1), rest)


@dataclass(frozen=True)
class GlobalMean(Stateless):
    """The mean over all spatial positions: (*spatial, c) -> (c,).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> nn.GlobalMean().apply({}, jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
      [[3.0, 4.0]]
    """

    def output_shape(self, shape: Shape) -> Shape:
        """(c,)."""
        return shape[-1:]

    def apply(self, params: Params, x: Batch) -> Values:
        """Means by channel."""
        return jnp.mean(x, tuple(range(1, x.ndim - 1)))


@dataclass(frozen=True)
class GlobalMax(Stateless):
    """The largest entry of all spatial positions: (*spatial, c) -> (c,).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> nn.GlobalMax().apply({}, jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
      [[6.0, 7.0]]
    """

    def output_shape(self, shape: Shape) -> Shape:
        """(c,)."""
        return shape[-1:]

    def apply(self, params: Params, x: Batch) -> Values:
        """Maxima by channel."""
        return jnp.max(x, tuple(range(1, x.ndim - 1)))


@dataclass(frozen=True)
class Upsample(Stateless):
    """Every position ``factor`` times along each spatial axis (nearest neighbour).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> line = jnp.array([[[1.0], [2.0]]])      # two positions, one channel
      >>> nn.Upsample((3,)).apply({}, line).ravel().tolist()
      [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    """

    factor: tuple[int, ...]

    def __post_init__(self) -> None:
        check_positive("upsample", self, "factor")

    def output_shape(self, shape: Shape) -> Shape:
        """(*spatial * factor, c)."""
        if len(shape) != len(self.factor) + 1:
            raise ValueError(f"upsampling by {self.factor} cannot read an input of shape {shape}")
        return (*(size * factor for size, factor in zip(shape, self.factor, strict=False)), shape[-1])

    def apply(self, params: Params, x: Batch) -> Values:
        """The repeated batch."""
        for axis, factor in enumerate(self.factor, start=1):
            x = jnp.repeat(x, factor, axis)
        return jnp.asarray(x)


@dataclass(frozen=True)
class Flatten(Stateless):
    """All features in one axis, in the order "hwc" (rows, columns, channels) or "chw" (PyTorch's).

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> image = jnp.arange(4.0).reshape(1, 1, 2, 2)    # one row, two columns, two channels
      >>> nn.Flatten("hwc").apply({}, image).tolist(), nn.Flatten("chw").apply({}, image).tolist()
      ([[0.0, 1.0, 2.0, 3.0]], [[0.0, 2.0, 1.0, 3.0]])
    """

    order: Literal["hwc", "chw"] = "hwc"

    def __post_init__(self) -> None:
        if self.order not in ("hwc", "chw"):
            raise ValueError(f"flatten order is hwc or chw, got {self.order!r}")

    def output_shape(self, shape: Shape) -> Shape:
        """(product of the shape,)."""
        return (math.prod(shape),)

    def sources(self, shape: Shape) -> Int[np.ndarray, " features"]:
        """The channel that each feature of a value of this shape is of."""
        channels, positions = np.arange(shape[-1]), math.prod(shape[:-1])
        return np.tile(channels, positions) if self.order == "hwc" else np.repeat(channels, positions)

    def by_position(
        self, kernel: Shaped[np.ndarray, "features cout"], positions: int
    ) -> Shaped[np.ndarray, "positions channels cout"]:
        """A kernel that reads the flattened value, with one matrix for each of its positions."""
        features, cout = kernel.shape
        if self.order == "chw":
            return kernel.reshape(-1, positions, cout).transpose(1, 0, 2)
        return kernel.reshape(positions, features // positions, cout)

    def by_feature(
        self, view: Shaped[np.ndarray, "positions channels cout"]
    ) -> Shaped[np.ndarray, "features cout"]:
        """The inverse of `by_position`."""
        view = view.transpose(1, 0, 2) if self.order == "chw" else view
        return view.reshape(-1, view.shape[2])

    def apply(self, params: Params, x: Batch) -> Values:
        """The flattened batch."""
        values = jnp.asarray(x)
        if self.order == "chw":
            values = jnp.moveaxis(values, -1, 1)
        return values.reshape(len(values), -1)


@dataclass(frozen=True)
class Subsample(Stateless):
    """Every ``stride``-th position; output channel j is input channel ``channels[j]``, or zero if that is -1.

    The parameter-free skip of CIFAR's residual networks ("option A").

    Example:
      >>> import jax.numpy as jnp
      >>> from slth import nn
      >>> line = jnp.array([[[1.0], [2.0], [3.0]]])      # three positions, one channel
      >>> nn.Subsample((2,), (-1, 0)).apply({}, line).tolist()
      [[[0.0, 1.0], [0.0, 3.0]]]

    Source: He et al., CVPR 2016, section 4.2.
    """

    stride: tuple[int, ...]
    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        check_positive("subsample", self, "stride")

    def output_shape(self, shape: Shape) -> Shape:
        """(*ceil(spatial / stride), len(channels))."""
        if max(self.channels) >= shape[-1]:
            raise ValueError(f"subsample reads channel {max(self.channels)} of an input of shape {shape}")
        spatial = (-(-size // stride) for size, stride in zip(shape, self.stride, strict=False))
        return (*spatial, len(self.channels))

    def sources(self, shape: Shape) -> Int[np.ndarray, " channels"]:
        """The channel that each output channel is read from; -1 for one that is zero."""
        return np.array(self.channels)

    def apply(self, params: Params, x: Batch) -> Values:
        """The thinned, re-ordered and zero-padded channels."""
        x = x[(slice(None), *(slice(None, None, stride) for stride in self.stride))]
        index = jnp.array(self.channels)
        held = jnp.reshape(index >= 0, (1,) * (x.ndim - 1) + (-1,))
        return jnp.where(held, x[..., index], 0)
