"""Functions entry by entry: what they are is seen from their values, however a program wrote them.

GELU is one node in one file and seven in another. So every elementwise node keeps a NumPy function, and a
group of nodes that computes one value from another is compared, number by number, with each activation of the
table.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from slth.interop.onnx.model import PRODUCT, Node
from slth.interop.onnx.values import (
    Affine,
    Elementwise,
    Slopes,
    Tensor,
    Value,
    View,
    constant_of,
    numbers_of,
    same,
    sizes_of,
    view_of,
)
from slth.nn.activations import ACTIVATIONS, activation_info
from slth.nn.layers import Activation

Tensors = list[Tensor | None]
Function = Callable[..., np.ndarray]
GRID = np.concatenate([np.linspace(-8, 8, 641), [-300.0, -90.0, -30.0, 30.0, 90.0, 300.0]])
NEAR = 2e-5
"""Largest distance of an activation from the function that it stands for, by max(1, |x|); constants of 16
bits make some 1e-5."""
MOST = 24
"""Nodes that one activation may be written as."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _elu(x: np.ndarray, alpha: float = 1.0, gamma: float = 1.0) -> np.ndarray:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


UNARY: dict[str, Function] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Softplus": _softplus,
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Erf": _erf,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Abs": np.abs,
    "Neg": np.negative,
    "Reciprocal": lambda x: 1 / x,
}
BINARY: dict[str, Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Max": np.maximum,
    "Min": np.minimum,
}


PRODUCTS = ("Mul", "Div", "Pow")


def unary(node: Node, tensors: Tensors) -> View:
    """A function without attributes."""
    return same(node, view_of(node, tensors), Elementwise(UNARY[node.op], node.op in ("Relu", "Sigmoid")))


def with_numbers(node: Node, tensors: Tensors) -> View:
    """An activation with numbers of its own."""
    view = view_of(node, tensors)
    match node.op:
        case "LeakyRelu":
            return same(node, view, Elementwise(_leaky(node.number("alpha", 0.01))))
        case "Elu" | "Celu":
            alpha = node.number("alpha", 1.0)
            scale = alpha if node.op == "Celu" and alpha else 1.0
            return same(node, view, Elementwise(lambda x: scale * _elu(x / scale, alpha / scale)))
        case "Selu":
            alpha, gamma = node.number("alpha", 1.67326319217681884765625), node.number("gamma", 1.0507010221)
            return same(node, view, Elementwise(lambda x: _elu(x, alpha, gamma)))
        case "Swish":
            alpha = node.number("alpha", 1.0)
            return same(node, view, Elementwise(lambda x: x * _sigmoid(alpha * x)))
        case "Gelu":
            tanh = node.text("approximate", "none") == "tanh"
            return same(node, view, Elementwise(_gelu_tanh if tanh else _gelu))
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)  # HardSigmoid
    return _clipped(node, _scaled(node, view, alpha, beta), 0.0, 1.0)


def _leaky(slope: float) -> Function:
    return lambda x: np.where(x >= 0, x, slope * x)


def parametric(node: Node, tensors: Tensors) -> View:
    """PRelu of one slope, or of one for each channel."""
    view, slope = view_of(node, tensors), numbers_of(node, constant_of(node, tensors, 1), "slope")
    if not slope.size:
        raise node.refused("it has no slope")
    if (slope != slope.ravel()[0]).any():
        return same(node, view, Slopes(_by_channel(node, view, slope)))
    return same(node, view, Elementwise(_leaky(float(str(np.float32(slope.ravel()[0]))))))


def clip(node: Node, tensors: Tensors) -> View:
    """Clip between two numbers: ReLU, or hard tanh between two affine maps."""
    ends = []
    for index, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = constant_of(node, tensors, index)
        if given is not None and given.size != 1:
            raise node.refused(f"{name}: expected one number")
        end = float(given.ravel()[0]) if given is not None else node.attributes.get(name, default)
        ends.append(math.copysign(math.inf, end) if abs(end) > 1e30 else float(end))
    low, high = ends
    if not low < high:
        raise node.refused(f"it clips between {low:g} and {high:g}")
    return _clipped(node, view_of(node, tensors), low, high)


def _scaled(node: Node, view: View, factor: float, shift: float) -> View:
    return same(node, view, Elementwise(lambda x: factor * x + shift))


def _clipped(node: Node, view: View, low: float, high: float) -> View:
    """clip(x, a, b) = c + s hard_tanh((x - c) / s), with the middle c and the half width s."""
    if math.isinf(low) or math.isinf(high) or (low, high) == (-1.0, 1.0):
        return same(node, view, Elementwise(lambda x: np.clip(x, low, high), low >= 0))
    middle, half = (low + high) / 2, (high - low) / 2
    inner = same(
        node, _scaled(node, view, 1 / half, -middle / half), Elementwise(lambda x: np.clip(x, -1, 1))
    )
    return same(node, inner, Elementwise(lambda x: half * x + middle, low >= 0))


def binary(node: Node, tensors: Tensors) -> View:
    """A function of two tensors, one of them a constant or not; a sum of two may be the end of a block."""
    function, views = BINARY[node.op], [one for one in tensors if isinstance(one, View)]
    if len(tensors) != 2 or not views:
        raise node.refused(f"it reads {len(tensors)} tensors, expected two")
    if len(views) == 2:
        return _of_two(node, views[0], views[1], function)
    (view,), first = views, isinstance(tensors[0], View)
    constant = numbers_of(node, constant_of(node, tensors, int(first)), "constant")
    if constant.size == 1 and constant.ndim <= len(view.axes):
        number = float(constant.ravel()[0])
        return same(node, view, Elementwise(lambda x: function(x, number) if first else function(number, x)))
    vector = _by_channel(node, view, constant)
    one, nought = np.ones_like(vector), np.zeros_like(vector)
    match node.op:
        case "Add":
            return same(node, view, Affine(one, vector))
        case "Sub":
            return same(node, view, Affine(one, -vector) if first else Affine(-one, vector))
        case "Mul":
            return same(node, view, Affine(vector, nought))
        case "Div" if first and vector.all():
            return same(node, view, Affine(1 / vector, nought))
    raise node.refused("by a constant of each channel: sums, products and quotients are read")


def _by_channel(node: Node, view: View, constant: np.ndarray) -> np.ndarray:
    """A constant that differs between channels alone, as a vector."""
    rank = len(view.axes)
    behind = (
        rank - node.integer("axis", rank - constant.ndim) - constant.ndim
    )  # older files say where it begins
    shape = constant.shape + (1,) * behind
    shape = (1,) * (rank - len(shape)) + shape
    wide = [axis for axis, n in enumerate(shape) if n > 1]
    if len(shape) != rank or len(wide) != 1 or view.axes[wide[0]] != view.channel:
        raise node.wrong_layout(f"its constant of shape {constant.shape} does not go along the channels")
    if constant.size != view.value.shape[-1]:
        raise node.refused(f"its constant has {constant.size} entries for {view.value.shape[-1]} channels")
    return constant.ravel()


def _of_two(node: Node, one: View, other: View, function: Function) -> View:
    if one.value.shape != other.value.shape or one.axes != other.axes:
        if node.op in PRODUCTS:
            raise node.refused(PRODUCT)
        sizes = sizes_of([one, other])
        raise node.refused(f"it reads tensors of the shapes {sizes}, expected equal ones of one layout")
    value = Value(str(node), one.value.shape, Elementwise(function), (one.value, other.value))
    return View(value, one.axes)


def total(node: Node, tensors: Tensors) -> View:
    """Sum of several tensors."""
    view = view_of(node, tensors)
    for other in tensors[1:]:
        view = binary(replace(node, op="Add"), [view, other])
    return view


@cache
def _rows(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The values of activations of slth's table on the grid."""
    with jax.enable_x64(True):
        x = jnp.asarray(GRID, jnp.float64)
        return {name: np.asarray(activation_info(name).phi(x)) for name in names}


def recognised(function: Function) -> Activation | Affine | None:
    """The activation, or the affine map, that a function of one variable is; None where it is neither."""
    with np.errstate(all="ignore"):
        y = np.broadcast_to(np.asarray(function(GRID), np.float64), GRID.shape)
        ends = np.asarray(function(np.array([-1.0, 0.0, 1.0])), np.float64)
    if not np.isfinite(y).all():
        return None
    near = NEAR * np.maximum(1.0, np.abs(GRID))
    slope, offset = (ends[2] - ends[0]) / 2, ends[1]
    if (np.abs(y - slope * GRID - offset) <= 1e-9 * (abs(offset) + np.abs(slope * GRID))).all():
        return Affine(np.array([slope]), np.array([offset]))
    leak = float(-ends[0])
    if (np.abs(y - _leaky(leak)(GRID)) <= 1e-9 * near / NEAR).all():
        return Activation("leaky_relu", slope=leak) if leak else Activation("relu")
    distances = {name: np.abs(y - row) for name, row in _rows(tuple(ACTIVATIONS)).items()}
    best = min(distances, key=lambda name: (distances[name] / near).max())
    return Activation(best) if (distances[best] <= near).all() else None
