"""Nodes kept on disk while a construction runs, so that a broken one goes on after its last node.

A file for each node holds what was chosen there: masks, columns, constants, errors, counts. All else that
the next node needs, above all activations on the calibration images, follows from these by the same
computations as before. So the streams are made again rather than stored, and the ticket ends with the same
bits.
"""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict

from slth.construction.misfit import Lost
from slth.construction.plan import Plan
from slth.construction.realise import LayerRecord, Node
from slth.construction.state import Solved, Stats
from slth.interop.files import write_whole

FORMAT = "slth node 3"


def fingerprint(plan: Plan) -> str:
    """A hash of all that decides a construction: target, source, solver, settings and images."""
    arrays = flatten_dict(plan.balanced.params, sep="/") | {"images": plan.images}
    arrays = {name: np.ascontiguousarray(a) for name, a in arrays.items() if a is not None}
    reads = [entry.read for node in plan.nodes.values() for entry in node.maps]
    shapes = [(name, a.shape, a.dtype.str) for name, a in arrays.items()]
    facts = (jax.__version__, plan.target.network, plan.source, plan.solver, reads, shapes)
    digest = hashlib.sha256(repr(facts).encode())
    for array in arrays.values():
        digest.update(array.data)
    return digest.hexdigest()


def save_node(folder: Path, node: Node, identity: str) -> None:
    """Write a node's file, whole or not at all."""
    solved = node.solved
    arrays = {f"mask{number}": np.packbits(mask) for number, mask in enumerate(solved.masks)}
    arrays |= {"columns": node.columns, "constants": solved.constants}
    arrays |= {"noise": solved.noise, "usable": solved.usable}
    if solved.own is not None:
        arrays["own"] = solved.own
    record = node.record._asdict() | {"stats": node.record.stats._asdict()}
    text = {"shapes": [mask.shape for mask in solved.masks], "record": record, "steps": solved.steps}
    as_json = json.dumps(text, default=np.generic.item)  # NumPy's numbers as Python's
    metadata = {"format": FORMAT, "identity": identity, "node": as_json}
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
    found = text["record"]["stats"]
    stats = Stats(**found | {"sizes": tuple(found["sizes"])})
    constants, noise, usable = (arrays[name] for name in ("constants", "noise", "usable"))
    solved = Solved(masks, constants, noise, usable, stats, arrays.get("own"), tuple(text["steps"]))
    record = LayerRecord(**text["record"] | {"stats": stats, "lost": Lost(*text["record"]["lost"])})
    return Node(number, record, {}, arrays["columns"], solved, resumed=True)


def node_file(folder: Path, number: int) -> Path:
    """The file of a node by the number of its step."""
    return folder / f"node{number:05d}.safetensors"
