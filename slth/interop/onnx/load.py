"""An ONNX file as a target: its nodes are read one by one, then brought into slth's order."""

import logging
import math
from pathlib import Path

import numpy as np

from slth.interop.onnx.constants import Budget, computed
from slth.interop.onnx.model import Model, Node, Refused, WrongLayout
from slth.interop.onnx.nesting import Nesting
from slth.interop.onnx.reading import initialisers, model_of
from slth.interop.onnx.sequence import sequence_of
from slth.interop.onnx.shapes import shape_of
from slth.interop.onnx.table import COMPUTED, OPERATORS
from slth.interop.onnx.values import BATCH, Dealt, Softmax, Tensor, Value, View, view_of
from slth.interop.selections import without_selections
from slth.nn.network import Network
from slth.target import Target

LOG = logging.getLogger(__name__)
FEW = 4
"""Channels of images, at most, where nothing in a network says which axis holds them."""


def load_onnx(path: Path) -> Target:
    """The network of an ONNX file, its batch norms folded.

    Args:
      path: the file; tensors in other files must lie in its folder.
    Returns: the target, whose images have their channels last whatever the file's layout is. A softmax at
      the end is left out, a warning says so, and its outputs are classes.
    Raises: ValueError, in one line, for a damaged file and for whatever is no layer of slth.
    """
    try:
        model = model_of(path, OPERATORS, COMPUTED)
        said = _output(model).value
        end = _without_softmax(said, path)
        nesting = Nesting(end)
        start = next(value for value in nesting.depth if not value.reads)
        layers, params = sequence_of(nesting.items(end, start))
        target = Target.of(
            *without_selections(Network(start.shape, layers), params), None if end is said else "classes"
        )
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: {' '.join(str(error).split())}") from error
    return target


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The trained arrays of an ONNX file by their names.

    Raises: ValueError as `load_onnx`.
    """
    try:
        return initialisers(path)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {' '.join(str(error).split())}") from error


def _output(model: Model) -> View:
    """The view of the network's output, the input's axes taken for what its layers take them for."""
    first: WrongLayout | None = None
    for view in _inputs(model):
        try:
            return _read(model, view)
        except WrongLayout as error:
            first = first or error
    assert first is not None
    raise first


def _inputs(model: Model) -> list[View]:
    """What the input's axes may be, the likeliest first."""
    sizes, name = model.input_sizes, f"input {model.input!r}"
    rank = len(sizes)
    if rank == 1:
        return [View(Value(name, sizes), (0, 1)), View(Value(name, (*sizes, 1)), (0, 1))]
    last = View(Value(name, sizes), tuple(range(rank + 1)))
    first = View(Value(name, (*sizes[1:], sizes[0])), (0, rank, *range(1, rank)))
    both = [last, first] if sizes[0] > FEW >= sizes[-1] else [first, last]
    if rank == 2:  # rows and columns of grey images
        grey = View(Value(name, (*sizes, 1)), (0, 1, 2))
        return [grey, *both] if sizes[0] > FEW < sizes[1] else [*both, grey]
    return both


def _read(model: Model, view: View) -> View:
    tensors: dict[str, Tensor | None] = {"": None, **model.constants, model.input: view}
    budget = Budget(model.budget)
    for node in model.nodes:
        missing = [name for name in node.inputs if name not in tensors]
        if missing or not node.outputs:
            raise node.refused(f"it is damaged: nothing makes {missing}, which it reads, or it makes nothing")
        try:
            made = _made(node, [tensors[name] for name in node.inputs], budget)
        except Refused:
            raise
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise node.refused(f"its settings do not fit: {error}") from error
        tensors |= zip(node.outputs, made if isinstance(made, list) else [made], strict=False)
    found = tensors.get(model.output)
    if not isinstance(found, View):
        raise Refused(f"output {model.output!r} does not depend on the input")
    _check_output(model, found)
    return found


def _made(node: Node, tensors: list[Tensor | None], budget: Budget) -> Tensor | list[View]:
    """What a node makes of its inputs."""
    views = [one for one in tensors if isinstance(one, View | Dealt)]
    if node.op == "Shape" and views:
        return shape_of(node, view_of(node, tensors))
    if not views:
        if any(one is None for one in tensors):
            raise node.refused("it reads constants alone, and one is left out")
        return computed(node, [one for one in tensors if isinstance(one, np.ndarray)], budget)
    if node.op not in OPERATORS:
        raise node.refused("slth has no layer for it: only constants may be its inputs")
    operator = OPERATORS[node.op]
    if len(tensors) not in operator.inputs:
        raise node.refused(
            f"it has {len(tensors)} inputs, expected {operator.inputs[0]} to {operator.inputs[-1]}"
        )
    unknown = set(node.attributes) - operator.attributes
    if unknown:
        raise node.refused(f"attribute {', '.join(sorted(unknown))}: slth does not know it")
    sized = [one for one in tensors if isinstance(one, np.ndarray) and one.dtype.kind == "i"]
    if node.op not in ("Reshape", "Slice") and any((one == BATCH).any() for one in sized):
        raise node.refused("it computes with the size of the batch")
    return operator.read(node, tensors)


def _check_output(model: Model, view: View) -> None:
    said, found = model.output_sizes, view.sizes[1:]
    fits = said is None or (
        len(said) == len(found) and all(a in (None, b) for a, b in zip(said, found, strict=True))
    )
    if not fits or view.axes[0] != 0 or math.prod(found) != math.prod(view.value.shape):
        raise Refused(
            f"output {model.output!r}: its nodes make {list(found)} behind the batch, declared are {said}"
        )


def _without_softmax(end: Value, path: Path) -> Value:
    """The value of the output; softmax, which changes no order of the classes, goes."""
    if not isinstance(end.operation, Softmax):
        return end
    LOG.warning("%s: %s at the end is left out: outputs are those before it", path, end.node)
    return end.reads[0]
