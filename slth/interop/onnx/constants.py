"""Nodes of constants, computed when the file is read: shapes, indices, weights laid out otherwise."""

import math
from collections.abc import Callable

import numpy as np

from slth.interop.onnx.model import Node, Refused
from slth.interop.onnx.tensors import TYPES
from slth.interop.onnx.values import BATCH

Arrays = list[np.ndarray]
MOVING = ("Gather", "Unsqueeze", "Squeeze", "Concat", "Slice", "Reshape", "Identity", "Cast", "Transpose")
"""Operators that move numbers and compute none: the size of the batch may pass them."""
SHAPED = ("ConstantOfShape", "Expand")
"""Operators of a shape, their last input. Of a batch they make what one example has."""


class Budget:
    """Numbers that may still be computed: a small file must not make large arrays."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, node: Node, count: int) -> None:
        """Take so many.

        Raises: Refused where there are not so many left.
        """
        self.left -= count
        if count < 0 or self.left < 0:
            raise node.refused(
                f"it makes {count} numbers of constants, more than the size of the file allows"
            )


def computed(node: Node, arrays: Arrays, budget: Budget) -> np.ndarray:
    """What a node makes of constants.

    Raises: Refused for operators that are not computed, and inputs that do not fit.
    """
    if node.op not in FOLDED:
        raise node.refused("it reads constants alone, and is not computed")
    if node.op in SHAPED and arrays and arrays[-1].dtype.kind == "i":
        arrays = [*arrays[:-1], np.where(arrays[-1] == BATCH, 1, arrays[-1])]
    if node.op not in MOVING and any(array.dtype.kind == "i" and (array == BATCH).any() for array in arrays):
        raise node.refused("it computes a number from the size of the batch")
    try:
        with np.errstate(all="ignore"):
            budget.take(node, _size(node, arrays))
            return np.asarray(FOLDED[node.op](node, arrays))
    except Refused:
        raise
    except Exception as error:  # whatever NumPy says of arrays that do not fit together
        raise node.refused(f"its constants do not fit: {' '.join(str(error).split())[:100]}") from error


def _size(node: Node, arrays: Arrays) -> int:
    """Numbers that the result has, at most."""
    if node.op == "Constant":
        return 0  # these were read with the file
    if node.op in SHAPED:
        grown = math.prod(_integers(arrays[-1]))
        return max(grown, grown * arrays[0].size) if node.op == "Expand" else grown
    if node.op == "Range":
        start, limit, step = (float(array.item()) for array in arrays)
        return max(0, math.ceil((limit - start) / step))
    if node.op == "Gather":
        return math.prod(arrays[0].shape) * max(1, arrays[1].size)
    if node.op in BINARY:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    return sum(array.size for array in arrays)


def _integers(array: np.ndarray) -> list[int]:
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise ValueError("integers are expected")
    return [int(n) for n in array.ravel()]


def _constant(node: Node, arrays: Arrays) -> np.ndarray:
    kinds = {"value": None, "value_float": np.float32, "value_floats": np.float32}
    kinds |= {"value_int": np.int64, "value_ints": np.int64}
    ((name, value),) = node.attributes.items()
    if name not in kinds or value is None:
        raise ValueError(f"a constant of the kind {name}")
    return np.asarray(value, kinds[name])


def _axes(node: Node, arrays: Arrays) -> list[int] | None:
    """Axes as an input or as an attribute."""
    if len(arrays) > 1:
        return _integers(arrays[1])
    given = node.integers("axes")
    return None if given is None else list(given)


def _reshape(node: Node, arrays: Arrays) -> np.ndarray:
    wanted = _integers(arrays[1])
    kept = [
        arrays[0].shape[i] if n == 0 and not node.integer("allowzero") else n for i, n in enumerate(wanted)
    ]
    return arrays[0].reshape(kept)


def _slice(node: Node, arrays: Arrays) -> np.ndarray:
    lists = [tuple(_integers(array)) for array in arrays[1:]]
    lists += [node.integers(name) or () for name in ("starts", "ends", "axes")[len(lists) :]]
    starts, ends, axes = lists[:3]
    axes, steps = axes or range(len(starts)), lists[3] if len(lists) > 3 else (1,) * len(starts)
    index = [slice(None)] * arrays[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ValueError(f"a step of {step}")
        index[axis] = slice(start, end, step)
    return arrays[0][tuple(index)]


def _cast(node: Node, arrays: Arrays) -> np.ndarray:
    dtype, _ = TYPES[node.integer("to")]
    if arrays[0].dtype.kind == "i" and dtype.kind in "iu":
        return arrays[0].astype(np.int64)  # in which the batch's stand-in has room
    if arrays[0].dtype.kind == "i" and (arrays[0] == BATCH).any():
        raise ValueError("the size of the batch becomes a real number")
    return arrays[0].astype(dtype)


def _filled(node: Node, arrays: Arrays) -> np.ndarray:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(_integers(arrays[0]), value.ravel()[0], value.dtype)


def _unsqueeze(node: Node, arrays: Arrays) -> np.ndarray:
    axes = tuple(_axes(node, arrays) or ())
    return np.expand_dims(arrays[0], axes)


def _squeeze(node: Node, arrays: Arrays) -> np.ndarray:
    axes = _axes(node, arrays)
    return np.squeeze(arrays[0], None if axes is None else tuple(axes))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "iu":
        return (np.sign(a) * np.sign(b)).astype(a.dtype) * (np.abs(a) // np.abs(b))
    return a / b


def _prod(node: Node, arrays: Arrays) -> np.ndarray:
    axes = _axes(node, arrays)
    kept = bool(node.integer("keepdims", 1))
    return np.prod(arrays[0], None if axes is None else tuple(axes), arrays[0].dtype, keepdims=kept)


BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": np.power,
}
FOLDED: dict[str, Callable[[Node, Arrays], np.ndarray]] = {
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Identity": lambda node, arrays: arrays[0],
    "Cast": _cast,
    "Gather": lambda node, arrays: np.take(arrays[0], arrays[1], node.integer("axis")),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": lambda node, arrays: np.concatenate(arrays, node.integer("axis")),
    "Slice": _slice,
    "Reshape": _reshape,
    "Expand": lambda node, arrays: arrays[0] * np.ones(_integers(arrays[1]), arrays[0].dtype),
    "Transpose": lambda node, arrays: np.transpose(arrays[0], node.integers("perm")),
    "Range": lambda node, arrays: np.arange(*(array.item() for array in arrays), dtype=arrays[0].dtype),
    "ReduceProd": _prod,
    "Neg": lambda node, arrays: -arrays[0],
    "Sqrt": lambda node, arrays: np.sqrt(arrays[0]),
    "Reciprocal": lambda node, arrays: 1 / arrays[0],
    **dict.fromkeys(BINARY, lambda node, arrays: BINARY[node.op](*arrays)),
}
"""What is computed, by operator."""
