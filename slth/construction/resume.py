"""Nodes kept on disk while a construction runs, so that a broken one goes on after its last node.

A file for each node holds what was chosen there: masks, columns, constants, errors, counts. All else that
the next node needs, above all activations on the calibration images, follows from these by the same
computations as before. So the streams are made again rather than stored, and the ticket ends with the same
bits.
"""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from slth.construction.misfit import Lost
from slth.construction.plan import Plan
from slth.construction.realise import LayerRecord, Node
from slth.construction.state import Solved, Stats
from slth.kept import find, identity_of, keep

FORMAT = "slth node 4"


def fingerprint(plan: Plan) -> str:
    """A hash of all that decides a construction: target, source, solver, settings and images."""
    arrays = flatten_dict(plan.balanced.params, sep="/") | {"images": plan.images}
    arrays = {name: a for name, a in arrays.items() if a is not None}
    reads = [entry.read for node in plan.nodes.values() for entry in node.maps]
    facts = (FORMAT, plan.target.network, plan.source, plan.solver, reads, tuple(arrays))
    return identity_of(*facts, arrays=arrays.values())


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
    keep(node_file(folder, node.number), arrays, identity, text)


def load_node(folder: Path, number: int, identity: str) -> Node | None:
    """The node that an earlier process has kept; None where there is none of this construction."""
    kept = find(node_file(folder, number), identity)
    if kept is None:
        return None
    arrays, text = kept
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
