"""What is read of each primitive that does not treat each number by itself."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from slth.interop.jaxpr.chart import Zeros
from slth.interop.jaxpr.steps import BATCH, REPEATED, REPEATS, Constant, Steps, Unread, Value
from slth.interop.joins import channel_numbers, with_constants
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import GlobalMax, GlobalMean, Pool, Subsample, Upsample


def _spatial(steps: Steps, value: Value, order: list[int]) -> tuple[int, int]:
    """The step's number and rank, where a value's axes are, in this order: batch, each place, channels."""
    number = steps.close(value)
    rank = len(steps.chart.nodes[number].shape)
    if [value.axes[axis] for axis in order] != [BATCH, *range(rank)]:
        raise Unread(
            "reads axes in an order that is none of images: are they channels first? Then say "
            'layout="channels_first"'
        )
    return number, rank


def convolution(steps: Steps, equation: Any, value: Any, kernel: Any) -> Value:
    """conv_general_dilated of a value and a constant."""
    options = equation.params
    if not isinstance(value, Value) or isinstance(kernel, Value):
        raise Unread("is a convolution of two values")
    numbers = options["dimension_numbers"]
    (batch, feature, *space), (out, into, *taps) = numbers.lhs_spec, numbers.rhs_spec
    groups = int(options["feature_group_count"])
    if options["batch_group_count"] != 1:
        raise Unread("deals the batch to groups (batch_group_count)")
    if any(one != 1 for one in options["lhs_dilation"]):
        raise Unread("is a transposed convolution (lhs_dilation)")
    if len(space) not in (1, 2) or any(min(pair) < 0 for pair in options["padding"]):
        raise Unread(f"is a convolution on {len(space)} axes with the padding {options['padding']}")
    number, rank = _spatial(steps, value, [batch, *space, feature])
    array = np.asarray(kernel.value, np.float64).transpose(*taps, into, out)
    padding = tuple((int(a), int(b)) for a, b in options["padding"])
    sizes = (tuple(map(int, options[name])) for name in ("window_strides", "rhs_dilation"))
    stride, dilation = sizes
    name = steps.chart.named(kernel.name, "conv")
    layer = Conv(name, array.shape[-1], array.shape[:-2], stride, padding, dilation, False, groups)
    axes = [0] * (rank + 1)
    for label, axis in zip((BATCH, rank - 1, *range(rank - 1)), numbers.out_spec, strict=True):
        axes[axis] = label
    return Value(steps.chart.linear(number, layer, array), tuple(axes))


def product(steps: Steps, equation: Any, left: Any, right: Any) -> Value:
    """dot_general of a value's channels and a constant: a dense layer, or a 1x1 convolution of an image."""
    contracted, batched = equation.params["dimension_numbers"]
    first = isinstance(left, Value)
    value, kernel = (left, right) if first else (right, left)
    if isinstance(kernel, Value):
        raise Unread("is a product of two values, as in attention; products with weights are read")
    own, other = (tuple(axes) for axes in (contracted if first else contracted[::-1]))
    number = steps.close(value)
    rank = len(steps.chart.nodes[number].shape)
    array = np.asarray(kernel.value, np.float64)
    if any(map(len, batched)) or [value.axes[axis] for axis in own] != [rank - 1] or array.ndim != 2:
        raise Unread("is a product of other axes than a value's channels and a matrix")
    if None in value.axes:
        raise Unread("is a product of a value with an axis that a mean or a slice has left: drop it before")
    array = array if other == (0,) else array.T
    name = steps.chart.named(kernel.name, "dense")
    features = array.shape[1]
    if rank == 1:
        made = steps.chart.linear(number, Dense(name, features, use_bias=False), array)
    else:
        layer = Conv(name, features, (1,) * (rank - 1), use_bias=False)
        made = steps.chart.linear(number, layer, array.reshape(*layer.kernel, *array.shape))
    left_over = tuple(axis for place, axis in enumerate(value.axes) if place not in own)
    return Value(made, (*left_over, rank - 1) if first else (rank - 1, *left_over))


def transposed(steps: Steps, equation: Any, value: Value) -> Value:
    """Axes in another order."""
    return replace(value, axes=tuple(value.axes[axis] for axis in equation.params["permutation"]))


def reshaped(steps: Steps, equation: Any, value: Value, *sizes: Any) -> Value:
    """Axes of length 1 come and go; all axes of an example become one; positions are repeated."""
    shape, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    if math.prod(shape) != math.prod(out):
        return _repeated(equation, value)
    waiting = [(label, size) for label, size in zip(value.axes, shape, strict=True) if label is not None]
    groups: list[list[int]] = []
    for size in out:
        group, length = [], 1
        while waiting and (length < size or (not group and waiting[0][1] == size)):
            label, one = waiting.pop(0)
            group.append(label)
            length *= one
        if length != size:
            raise Unread("re-arranges axes otherwise than by flattening an example")
        groups.append(group)
    for label, _ in waiting:  # of length 1
        held = [group for group in groups if group and BATCH not in group]
        if not held:
            raise Unread("drops the batch axis: give an example of several images")
        held[-1].append(label)
    if any(REPEATED in group and len(group) > 1 for group in groups):
        value = _upsampled(steps, value, groups, out)
        groups = [[one for one in group if one != REPEATED] for group in groups]
    merged = [group for group in groups if len(group) > 1]
    if not merged:
        return replace(value, axes=tuple(group[0] if group else None for group in groups))
    number = steps.close(value)
    inner = steps.chart.nodes[number].shape
    if len(merged) > 1 or sorted(merged[0]) != list(range(len(inner))):
        raise Unread("merges other axes than all of an example")
    group = merged[0]
    wide = [axis for axis in group if inner[axis] > 1]
    last = len(inner) - 1
    if wide == sorted(wide):
        order = "hwc"
    elif wide == sorted(wide, key=lambda axis: (axis != last, axis)):
        order = "chw"
    else:
        raise Unread(
            f"flattens an example's axes in the order {group}: rows, columns, channels is read, and channels "
            "first"
        )
    axes = tuple(0 if one is group else one[0] if one else None for one in groups)
    return Value(steps.chart.flatten(number, order), axes)


def _repeated(equation: Any, value: Value) -> Value:
    """New axes along which a value is the same, until they are merged with those before them."""
    shape, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    axes: list[int | None] = [None if size == 1 else REPEATED for size in out]
    for axis, place, size in zip(value.axes, equation.params["broadcast_dimensions"], shape, strict=True):
        if size == out[place]:
            axes[place] = axis
        elif axis is not None:
            raise Unread(REPEATS)
    return replace(value, axes=tuple(axes))


def _upsampled(steps: Steps, value: Value, groups: list[list[int]], out: tuple[int, ...]) -> Value:
    """Every position of the axes that are merged with a repeated one behind them so many times."""
    number = steps.close(value)
    *sizes, _ = steps.chart.nodes[number].shape
    factors = [1] * len(sizes)
    for group, size in zip(groups, out, strict=True):
        if REPEATED not in group:
            continue
        if len(group) != 2 or group[1] != REPEATED or group[0] not in range(len(sizes)):
            raise Unread("repeats other axes than places, or whole images: every position so often is read")
        factors[group[0]] = size // sizes[group[0]]
    return Value(steps.chart.apply(Upsample(tuple(factors)), number), value.axes)


def reduced(steps: Steps, equation: Any, value: Value) -> Value:
    """Sum or maximum over all places."""
    number = steps.close(value)
    node = steps.chart.nodes[number]
    over = {value.axes[axis] for axis in equation.params["axes"]} - {None}
    if over != set(range(len(node.shape) - 1)):
        hint = "is batch norm in training?" if BATCH in over else "of a softmax? Return the logits"
        raise Unread(f"reduces other axes than all places of an image ({hint})")
    kept = [axis for place, axis in enumerate(value.axes) if place not in equation.params["axes"]]
    axes = tuple(0 if axis == len(node.shape) - 1 else axis for axis in kept)
    if equation.primitive.name == "reduce_sum":
        mean = steps.chart.apply(GlobalMean(), number) if over else number
        return Value(steps.chart.affine(mean, float(math.prod(node.shape[:-1])), 0.0), axes)
    return Value(steps.chart.apply(GlobalMax(), number) if over else number, axes)


def pooled(steps: Steps, equation: Any, value: Value) -> Value:
    """Sum or maximum over windows."""
    options = equation.params
    if any(one != 1 for name in ("base_dilation", "window_dilation") for one in options[name]):
        raise Unread("is a dilated pooling")
    number = steps.close(value)
    rank = len(steps.chart.nodes[number].shape)
    if sorted(axis for axis in value.axes if axis is not None) != [BATCH, *range(rank)] or rank == 1:
        raise Unread("pools what is no image")
    at = [value.axes.index(axis) for axis in range(rank - 1)]
    others = [place for place in range(len(value.axes)) if place not in at]
    if any(options["window_dimensions"][place] != 1 or any(options["padding"][place]) for place in others):
        raise Unread("pools over other axes than places")
    window, stride = (
        tuple(int(options[name][place]) for place in at) for name in ("window_dimensions", "window_strides")
    )
    padding = tuple((int(options["padding"][place][0]), int(options["padding"][place][1])) for place in at)
    if equation.primitive.name == "reduce_window_max":
        return Value(steps.chart.apply(Pool("max", window, stride, padding), number), value.axes)
    mean = steps.chart.apply(Pool("mean", window, stride, padding, count_padding=True), number)
    return Value(steps.chart.affine(mean, float(math.prod(window)), 0.0), value.axes)


def concatenated(steps: Steps, equation: Any, *terms: Any) -> Value:
    """The channels of several values, and of constants that are alike at all positions."""
    values = [term for term in terms if isinstance(term, Value)]
    numbers, first = [steps.close(value) for value in values], values[0]
    shapes = [steps.chart.nodes[number].shape for number in numbers]
    axis = equation.params["dimension"]
    if first.axes[axis] != len(shapes[0]) - 1:
        raise Unread("concatenates along another axis than that of the channels")
    if any(value.axes != first.axes for value in values) or len({shape[:-1] for shape in shapes}) > 1:
        raise Unread("concatenates values whose axes differ")
    number, parts = steps.chart.join(numbers), []
    for term in terms:
        if isinstance(term, Value):
            parts.append(shapes[values.index(term)][-1])
            continue
        constant = np.asarray(term.value)
        found = channel_numbers(constant, axis) if constant.dtype.kind == "f" else None
        if found is None:
            raise Unread("concatenates a constant that differs from position to position")
        parts.append(found)
    if len(values) < len(terms):
        channels, shift = with_constants(parts)
        layer = Subsample((1,) * (len(shapes[0]) - 1), channels)
        number = steps.chart.affine(steps.chart.apply(layer, number), 1.0, shift)
    return Value(number, first.axes)


def moved(steps: Steps, equation: Any, *terms: Any) -> Value:
    """Every s-th position, every position so many times, and channels in any order with zeros between: seen
    by moving numbers of places."""
    values = [term for term in terms if isinstance(term, Value)]
    (value,) = values if len(values) == 1 else (None,)
    number = -1 if value is None else steps.close(value)
    shape, rank = equation.outvars[0].aval.shape, len(steps.chart.nodes[number].shape)
    if value is None or len(shape) != len(value.axes):
        raise Unread("moves numbers of several values or drops an axis")
    stride, factor, channels = [1] * (rank - 1), [1] * (rank - 1), ()
    for place, axis in enumerate(value.axes):
        # Each number is its place on this axis, counted from 1; a zero stays 0.
        line = np.arange(1.0, equation.invars[terms.index(value)].aval.shape[place] + 1, dtype=np.float32)
        whole = np.expand_dims(line, [one for one in range(len(shape)) if one != place])
        inputs = [
            np.broadcast_to(whole, atom.aval.shape) if isinstance(term, Value) else _kept(term.value)
            for atom, term in zip(equation.invars, terms, strict=True)
        ]
        found = np.asarray(equation.primitive.bind(*map(jnp.asarray, inputs), **equation.params))
        each = np.moveaxis(found, place, 0).reshape(shape[place], -1).max(1, initial=0)
        same = np.expand_dims(each, [one for one in range(len(shape)) if one != place])
        if not ((found == same) | (found == 0)).all() or (axis == rank - 1 and (found != same).any()):
            raise Unread("moves numbers otherwise than whole channels")
        if axis == rank - 1:
            channels = tuple(int(one) - 1 for one in each)
            continue
        times = len(each) // len(line)
        if axis not in (BATCH, None) and times > 1 and np.array_equal(each, np.repeat(line, times)):
            factor[axis] = times
            continue
        step = int(each[1] - each[0]) if len(each) > 1 else len(line)
        if (
            step < 1
            or not np.array_equal(each, line[::step])
            or (axis in (BATCH, None) and len(each) < len(line))
        ):
            raise Unread(
                "cuts an image or a batch: every s-th position of a whole image is read, or every position "
                "several times"
            )
        if axis is not None and axis != BATCH:
            stride[axis] = step
    if max(factor, default=1) > 1:
        number = steps.chart.apply(Upsample(tuple(factor)), number)
        if max(stride) == 1 and channels == tuple(range(len(channels))):
            return Value(number, value.axes)
    return Value(steps.chart.apply(Subsample(tuple(stride), channels), number), value.axes)


def _kept(array: Any) -> np.ndarray:
    """A constant beside a value: an index or a choice as it is, else zeros."""
    array = np.asarray(array)
    if array.dtype.kind == "f" and array.any():
        raise Unread("puts other constants than zeros beside a value")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def padded(steps: Steps, equation: Any, value: Any, filled: Any) -> Value:
    """Zeros as further channels, or around an image whose convolution follows."""
    if not isinstance(value, Value) or not isinstance(filled, Constant) or np.any(filled.value):
        raise Unread("pads with something else than zeros")
    number = steps.close(value)
    shape, config = steps.chart.nodes[number].shape, equation.params["padding_config"]
    around = {
        axis: (int(a), int(b), int(c))
        for axis, (a, b, c) in zip(value.axes, config, strict=True)
        if any((a, b, c))
    }
    if any(min(sizes) < 0 or sizes[2] for sizes in around.values()) or {None, BATCH} & set(around):
        raise Unread("pads within an image, below 0 or along the batch")
    before, after, _ = around.pop(len(shape) - 1, (0, 0, 0))
    if before or after:
        channels = (-1,) * before + tuple(range(shape[-1])) + (-1,) * after
        number = steps.chart.apply(Subsample((1,) * (len(shape) - 1), channels), number)
    if around:
        padding = tuple(around.get(axis, (0, 0, 0))[:2] for axis in range(len(shape) - 1))
        sizes = tuple(size + a + b for size, (a, b) in zip(shape, padding, strict=False))
        number = steps.chart.add((number,), (*sizes, steps.chart.nodes[number].shape[-1]), Zeros(padding))
    return Value(number, value.axes)


RESHAPES = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
RULES: dict[str, Callable[..., Value]] = {
    "conv_general_dilated": convolution,
    "dot_general": product,
    "transpose": transposed,
    **dict.fromkeys(RESHAPES, reshaped),
    **dict.fromkeys(("reduce_sum", "reduce_max"), reduced),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max"), pooled),
    "concatenate": concatenated,
    **dict.fromkeys(("slice", "dynamic_slice", "gather", "rev", "select_n"), moved),
    "pad": padded,
}
