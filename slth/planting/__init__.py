"""Planted tickets: a ticket that is known to be there, in a random network that looks like any other.

An existence proof says that a ticket is there; a benchmark of pruning says how good a found one is. Here
both meet: every weight of the ticket is known, so that what a method of pruning finds can be compared with
what there was to find (docs/pruning.md).
"""

from slth.planting.planted import Planted, plant
from slth.planting.recover import Overlap, Recovery, chance, overlap, overlap_by_layer, recovery, score
from slth.planting.targets import HANDMADE, circle, handmade, helix, relu
from slth.planting.tasks import samples
from slth.planting.widen import Widened, widened

__all__ = [
    "HANDMADE",
    "Overlap",
    "Planted",
    "Recovery",
    "Widened",
    "chance",
    "circle",
    "handmade",
    "helix",
    "overlap",
    "overlap_by_layer",
    "plant",
    "recovery",
    "relu",
    "samples",
    "score",
    "widened",
]
