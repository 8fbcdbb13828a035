"""Nodes kept on disk while a construction runs, so that a broken one goes on after its last node.

A file for each node holds what was chosen there: masks, columns, constants, errors, counts. All else that
the next node needs, above all activations on the calibration images, follows from these by the same
computations as before. So the streams are made again rather than stored, and the ticket ends with the same
bits.
"""

from pathlib import Path

from flax.traverse_util import flatten_dict

from slth.construction.misfit import Lost
from slth.construction.plan import Plan
from slth.construction.realise import LayerRecord, Node
from slth.construction.stored import arrays_of, solved_of
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
    arrays, text = arrays_of(node.solved)
    record = node.record._asdict() | {"stats": node.record.stats._asdict()}
    arrays, text = arrays | {"columns": node.columns}, text | {"record": record}
    keep(node_file(folder, node.number), arrays, identity, text)


def load_node(folder: Path, number: int, identity: str) -> Node | None:
    """The node that an earlier process has kept; None where there is none of this construction."""
    kept = find(node_file(folder, number), identity)
    if kept is None:
        return None
    arrays, text = kept
    solved = solved_of(arrays, text, text["record"]["stats"])
    lost = Lost(*text["record"]["lost"])
    record = LayerRecord(**text["record"] | {"stats": solved.stats, "lost": lost})
    return Node(number, record, {}, arrays["columns"], solved, resumed=True)


def node_file(folder: Path, number: int) -> Path:
    """The file of a node by the number of its step."""
    return folder / f"node{number:05d}.safetensors"
