"""Target and source in, mask out: the rooms of the construction. Users call `slth.construct`."""

from slth.construction.balance import balance
from slth.construction.compensated import Compensated
from slth.construction.fold import Construction, construct, finish, nodes_of
from slth.construction.plan import Plan, plan_of
from slth.construction.realise import LayerRecord, Node
from slth.construction.rounded import Rounded
from slth.construction.solvers import Best, Robust, Single, Smallest, Solver
from slth.construction.state import Stats
from slth.nn.prune import prune

__all__ = [
    "Best",
    "Compensated",
    "Construction",
    "LayerRecord",
    "Node",
    "Plan",
    "Robust",
    "Rounded",
    "Single",
    "Smallest",
    "Solver",
    "Stats",
    "balance",
    "construct",
    "finish",
    "nodes_of",
    "plan_of",
    "prune",
]
