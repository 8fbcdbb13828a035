"""Windows that slide over an ONNX tensor: taps, strides, padding; pooling."""

from typing import Literal, NamedTuple, TypeAlias

from slth.interop.onnx.model import Node
from slth.interop.onnx.values import (
    ADDED,
    Elementwise,
    Padding,
    Tensor,
    Value,
    View,
    integers_of,
    made,
    spatial,
    view_of,
)
from slth.nn.pooling import GlobalMax, GlobalMean, Pool
from slth.types import Pairs, Shape

Tensors = list[Tensor | None]
Kind: TypeAlias = Literal["max", "mean"]
MOST = 2**24
"""Largest size, stride or padding."""


class Window(NamedTuple):
    """A window on the spatial axes that a value has."""

    taps: Shape
    stride: Shape
    padding: Pairs
    dilation: Shape


def integers(node: Node, name: str, count: int, default: int, low: int) -> Shape:
    """An attribute of so many integers from ``low`` on."""
    found = node.integers(name, (default,) * count)
    if found is None or len(found) != count or not all(low <= n <= MOST for n in found):
        raise node.refused(f"{name}: expected {count} integers from {low} on, got {found}")
    return found


def window_of(node: Node, taps: Shape, view: View, axes: tuple[int, ...], held: list[int]) -> Window:
    """The window of a convolution or pooling.

    Args:
      axes, held: of the view, as `spatial` gives them.
    Raises: Refused where an axis that the value does not have is more than looked at.
    """
    rank = len(taps)
    stride, dilation = (integers(node, name, rank, 1, 1) for name in ("strides", "dilations"))
    pads = integers(node, "pads", 2 * rank, 0, 0)
    pairs = [(pads[i], pads[rank + i]) for i in range(rank)]
    rule = node.text("auto_pad", "NOTSET")
    if rule not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refused(f"auto_pad {rule!r}: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if rule != "NOTSET" and any(pads):
        raise node.refused(f"it has both auto_pad {rule} and pads {pads}")
    if rule.startswith("SAME"):
        sizes = [1 if a == ADDED else view.value.shape[a - 1] for a in axes[2:]]
        whole = zip(sizes, taps, stride, dilation, strict=True)
        pairs = [_same(rule, *one) for one in whole]
    for i in set(range(rank)) - set(held):
        if taps[i] != 1 or pairs[i] != (0, 0):
            raise node.refused(f"its window of {taps[i]} with padding {pairs[i]} is on an axis of length 1")
    taps, stride, dilation = (tuple(one[i] for i in held) for one in (taps, stride, dilation))
    return Window(taps, stride, tuple(pairs[i] for i in held), dilation)


def _same(rule: str, size: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """The padding by which a window has ceil(size / stride) places."""
    total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if rule == "SAME_UPPER" else (more, less)


def max_pool(node: Node, tensors: Tensors) -> View:
    """MaxPool: padding never wins."""
    return _pool(node, tensors, "max")


def mean_pool(node: Node, tensors: Tensors) -> View:
    """AveragePool."""
    return _pool(node, tensors, "mean")


def _pool(node: Node, tensors: Tensors, kind: Kind) -> View:
    view, taps = view_of(node, tensors), node.integers("kernel_shape")
    if taps is None or not all(1 <= n <= MOST for n in taps) or len(taps) not in (1, 2):
        raise node.refused(f"kernel_shape {taps}: expected 1 or 2 sizes")
    axes, held = spatial(node, view, len(taps))
    if not held:
        return view
    window = window_of(node, taps, view, axes, held)
    if set(window.dilation) != {1}:
        raise node.refused(f"dilations {window.dilation}: pooling of neighbours is read")
    counted = bool(node.integer("count_include_pad"))
    inner, padding, counted = _around(node, view.value, window, kind, counted)
    layer = Pool(kind, window.taps, window.stride, padding, bool(node.integer("ceil_mode")), counted)
    return View(made(node, View(inner, axes), layer), axes)


def _around(node: Node, value: Value, window: Window, kind: Kind, counted: bool) -> tuple[Value, Pairs, bool]:
    """What is pooled, its whole padding, and whether a mean counts that."""
    if not isinstance(value.operation, Padding):
        return value, window.padding, counted and kind == "mean"
    own = any(map(any, window.padding))
    constant, inner = value.operation.constant, value.reads[0]
    exact = constant == 0 and (counted or not own) if kind == "mean" else constant == -float("inf")
    if not exact and not (kind == "max" and constant == 0 and nonnegative(inner)):
        raise node.refused(f"what it pools is padded with {constant:g}, which slth's pooling does not do")
    pairs = zip(value.operation.pairs, window.padding, strict=True)
    return inner, tuple((a + c, b + d) for (a, b), (c, d) in pairs), kind == "mean"


def nonnegative(value: Value) -> bool:
    """Whether a value is known to have no number below 0: it has passed a ReLU or a sigmoid."""
    while value.reads and isinstance(value.operation, Pool):
        value = value.reads[0]
    return isinstance(value.operation, Elementwise) and value.operation.nonnegative


def global_mean(node: Node, tensors: Tensors) -> View:
    """GlobalAveragePool."""
    return _of_all(node, tensors, GlobalMean())


def global_max(node: Node, tensors: Tensors) -> View:
    """GlobalMaxPool."""
    return _of_all(node, tensors, GlobalMax())


def _of_all(node: Node, tensors: Tensors, layer: GlobalMean | GlobalMax) -> View:
    """Pooling over all positions."""
    view = view_of(node, tensors)
    axes, held = spatial(node, view, len(view.axes) - 2)
    value = made(node, view, layer) if held else view.value
    return View(value, (0, 1, *(ADDED,) * (len(axes) - 2)))


def mean(node: Node, tensors: Tensors) -> View:
    """ReduceMean over all spatial axes."""
    view = view_of(node, tensors)
    asked, rank = integers_of(node, tensors, 1, "axes"), len(view.axes)
    if not asked or not all(-rank <= a < rank for a in asked):
        raise node.refused(f"its axes are {asked}, expected all that are spatial")
    reduced = {a % rank for a in asked}
    gone = {view.axes[a] for a in reduced} - {ADDED}
    if 0 in reduced or view.channel in gone:
        raise node.wrong_layout("it is a mean over the batch or the channels")
    wide = {a for a in range(1, view.channel) if view.value.shape[a - 1] > 1}
    if not wide <= gone:
        raise node.refused("it is a mean over some spatial axes, expected all of them")
    value = made(node, view, GlobalMean()) if view.channel > 1 else view.value
    moved = [0 if a == 0 else 1 if a == view.channel else ADDED for a in view.axes]
    kept = range(rank) if node.integer("keepdims", 1) else [a for a in range(rank) if a not in reduced]
    return View(value, tuple(moved[a] for a in kept))
