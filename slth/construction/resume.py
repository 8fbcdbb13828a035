"""Nodes kept on disk while a construction runs, so that a broken one goes on after its last node.

A file for each node holds what was chosen there: masks, columns, constants, errors, counts. All else that
the next node needs, above all activations on the calibration images, follows from these by the same
computations as before. So the streams are made again rather than stored, and the ticket ends with the same
bits.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from slth.construction.plan import Plan
from slth.construction.realise import LayerRecord, Node
from slth.construction.state import Solved, Stats
from slth.interop.files import write_whole
from slth.nn import by_layer

FORMAT = "slth node"


def fingerprint(plan: Plan) -> str:
    """A hash of all that decides a construction: target, source, solver, settings and images."""
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        for value in values:
            text = repr(value).encode()
            digest.update(len(text).to_bytes(8, "little") + text)

    def add_array(name: str, array: Any) -> None:
        values = np.ascontiguousarray(array)
        add(name, values.shape, values.dtype.str)
        digest.update(values.data)

    add(jax.__version__, plan.target.network, plan.source, plan.solver)
    for path, values in by_layer(plan.balanced.params).items():
        for name, array in values.items():
            add_array(f"{path}/{name}", array)
    add(*(entry.read for node in plan.nodes.values() for entry in node.maps))
    if plan.images is not None:
        add_array("images", plan.images)
    return digest.hexdigest()


def save_node(folder: Path, node: Node, identity: str) -> None:
    """Write a node's file, whole or not at all."""
    solved = node.solved
    arrays = {f"mask{number}": np.packbits(mask) for number, mask in enumerate(solved.masks)}
    arrays |= {
        "columns": node.columns,
        "constants": solved.constants,
        "noise": solved.noise,
        "usable": solved.usable,
    }
    if solved.own is not None:
        arrays["own"] = solved.own
    shapes = [mask.shape for mask in solved.masks]
    stats, record = node.record.stats._asdict(), node.record._asdict()
    text = {"number": node.number, "shapes": shapes, "stats": stats, "record": record | {"stats": None}}
    metadata = {"format": FORMAT, "identity": identity, "node": json.dumps(text, default=_number)}
    content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(node_file(folder, node.number), content)


def load_node(folder: Path, number: int, identity: str) -> Node | None:
    """The node that an earlier process has kept; None where there is none of this construction."""
    path = node_file(folder, number)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("identity") != identity:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, safetensors.SafetensorError):
        return None
    text = json.loads(metadata["node"])
    masks = tuple(
        np.unpackbits(arrays[f"mask{number}"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        for number, shape in enumerate(text["shapes"])
    )
    stats = Stats(**text["stats"] | {"sizes": tuple(text["stats"]["sizes"])})
    solved = Solved(masks, arrays["constants"], arrays["noise"], arrays["usable"], stats, arrays.get("own"))
    record = LayerRecord(**text["record"] | {"stats": stats})
    return Node(text["number"], record, {}, arrays["columns"], solved, resumed=True)


def node_file(folder: Path, number: int) -> Path:
    """The file of a node by the number of its step."""
    return folder / f"node{number:05d}.safetensors"


def _number(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a node's file")
