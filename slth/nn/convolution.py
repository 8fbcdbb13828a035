"""Convolution and cross-correlation as mathematics, and their gradients as convolutions.

One channel, on one or two axes, written here for one axis (with two axes every index is a pair):

    convolution          (x * w)[i] = sum_{r + s = i} x[r] w[s],
    cross-correlation    (x ⋆ w)[i] = sum_r x[i + r] w[r] = (x * flip(w))[i + R - 1],

where values outside the arrays are zero. Both are one sliding product; a mode says which positions
are kept. For x of length I and w of length R:

    mode     zeros before, after     length of the result
    valid    0, 0                    I - R + 1        no zero is read; needs R <= I
    same     R // 2, (R - 1) // 2    I
    full     R - 1, R - 1            I + R - 1        wherever x and w overlap

Zeros are counted as the correlation of x with w, or with flip(w), reads them. With odd R "same" is
symmetric. With even R it reads one zero more before x than after: the rule of SciPy, in which
x * w = x ⋆ flip(w) holds for every mode. Deep-learning libraries put the odd zero after x instead;
layers therefore state their padding as explicit pairs.

Every product runs with precision "highest", in the dtype of its arguments.
Sources: Goodfellow, Bengio, Courville, *Deep Learning* (2016), ch. 9; Dumoulin and Visin,
arXiv:1603.07285.
"""

from functools import partial
from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from slth.nn.spec import positions
from slth.types import AnyArray, Pairs, Shape

Mode: TypeAlias = Literal["valid", "same", "full"]

_slide = partial(lax.conv_general_dilated, precision=lax.Precision.HIGHEST)
"""The sliding product that all of the below are: XLA's convolution, which does not flip."""


def mode_padding(mode: Mode, taps: Shape) -> Pairs:
    """Zeros before and after each axis with which a valid correlation becomes that of ``mode``.

    Args:
      mode: "valid", "same" or "full", as in the table above.
      taps: lengths of the kernel.

    >>> mode_padding("same", (3, 4)), mode_padding("full", (3,))
    (((1, 1), (2, 1)), ((2, 2),))
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {get_args(Mode)}, got {mode!r}")
    pairs = [{"valid": (0, 0), "same": (r // 2, (r - 1) // 2), "full": (r - 1, r - 1)} for r in taps]
    return tuple(pair[mode] for pair in pairs)


def same_padding(kernel: tuple[int, ...], dilation: int = 1) -> Pairs:
    """Zeros that keep the length at stride 1: ``dilation (R - 1)`` split evenly, an odd one at the end.

    Example:
      >>> from slth import nn
      >>> nn.same_padding((3, 3)), nn.same_padding((4,))
      (((1, 1), (1, 1)), ((1, 2),))
    """
    totals = [dilation * (taps - 1) for taps in kernel]
    return tuple((total // 2, total - total // 2) for total in totals)


def flip(w: Float[AnyArray, "*taps"]) -> Float[Array, "*taps"]:
    """flip(w)[r] = w[R - 1 - r] along every axis: in two dimensions the rotation by 180 degrees."""
    return jnp.flip(jnp.asarray(w))


def correlate(
    x: Float[AnyArray, "*size"], w: Float[AnyArray, "*taps"], mode: Mode = "valid"
) -> Float[Array, "*out"]:
    """Cross-correlation, (x ⋆ w)[i] = sum_r x[i + r] w[r], of one channel.

    Linear in each argument, not commutative: w ⋆ x = flip(x ⋆ w) in mode "full".

    Args:
      x, w: arrays of one or of two axes, floating, of one dtype.
      mode: which positions i are kept; the first one is 0, -(R // 2) or -(R - 1).
    Returns: shape I - R + 1, I or I + R - 1 on each axis.
    Raises: ValueError if the axes differ, an array is empty, or w is larger than x in mode "valid".

    >>> correlate(jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([1.0, 10.0]))
    Array([21., 42., 84.], dtype=float32)
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    _check_single(x, w, mode)
    return _slide_single(x, w, mode_padding(mode, w.shape))


def convolve(
    x: Float[AnyArray, "*size"], w: Float[AnyArray, "*taps"], mode: Mode = "full"
) -> Float[Array, "*out"]:
    """Convolution, (x * w)[i] = sum_{r + s = i} x[r] w[s], of one channel; x * w = x ⋆ flip(w).

    In mode "full" it is commutative, associative and linear in each argument. "same" and "valid"
    are its parts that start at (R - 1) // 2 and R - 1. Arguments, shapes and errors are those of
    `correlate`.

    >>> convolve(jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([1.0, 10.0]))
    Array([ 1., 12., 24., 48., 80.], dtype=float32)
    """
    return correlate(x, flip(w), mode)


def polynomial_product(p: Float[AnyArray, "*size"], q: Float[AnyArray, "*taps"]) -> Float[Array, "*out"]:
    """Coefficients of p(z) q(z), where p(z) = sum_i p[i] z^i: the full convolution of p and q.

    In two variables p(z1, z2) = sum_{i,j} p[i, j] z1^i z2^j. Lowest power first.

    >>> polynomial_product(jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]))  # (1 + z)(1 - z)
    Array([ 1.,  0., -1.], dtype=float32)
    """
    return convolve(p, q, "full")


def correlate_channels(
    x: Float[AnyArray, "n *size cin"],
    w: Float[AnyArray, "*taps cin cout"],
    stride: Shape = (),
    padding: Pairs = (),
    dilation: Shape = (),
) -> Float[Array, "n *out cout"]:
    """What a convolutional layer computes: y_j[p] = sum_i sum_r x_i[s p + d r - a] w_ij[r].

    Args:
      x: n inputs with channels last, on one or two axes.
      w: kernels.
      stride s, dilation d: one number for each axis (default 1).
      padding: pairs (a, b) of zeros before and after each axis (default none).
    Returns: lengths (I + a + b - d (R - 1) - 1) // s + 1.
    Raises: ValueError if shapes do not fit, or the kernel is larger than its padded input.
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    taps = w.shape[:-2]
    if x.ndim != w.ndim or x.ndim not in (3, 4) or x.shape[-1] != w.shape[-2]:
        raise ValueError(
            "x (n, *size, cin) and w (*taps, cin, cout) must agree in cin and have one or two"
            f" spatial axes, got {x.shape} and {w.shape}"
        )
    stride, padding, dilation = _defaults(len(taps), stride, padding, dilation)
    _out_size(x.shape[1:-1], taps, stride, padding, dilation)
    axes = "HW"[: len(taps)]
    names = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return _slide(x, w, stride, padding, rhs_dilation=dilation, dimension_numbers=names)


def correlate_groups(
    x: Float[AnyArray, "n *size channels"],
    w: Float[AnyArray, "*taps rows cout"],
    groups: int,
    stride: Shape = (),
    padding: Pairs = (),
    dilation: Shape = (),
) -> Float[Array, "n *out cout"]:
    """What a convolutional layer of several groups computes: group g reads channels g rows to (g + 1) rows.

    Output j is of group ``j // (cout / groups)``; beside that, all is as for `correlate_channels`.

    Args:
      x: n inputs with ``groups * rows`` channels.
      w: kernels; ``cout`` is a multiple of ``groups``.
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    taps = w.shape[:-2]
    stride, padding, dilation = _defaults(len(taps), stride, padding, dilation)
    if w.shape[-2] == 1:
        return _of_one_channel(x, w, stride, padding, dilation)
    # XLA for CPUs is many times faster at one group after the other, and at its gradients a hundred times.
    windows = {"stride": stride, "padding": padding, "dilation": dilation}
    each = partial(_group_by_group, groups=groups, **windows)
    return lax.platform_dependent(x, w, cpu=each, default=partial(_all_groups, groups=groups, **windows))


def _of_one_channel(x: Array, w: Array, stride: Shape, padding: Pairs, dilation: Shape) -> Array:
    """Groups of one channel: a sum of shifted products, without any matrix."""
    *taps, _, cout = w.shape
    size, channels = _out_size(x.shape[1:-1], tuple(taps), stride, padding, dilation), x.shape[-1]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))[..., None]
    kernel = w.reshape(*taps, *(1,) * (len(taps) + 1), channels, cout // channels)
    y = jnp.zeros((len(x), *size, channels, cout // channels), x.dtype)
    for tap in np.ndindex(*taps):
        starts = (d * r for d, r in zip(dilation, tap, strict=True))
        seen = (slice(a, a + s * (o - 1) + 1, s) for a, s, o in zip(starts, stride, size, strict=True))
        y = y + x[(slice(None), *seen)] * kernel[tap]
    return y.reshape(len(x), *size, cout)


def _all_groups(x: Array, w: Array, groups: int, stride: Shape, padding: Pairs, dilation: Shape) -> Array:
    axes = "HW"[: w.ndim - 2]
    names = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return _slide(
        x, w, stride, padding, rhs_dilation=dilation, dimension_numbers=names, feature_group_count=groups
    )


def _group_by_group(x: Array, w: Array, groups: int, stride: Shape, padding: Pairs, dilation: Shape) -> Array:
    def by_group(a: Array) -> Array:
        return jnp.moveaxis(a.reshape(*a.shape[:-1], groups, -1), -2, 0)

    def slid(arrays: tuple[Array, Array]) -> Array:
        return correlate_channels(*arrays, stride, padding, dilation)

    y = lax.map(slid, (by_group(x), by_group(w)))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], -1)


def kernel_gradient(
    x: Float[AnyArray, "n *size cin"],
    dy: Float[AnyArray, "n *out cout"],
    taps: Shape,
    stride: Shape = (),
    padding: Pairs = (),
    dilation: Shape = (),
) -> Float[Array, "*taps cin cout"]:
    """Gradient of a loss in the kernel: the input correlated with the output's gradient.

    dw_ij[r] = sum_n sum_p x_i[s p + d r - a] dy_j[p] for y of `correlate_channels`: dy is the
    kernel, its taps s apart, summed over the batch, and read at every d-th position. For one
    channel and one example without stride, padding and dilation it is ``correlate(x, dy, "valid")``.

    Args:
      x: the inputs; dy: gradient of the loss in the output y; taps: lengths of the kernel.
      stride, padding, dilation: those of the layer.
    Raises: ValueError if dy has not the shape of the layer's output.
    """
    x, dy = jnp.asarray(x), jnp.asarray(dy)
    size = x.shape[1:-1]
    stride, padding, dilation = _defaults(len(taps), stride, padding, dilation)
    _check_gradient(dy, (x.shape[0], *_out_size(size, taps, stride, padding, dilation), dy.shape[-1]))
    # The padding after x is what makes the result exactly ``taps`` long: below zero it drops
    # the last inputs, which no position of a strided kernel reads.
    ends = tuple(
        (a, d * (r - 1) + s * (o - 1) + 1 - i - a)
        for i, r, o, s, (a, _), d in zip(size, taps, dy.shape[1:-1], stride, padding, dilation, strict=True)
    )
    axes = "HW"[: len(taps)]
    names = (f"C{axes}N", f"I{axes}O", f"{axes}NC")  # the batch is summed, channels are kept
    return _slide(x, dy, dilation, ends, rhs_dilation=stride, dimension_numbers=names)


def input_gradient(
    dy: Float[AnyArray, "n *out cout"],
    w: Float[AnyArray, "*taps cin cout"],
    size: Shape,
    stride: Shape = (),
    padding: Pairs = (),
    dilation: Shape = (),
) -> Float[Array, "n *size cin"]:
    """Gradient of a loss in the input: the output's gradient convolved in full with the kernel.

    dx_i[q] = sum_j (dy_j * w_ij)[q + a], where dy has s - 1 zeros between its entries, w has d - 1
    zeros between its taps, and a is the padding before x. As a correlation: dy, with d (R - 1)
    zeros at both ends, correlated with flip(w), summed over output channels; the padding of the
    layer crops the result. For one channel without stride, padding and dilation it is
    ``convolve(dy, w, "full")``.

    Args:
      dy: gradient of the loss in the output of `correlate_channels`; w: the kernels.
      size: spatial lengths of the input: several can give the same output when s > 1.
      stride, padding, dilation: those of the layer.
    Raises: ValueError if dy has not the shape of the layer's output.
    """
    dy, w = jnp.asarray(dy), jnp.asarray(w)
    taps = w.shape[:-2]
    stride, padding, dilation = _defaults(len(taps), stride, padding, dilation)
    out = _out_size(size, taps, stride, padding, dilation)
    _check_gradient(dy, (dy.shape[0], *out, w.shape[-1]))
    ends = tuple(
        (d * (r - 1) - a, i - 1 - s * (o - 1) + a)
        for i, r, o, s, (a, _), d in zip(size, taps, out, stride, padding, dilation, strict=True)
    )
    axes = "HW"[: len(taps)]
    names = (f"N{axes}C", f"{axes}OI", f"N{axes}C")  # the kernel's output channels are read
    flipped, steps = jnp.flip(w, tuple(range(len(taps)))), (1,) * len(taps)
    return _slide(dy, flipped, steps, ends, stride, dilation, dimension_numbers=names)


@partial(jax.jit, static_argnames="padding")
def _slide_single(x: Array, w: Array, padding: Pairs) -> Array:
    return correlate_channels(x[None, ..., None], w[..., None, None], padding=padding)[0, ..., 0]


def _defaults(rank: int, stride: Shape, padding: Pairs, dilation: Shape) -> tuple[Shape, Pairs, Shape]:
    stride, dilation = stride or (1,) * rank, dilation or (1,) * rank
    padding = padding or ((0, 0),) * rank
    for name, value in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        if len(value) != rank:
            raise ValueError(f"{name} needs one entry for each of {rank} axes, got {value}")
    if min(*stride, *dilation) < 1:
        raise ValueError(f"stride and dilation must be 1 or more, got {stride} and {dilation}")
    return stride, padding, dilation


def _out_size(size: Shape, taps: Shape, stride: Shape, padding: Pairs, dilation: Shape) -> Shape:
    if len(size) != len(taps):
        raise ValueError(f"an input of size {size} does not fit a kernel with taps {taps}")
    out = positions(size, taps, stride, padding, dilation)
    if min(out) < 1:
        raise ValueError(f"taps {taps} reach beyond an input of size {size} padded by {padding}")
    return out


def _check_gradient(dy: Array, expected: Shape) -> None:
    if dy.shape != expected:
        raise ValueError(f"dy must have the shape {expected} of the output, got {dy.shape}")


def _check_single(x: Array, w: Array, mode: Mode) -> None:
    if x.ndim != w.ndim or x.ndim not in (1, 2):
        raise ValueError(f"x and w must both have one axis or two, got {x.shape} and {w.shape}")
    if 0 in (*x.shape, *w.shape):
        raise ValueError(f"x and w must not be empty, got {x.shape} and {w.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype != w.dtype:
        raise TypeError(f"x and w must be floating and of one dtype, got {x.dtype} and {w.dtype}")
    if mode == "valid" and any(r > i for i, r in zip(x.shape, w.shape, strict=True)):
        raise ValueError(f'mode "valid" needs w inside x, got {w.shape} and {x.shape}')
