"""From the bytes of an ONNX file to a `Model`; nothing is computed, and nothing but numbers is taken."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from slth.interop.onnx.model import REASONS, Model, Node, Refused
from slth.interop.onnx.tensors import REAL, array_of, location_of
from slth.interop.optional import optional
from slth.types import Shape

OPSETS = (6, 28)
"""Versions of the operators that are read."""
MOST_BYTES, MOST_NODES = 2**31, 2**13
DEFAULT_DOMAINS = ("", "ai.onnx")


def parsed(path: Path) -> Any:
    """The ModelProto of a file."""
    onnx: ModuleType = optional("onnx", f"checkpoint {path}", "slth[onnx]")
    size = path.stat().st_size
    if size >= MOST_BYTES:
        raise Refused(f"it has {size} bytes, and no ONNX file has {MOST_BYTES} or more")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # whatever protobuf meets in a damaged file
        raise Refused(f"it is damaged: {' '.join(str(error).split())[:100]}") from error
    if not model.HasField("graph"):
        raise Refused("it is damaged, or no ONNX file: it has no graph")
    return model


def initialisers(path: Path) -> dict[str, np.ndarray]:
    """The trained arrays of a file by name."""
    return _initialisers(parsed(path).graph, path.parent)


def files_of(path: Path) -> list[Path]:
    """An ONNX file and the files beside it in which its tensors lie; alone where it cannot be read."""
    try:
        names = {location_of(tensor) for tensor in parsed(path).graph.initializer} - {""}
        beside = [path.parent / name for name in sorted(names)]
        return [path, *(one for one in beside if one.is_file())]
    except ValueError:
        return [path]


def model_of(path: Path, operators: Collection[str], computed: Collection[str]) -> Model:
    """The network that a file holds.

    Args:
      operators: the operators that are read.
      computed: those of constants.
    Raises: Refused for files of another kind, damaged ones, and networks of other operators, inputs or
      outputs.
    """
    proto = parsed(path)
    _check_versions(proto)
    graph = proto.graph
    if len(graph.node) > MOST_NODES:
        raise Refused(f"it has {len(graph.node)} nodes, and at most {MOST_NODES} are read")
    if len(graph.sparse_initializer):
        raise Refused("it has sparse tensors: save them dense")
    constants = _initialisers(graph, path.parent)
    inputs = [one for one in graph.input if one.name not in constants]
    for kind, held in (("input", inputs), ("output", graph.output)):
        if len(held) != 1:
            names = ", ".join(one.name for one in held[:6])
            raise Refused(f"it has {len(held)} {kind}s ({names}), and networks of one {kind} are read")
    batch, sizes = _input_sizes(inputs[0])
    nodes = needed(graph.node, graph.output[0].name)
    _check_operators(nodes, operators, computed)
    held = sum(array.size for array in constants.values())
    return Model(
        tuple(_node(node, batch, path.parent) for node in nodes),
        constants,
        inputs[0].name,
        sizes,
        graph.output[0].name,
        _output_sizes(graph.output[0]),
        4 * held + 2**16,
    )


def _initialisers(graph: Any, folder: Path) -> dict[str, np.ndarray]:
    constants = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise Refused(f"it is damaged: two tensors are named {tensor.name!r}, or one has no name")
        constants[tensor.name] = array_of(tensor, folder)
    return constants


def _check_versions(proto: Any) -> None:
    versions = [entry.version for entry in proto.opset_import if entry.domain in DEFAULT_DOMAINS]
    low, high = OPSETS
    if len(versions) != 1 or not low <= versions[0] <= high:
        found = ", ".join(map(str, versions)) or "none"
        raise Refused(
            f"opset {found}: versions {low} to {high} are read: export it again with one of them, or convert "
            "it with onnx.version_converter"
        )


def _check_operators(nodes: list[Any], operators: Collection[str], computed: Collection[str]) -> None:
    for node in nodes:
        if node.domain not in DEFAULT_DOMAINS or node.op_type not in {*operators, *computed}:
            called = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            why = REASONS.get(
                node.op_type, f"slth has no layer for it; it reads {', '.join(sorted(operators))}"
            )
            raise Refused(f"{called} {(node.name or ', '.join(node.output))!r}: {why}")


def _input_sizes(entry: Any) -> tuple[int | None, Shape]:
    """The size of the batch axis, where it is fixed, and those of the others."""
    tensor = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise Refused(f"input {entry.name!r} has no shape: export it with one")
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    if not 2 <= len(dims) <= 4:
        raise Refused(
            f"input {entry.name!r} has {len(dims)} axes {dims}: expected a batch of 1 to 3 axes more"
        )
    sizes = tuple(n for n in dims[1:] if isinstance(n, int) and n > 0)
    if len(sizes) != len(dims) - 1:
        raise Refused(
            f"input {entry.name!r} has the shape {dims}: only the batch axis, the first, may be open: export "
            "it with fixed sizes"
        )
    if tensor.elem_type not in (*REAL, 2):
        raise Refused(f"input {entry.name!r} has the element type {tensor.elem_type}, expected real numbers")
    return (dims[0] if isinstance(dims[0], int) and dims[0] > 0 else None), sizes


def _output_sizes(entry: Any) -> tuple[int | None, ...] | None:
    tensor = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return tuple(dims[1:]) if dims else None


def needed(nodes: Iterable[Any], output: str) -> list[Any]:
    """The nodes that the output depends on, in their order.

    Raises: Refused where two nodes make one tensor.
    """
    nodes, makers = list(nodes), {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.output):
            if makers.setdefault(name, number) != number:
                raise Refused(f"it is damaged: two nodes make the tensor {name!r}")
    kept, waiting = set(), [output]
    while waiting:
        number = makers.get(waiting.pop())
        if number is not None and number not in kept:
            kept.add(number)
            waiting += nodes[number].input
    return [nodes[number] for number in sorted(kept)]


def _node(node: Any, batch: int | None, folder: Path) -> Node:
    attributes = {entry.name: _attribute(entry, folder) for entry in node.attribute}
    made = Node(node.op_type, node.name, tuple(node.input), tuple(node.output), attributes, batch)
    if len(attributes) != len(node.attribute):
        raise made.refused("it is damaged: two attributes have one name")
    return made


# By the number of its kind in AttributeProto: how an attribute is read.
ATTRIBUTES: dict[int, Callable[[Any, Path], Any]] = {
    1: lambda entry, folder: float(entry.f),
    2: lambda entry, folder: int(entry.i),
    3: lambda entry, folder: entry.s.decode("utf-8", "replace"),
    4: lambda entry, folder: array_of(entry.t, folder),
    6: lambda entry, folder: np.array(entry.floats, np.float32),
    7: lambda entry, folder: tuple(map(int, entry.ints)),
}


def _attribute(entry: Any, folder: Path) -> Any:
    """An attribute's value; of other kinds it is None, which whatever asks for it refuses."""
    return ATTRIBUTES[entry.type](entry, folder) if entry.type in ATTRIBUTES else None
