"""What the nodes of an ONNX file make, in slth's terms: values, and tensors as views of them.

A `Value` has slth's layout, channels last. A tensor of the file is a `View` of a value: it says which axis of
the value each of its own axes is. So a transpose, a squeeze or an unsqueeze makes another view of the same
value, and nothing is moved.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from slth.interop.onnx.model import Node, Refused
from slth.nn.layers import Conv, Dense
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Subsample, Upsample
from slth.types import Pairs, Shape

MOST_NUMBERS = 2**28
"""Largest size of one example of a value."""
BATCH = -(2**62)
"""Stands for the size of the batch axis in constants that are computed from shapes."""
ADDED = -1
"""In `View.axes`: an axis of length 1 that the value does not have."""


class Affine(NamedTuple):
    """A factor and a shift for each channel, in float64; of one entry each for all channels alike."""

    factor: np.ndarray
    shift: np.ndarray


class Padding(NamedTuple):
    """A constant around the spatial axes, on its way into a convolution or pooling."""

    pairs: Pairs
    constant: float


class Elementwise(NamedTuple):
    """A function of one or two values of equal shape, entry by entry, in NumPy and float64."""

    function: Callable[..., np.ndarray]
    nonnegative: bool = False
    """Whether no value is below 0."""


class Joined(NamedTuple):
    """The channels of several values, one after the other."""


class Slopes(NamedTuple):
    """ReLU with a slope of its own for each channel where that is negative, in float64."""

    slopes: np.ndarray


class Softmax(NamedTuple):
    """Softmax or its logarithm: left out at the end of a network, refused elsewhere."""


Operation: TypeAlias = (
    Conv
    | Dense
    | Pool
    | GlobalMean
    | GlobalMax
    | Flatten
    | Subsample
    | Upsample
    | Affine
    | Padding
    | Elementwise
    | Joined
    | Slopes
    | Softmax
)


@dataclass(frozen=True, eq=False)
class Value:
    """One value of the network: an operation and what it reads; the input reads nothing."""

    node: str
    """Of the file, as messages call it."""
    shape: Shape
    """Of one example, channels last."""
    operation: Operation | None = None
    reads: "tuple[Value, ...]" = ()
    params: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.prod(self.shape) > MOST_NUMBERS:
            raise Refused(
                f"{self.node}: an example of the shape {self.shape} is larger than any that is read"
            )


class View(NamedTuple):
    """A tensor of the file, whose first axis is the batch."""

    value: Value
    axes: tuple[int, ...]
    """For each axis of the tensor that of the value (0 is the batch, 1 the value's first), or `ADDED`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape, its first entry `BATCH`."""
        return tuple(BATCH if a == 0 else 1 if a == ADDED else self.value.shape[a - 1] for a in self.axes)

    @property
    def channel(self) -> int:
        """The axis of the value that holds its channels."""
        return len(self.value.shape)


class Dealt(NamedTuple):
    """A tensor in the midst of a channel shuffle: the axis of channels is two, groups and their channels."""

    view: View
    """Before it was dealt."""
    groups: int
    turned: bool
    """Whether the axis of the groups is now the second of the two."""


Tensor: TypeAlias = View | Dealt | np.ndarray
"""What a name of the file stands for: a view of a value, or a constant."""


def made(node: Node, view: View, operation: Operation, params: dict | None = None) -> Value:
    """The value that a layer makes of a view's."""
    shape = view.value.shape
    if not isinstance(operation, Affine | Padding | Elementwise | Joined | Slopes | Softmax):
        shape = operation.output_shape(shape)
    return Value(str(node), shape, operation, (view.value,), params or {})


def same(node: Node, view: View, operation: Operation) -> View:
    """The view of what an operation that keeps the shape makes."""
    return View(made(node, view, operation), view.axes)


def selected(node: Node, view: View, channels: Shape, stride: Shape = ()) -> View:
    """Channels of a view by number, -1 for one of zeros, at every stride-th position."""
    layer = Subsample(stride or (1,) * (view.channel - 1), channels)
    return View(made(node, view, layer), view.axes)


def completed(node: Node, view: View) -> tuple[int, ...]:
    """The axes of a view, with those of length 1 that it lacks in place of added ones, channels first."""
    axes = list(view.axes)
    for axis in (view.channel, *range(1, view.channel)):
        if axis not in axes:
            free = [i for i, a in enumerate(axes) if a == ADDED]
            place = 1 if axis == view.channel and 1 in free else next(iter(free), None)
            if place is None:
                raise node.wrong_layout(f"it reads {len(axes)} axes of the shape {view.value.shape}")
            axes[place] = axis
    return tuple(axes)


def spatial(node: Node, view: View, rank: int) -> tuple[tuple[int, ...], list[int]]:
    """The axes of a view that has its channels first, as convolutions and pooling read it.

    Returns: the axes, completed; and of the tensor's spatial axes those that the value has.
    Raises: WrongLayout where the second axis holds no channels.
    """
    if len(view.axes) != rank + 2:
        raise node.refused(f"it has {rank} spatial axes, and its input {len(view.axes) - 2}")
    axes = completed(node, view)
    held = [i for i, a in enumerate(axes[2:]) if a != ADDED]
    if axes[1] != view.channel or [axes[2 + i] for i in held] != [*range(1, view.channel)]:
        raise node.wrong_layout(
            "its second axis is not that of the channels, or rows and columns change places"
        )
    return axes, held


def settled(node: Node, view: View) -> View:
    """A view of one axis beside the batch is one of a flat value."""
    if len(view.axes) == 2 and len(view.value.shape) > 1:
        return flattened(node, view)
    return view


def flattened(node: Node, view: View) -> View:
    """All features in one axis, in the order in which the tensor has them."""
    if len(view.value.shape) == 1:
        return View(view.value, (0, 1))
    order = [a for a in view.axes[1:] if a != ADDED and view.value.shape[a - 1] > 1]
    channels_first = sorted(order, key=lambda a: (a != view.channel, a))
    if order not in (sorted(order), channels_first):
        raise node.wrong_layout("it flattens columns before rows")
    return View(made(node, view, Flatten("hwc" if order == sorted(order) else "chw")), (0, 1))


def check_alike(node: Node, views: list[View]) -> None:
    """Refuse tensors of different shapes or layouts, channels aside.

    Raises: Refused, with the shapes.
    """
    first = views[0]
    if any(one.axes != first.axes or one.value.shape[:-1] != first.value.shape[:-1] for one in views):
        raise node.refused(f"it reads tensors of the shapes {sizes_of(views)}, which differ beside channels")


def sizes_of(views: list[View]) -> list[list[int | str]]:
    """The shapes of tensors, as messages say them."""
    return [["batch" if n == BATCH else n for n in view.sizes] for view in views]


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis, counted from the end where it is negative."""
    if not -rank <= axis < rank:
        raise node.refused(f"axis {axis} of a tensor of {rank} axes")
    return axis % rank


def view_of(node: Node, tensors: list[Tensor | None], index: int = 0) -> View:
    """The view among a node's inputs."""
    found = tensors[index] if index < len(tensors) else None
    if isinstance(found, Dealt):
        raise node.refused("its channels are dealt to groups: only a channel shuffle is read")
    if not isinstance(found, View):
        raise node.refused(f"its input {index} is constant or missing, expected what the network computes")
    return found


def constant_of(node: Node, tensors: list[Tensor | None], index: int) -> np.ndarray | None:
    """The constant among a node's inputs; None where it is left out."""
    found = tensors[index] if index < len(tensors) else None
    if isinstance(found, View | Dealt):
        raise node.refused(f"its input {index} is computed from the network's, expected a constant")
    return found


def integers_of(node: Node, tensors: list[Tensor | None], index: int, attribute: str) -> Shape | None:
    """Integers that newer files hold as an input, older ones as an attribute; None where there are none."""
    found = constant_of(node, tensors, index)
    if found is None:
        return node.integers(attribute)
    if found.dtype.kind not in "iu" or found.ndim > 1 or found.size > 16:
        raise node.refused(f"{attribute}: expected integers, got {found.dtype} of shape {found.shape}")
    return tuple(int(n) for n in found.ravel())


def plain_name(name: str) -> str:
    """A name of a file as one of a layer."""
    return name.encode("utf-8", "replace").decode().strip("/.").replace("/", ".")[:80]


def numbers_of(node: Node, array: np.ndarray | None, what: str) -> np.ndarray:
    """Real numbers in float64."""
    if array is None or (array.dtype.kind != "f" and array.dtype.name != "bfloat16"):
        raise node.refused(f"its {what}: expected real numbers, got {None if array is None else array.dtype}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float64)
    if not np.isfinite(numbers.astype(np.float32) if array.dtype != np.float64 else numbers).all():
        raise node.refused(f"its {what} holds NaN or infinite numbers")
    return numbers
