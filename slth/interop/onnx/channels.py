"""Operators of an ONNX file that join, part and shuffle channels."""

import numpy as np

from slth.interop.joins import channel_numbers, with_constants
from slth.interop.onnx.model import Node
from slth.interop.onnx.values import (
    BATCH,
    Affine,
    Dealt,
    Joined,
    Tensor,
    Value,
    View,
    axis_of,
    check_alike,
    constant_of,
    integers_of,
    numbers_of,
    same,
    selected,
    sizes_of,
    view_of,
)

Tensors = list[Tensor | None]


def concatenation(node: Node, tensors: Tensors) -> View:
    """Concat along the channels, of values and of constants that are alike at all positions."""
    constant = [isinstance(tensor, np.ndarray) for tensor in tensors]
    views = [view_of(node, tensors, index) for index in range(len(tensors)) if not constant[index]]
    first, rank = views[0], len(views[0].axes)
    axis = first.axes[axis_of(node, node.integer("axis"), rank)]
    if any(len(one.axes) != rank for one in views):
        raise node.refused("its inputs differ in their number of axes")
    if axis != first.channel:
        raise node.wrong_layout("it concatenates along another axis than that of the channels")
    check_alike(node, views)
    view = first if len(views) == 1 else _joined(node, views)
    if not any(constant):
        return view
    parts = [
        _channels_of(node, numbers_of(node, constant_of(node, tensors, index), "constant"), first)
        if constant[index]
        else view_of(node, tensors, index).value.shape[-1]
        for index in range(len(tensors))
    ]
    channels, shift = with_constants(parts)
    view = selected(node, view, channels)
    return same(node, view, Affine(np.ones(1), shift)) if shift.any() else view


def _joined(node: Node, views: list[View]) -> View:
    """The channels of several views."""
    values = tuple(one.value for one in views)
    shape = (*values[0].shape[:-1], sum(one.shape[-1] for one in values))
    return View(Value(str(node), shape, Joined(), values), views[0].axes)


def _channels_of(node: Node, constant: np.ndarray, beside: View) -> np.ndarray:
    """The number of each channel of a constant that stands beside a view.

    Raises: Refused where its shape does not fit, or where the numbers of a channel differ.
    """
    axis = beside.axes.index(beside.channel)
    around = [1 if size == BATCH else size for size in beside.sizes]
    if constant.ndim == len(around):
        around[axis] = constant.shape[axis]  # as many channels as it has
    if list(constant.shape) != around:
        raise node.refused(f"its constant has the shape {constant.shape}, beside {sizes_of([beside])[0]}")
    numbers = channel_numbers(constant, axis)
    if numbers is None:
        raise node.refused("its constant differs from position to position: one number for a channel is read")
    return numbers


def split(node: Node, tensors: Tensors) -> list[View]:
    """Split of the channels, into equal parts or parts of given sizes."""
    view, count = view_of(node, tensors), len(node.outputs)
    if view.axes[axis_of(node, node.integer("axis"), len(view.axes))] != view.channel:
        raise node.wrong_layout("it splits another axis than that of the channels")
    channels, sizes = view.value.shape[-1], integers_of(node, tensors, 1, "split")
    if node.integer("num_outputs", count) != count:
        raise node.refused(f"num_outputs {node.integer('num_outputs')}, and it has {count}")
    if sizes is None:
        each = -(-channels // count)
        sizes = (*(each,) * (count - 1), channels - each * (count - 1))
    if len(sizes) != count or min(sizes) < 1 or sum(sizes) != channels:
        raise node.refused(f"it splits {channels} channels into {count} parts of {sizes}")
    ends = np.cumsum(sizes)
    whole = zip(ends, sizes, strict=True)
    return [selected(node, view, tuple(range(int(end) - size, int(end)))) for end, size in whole]


def dealt_of(view: View, sizes: list[int]) -> Dealt | None:
    """The tensor that a reshape to these sizes makes, if it deals channels to groups."""
    if view.channel not in view.axes:
        return None
    place, own = view.axes.index(view.channel), view.sizes[1:]
    around = sizes[: place - 1], sizes[place + 1 :]
    groups, each = sizes[place - 1 : place + 1] if len(sizes) == len(own) + 1 else (0, 0)
    fits = [*around[0], *around[1]] == [*own[: place - 1], *own[place:]]
    return Dealt(view, groups, False) if fits and groups * each == own[place - 1] else None


def turned(node: Node, dealt: Dealt) -> Dealt:
    """Transpose of groups and the channels within them."""
    place = dealt.view.axes.index(dealt.view.channel)
    order = list(range(len(dealt.view.axes) + 1))
    order[place : place + 2] = place + 1, place
    if dealt.turned or list(node.integers("perm") or ()) != order:
        raise node.refused(
            "it moves axes of channels that are dealt to groups: only a channel shuffle is read"
        )
    return dealt._replace(turned=True)


def gathered(node: Node, dealt: Dealt, sizes: list[int]) -> View:
    """Reshape of channels that are dealt to groups, back to one axis."""
    view, groups = dealt.view, dealt.groups
    if sizes != list(view.sizes[1:]):
        raise node.refused(f"channels that were dealt to {groups} groups become {sizes}, not what they were")
    if not dealt.turned:
        return view
    order = np.arange(view.value.shape[-1]).reshape(groups, -1).T.ravel()
    return selected(node, view, tuple(int(one) for one in order))
