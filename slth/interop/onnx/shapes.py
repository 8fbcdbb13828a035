"""Operators of an ONNX file that move entries, or do nothing: another view of the same value, mostly."""

import math

import numpy as np

from slth.interop.onnx.channels import dealt_of, gathered, turned
from slth.interop.onnx.model import Node
from slth.interop.onnx.tensors import REAL
from slth.interop.onnx.values import (
    ADDED,
    BATCH,
    Dealt,
    Padding,
    Softmax,
    Tensor,
    Value,
    View,
    axis_of,
    constant_of,
    flattened,
    integers_of,
    same,
    selected,
    settled,
    view_of,
)
from slth.interop.onnx.windows import MOST
from slth.types import Shape

Tensors = list[Tensor | None]


def nothing(node: Node, tensors: Tensors) -> View:
    """Identity."""
    return view_of(node, tensors)


def cast(node: Node, tensors: Tensors) -> View:
    """Cast to another real type."""
    if node.integer("to") not in REAL:
        raise node.refused(
            f"it casts to the type {node.integer('to')}, which rounds: only real types are read"
        )
    return view_of(node, tensors)


def dropout(node: Node, tensors: Tensors) -> View:
    """Dropout in inference."""
    training = constant_of(node, tensors, 2)
    if (training is not None and training.any()) or not node.integer("is_test", 1):
        raise node.refused("it is in training mode: export it for inference")
    return view_of(node, tensors)


def softmax(node: Node, tensors: Tensors) -> View:
    """Softmax or LogSoftmax over the features of a flat value."""
    view = view_of(node, tensors)
    if len(view.value.shape) != 1 or view.axes[axis_of(node, node.integer("axis", -1), len(view.axes))] != 1:
        raise node.refused("it is not over the features of a flat value")
    return same(node, view, Softmax())


def transpose(node: Node, tensors: Tensors) -> View | Dealt:
    """Transpose: another order of the axes, the batch first."""
    if isinstance(tensors[0], Dealt):
        return turned(node, tensors[0])
    view = view_of(node, tensors)
    order = node.integers("perm", tuple(range(len(view.axes)))[::-1])
    if order is None or sorted(order) != [*range(len(view.axes))] or view.axes[order[0]] != 0:
        raise node.refused(
            f"perm {order}: expected an order of {len(view.axes)} axes that begins with the batch"
        )
    return View(view.value, tuple(view.axes[i] for i in order))


def squeeze(node: Node, tensors: Tensors) -> View:
    """Squeeze: axes of length 1 go."""
    view = view_of(node, tensors)
    asked, sizes = integers_of(node, tensors, 1, "axes"), view.sizes
    if asked is None:
        asked = tuple(i for i, n in enumerate(sizes) if n == 1)
    gone = {axis_of(node, axis, len(sizes)) for axis in asked}
    if any(sizes[i] != 1 for i in gone):
        raise node.refused(
            f"axes {asked} of {list(sizes[1:])} behind the batch: not all of them are of length 1"
        )
    return settled(node, View(view.value, tuple(a for i, a in enumerate(view.axes) if i not in gone)))


def unsqueeze(node: Node, tensors: Tensors) -> View:
    """Unsqueeze: new axes of length 1."""
    view = view_of(node, tensors)
    asked = integers_of(node, tensors, 1, "axes") or ()
    rank = len(view.axes) + len(asked)
    new = {axis_of(node, axis, rank) for axis in asked}
    if 0 in new or len(new) != len(asked):
        raise node.refused(f"axes {asked}: expected different ones behind the batch")
    rest = iter(view.axes)
    return View(view.value, tuple(ADDED if i in new else next(rest) for i in range(rank)))


def flatten(node: Node, tensors: Tensors) -> View:
    """Flatten from the first axis behind the batch on."""
    view = view_of(node, tensors)
    if axis_of(node, node.integer("axis", 1), len(view.axes) + 1) != 1:
        raise node.refused(f"axis {node.integer('axis', 1)}: expected 1")
    return flattened(node, view)


def reshape(node: Node, tensors: Tensors) -> View | Dealt:
    """Reshape that flattens, adds and removes axes of length 1, or deals channels to groups and back."""
    asked = integers_of(node, tensors, 1, "shape") or ()
    if isinstance(tensors[0], Dealt):
        return gathered(node, tensors[0], resolved(node, tensors[0].view, asked))
    view = view_of(node, tensors)
    sizes, wanted = view.sizes[1:], resolved(node, view, asked)
    wide = [(n, a) for n, a in zip(sizes, view.axes[1:], strict=True) if n != 1]
    if wanted == [math.prod(sizes)] or (wanted and wanted[0] == math.prod(sizes) and set(wanted[1:]) == {1}):
        return View(flattened(node, view).value, (0, 1, *(ADDED,) * (len(wanted) - 1)))
    if [n for n in wanted if n != 1] != [n for n, _ in wide]:
        if (dealt := dealt_of(view, wanted)) is not None:
            return dealt
        raise node.refused(f"{list(sizes)} behind the batch becomes {wanted}: only what flattens is read")
    rest = iter(a for _, a in wide)
    return settled(node, View(view.value, (0, *(ADDED if n == 1 else next(rest) for n in wanted))))


def resolved(node: Node, view: View, asked: Shape) -> list[int]:
    """The sizes behind the batch that a reshape asks for."""
    kept = [view.sizes[i] if n == 0 and i < len(view.sizes) else n for i, n in enumerate(asked)]
    whole, rest = math.prod(view.sizes[1:]), kept[1:]
    if not kept or kept[0] not in (BATCH, -1, node.batch) or any(n < 1 and n != -1 for n in rest):
        raise node.refused(f"shape {[*map(_shown, kept)]}: expected the batch and sizes")
    if rest.count(-1) == 1:
        known = -math.prod(rest)
        if whole % known:
            raise node.refused(f"shape {[*map(_shown, kept)]} does not fit {whole} numbers")
        rest[rest.index(-1)] = whole // known
    if math.prod(rest) != whole or -1 in rest:
        raise node.refused(f"shape {[*map(_shown, kept)]} does not fit {whole} numbers behind the batch")
    return rest


def _shown(size: int) -> int | str:
    return "batch" if size == BATCH else size


def pad(node: Node, tensors: Tensors) -> View:
    """Pad with a constant: spatial axes for the convolution or pooling behind it, channels by zeros."""
    view = view_of(node, tensors)
    rank = len(view.axes)
    asked = integers_of(node, tensors, 1, "pads") or ()
    chosen = integers_of(node, tensors, 3, "axes") or tuple(range(rank))
    constant = node.number("value", 0.0)
    if (given := constant_of(node, tensors, 2)) is not None:
        constant = float(given.ravel()[0]) if given.size == 1 else math.nan
    if node.text("mode", "constant") != "constant" or math.isnan(constant):
        raise node.refused(f"mode {node.text('mode', 'constant')!r}: padding with one constant is read")
    if len(asked) != 2 * len(chosen) or not all(0 <= n <= MOST for n in asked):
        raise node.refused(f"pads {asked}: expected {2 * len(chosen)} integers from 0 on")
    pairs = {}
    for axis, before, after in zip(chosen, asked, asked[len(chosen) :], strict=False):
        if before or after:
            pairs[view.axes[axis_of(node, axis, rank)]] = (before, after)
    if 0 in pairs or ADDED in pairs or not set(pairs) <= set(range(1, view.channel + 1)):
        raise node.refused("it pads the batch or an axis of length 1")
    return _padded(node, view, pairs, constant)


def _padded(node: Node, view: View, pairs: dict[int, tuple[int, int]], constant: float) -> View:
    value, channel = view.value, view.channel
    if channel in pairs:
        before, after = pairs.pop(channel)
        if constant or channel == 1:
            raise node.refused("it pads features")
        if before + after > MOST // value.shape[-1]:
            raise node.refused(f"it pads {before + after} channels")
        channels = (*(-1,) * before, *range(value.shape[-1]), *(-1,) * after)
        value = selected(node, view, channels).value
    if pairs:
        both = tuple(pairs.get(axis, (0, 0)) for axis in range(1, channel))
        sizes = (n + sum(pair) for n, pair in zip(value.shape, both, strict=False))
        value = Value(str(node), (*sizes, value.shape[-1]), Padding(both, constant), (value,))
    return View(value, view.axes)


def subsample(node: Node, tensors: Tensors) -> View:
    """Slice of channels, or of every k-th position from the first on."""
    view = view_of(node, tensors)
    starts, ends = (integers_of(node, tensors, i, name) or () for i, name in ((1, "starts"), (2, "ends")))
    chosen = integers_of(node, tensors, 3, "axes") or tuple(range(len(starts)))
    steps = integers_of(node, tensors, 4, "steps") or (1,) * len(starts)
    if not starts or not len(starts) == len(ends) == len(chosen) == len(steps):
        raise node.refused("its starts, ends, axes and steps differ in number")
    stride, channels = [1] * len(view.value.shape), range(view.value.shape[-1])
    for start, end, axis, step in zip(starts, ends, chosen, steps, strict=True):
        place = axis_of(node, axis, len(view.axes))
        if view.axes[place] == view.channel and BATCH not in (start, end) and step >= 1:
            channels = channels[start:end:step]
            continue
        whole = end == BATCH or end >= (view.sizes[place] if place else MOST)
        if start or not whole or not 1 <= step <= MOST or (step > 1 and view.axes[place] in (0, ADDED)):
            raise node.refused(
                f"it takes {start}:{end}:{step} of axis {axis}: channels, or every k-th position, are read"
            )
        if step > 1:
            stride[view.axes[place] - 1] *= step
    if not channels:
        raise node.refused("it takes no channel")
    if set(stride) == {1} and len(channels) == view.value.shape[-1]:
        return view
    return selected(node, view, tuple(channels), tuple(stride[:-1]))


def shape_of(node: Node, view: View) -> np.ndarray:
    """Shape: constants but for the batch, for which `BATCH` stands."""
    end = node.integer("end", len(view.axes))
    return np.array(view.sizes[node.integer("start") : end], np.int64)
