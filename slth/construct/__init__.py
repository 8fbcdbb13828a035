"""Target and source in, mask out: the L + 1 construction of strong lottery tickets."""

from slth.construct.compensate import Compensation
from slth.construct.layout import source_network
from slth.construct.network import Construction, construct
from slth.construct.prune import prune
from slth.construct.scale import balance
from slth.construct.solver import LayerRecord, Solver

__all__ = [
    "Compensation",
    "Construction",
    "LayerRecord",
    "Solver",
    "balance",
    "construct",
    "prune",
    "source_network",
]
