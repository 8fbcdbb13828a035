"""Strong lottery tickets, constructed: masks of a random network that make it compute a trained one.

target = slth.load("net.pth", spec)
source = slth.Source.of(target, copies=15, seed=0)
made = slth.construct(target, source, slth.Robust(), images)
made.ticket.save("net.ticket")
outputs = slth.Ticket.load("net.ticket")(images)
"""

from slth import compact, evaluate, export, interop, nn, subset_sum, ticket
from slth.certificate import ball, box, certify, examples
from slth.construction import (
    Best,
    Compensated,
    Construction,
    Robust,
    Rounded,
    Single,
    Smallest,
    Solver,
    construct,
)
from slth.interop import from_jax
from slth.interop import load_target as load
from slth.refinement import refine
from slth.source import Source
from slth.target import Target
from slth.ticket import Ticket

__all__ = [
    "Best",
    "Compensated",
    "Construction",
    "Robust",
    "Rounded",
    "Single",
    "Smallest",
    "Solver",
    "Source",
    "Target",
    "Ticket",
    "ball",
    "box",
    "certify",
    "compact",
    "construct",
    "evaluate",
    "examples",
    "export",
    "from_jax",
    "interop",
    "load",
    "nn",
    "refine",
    "subset_sum",
    "ticket",
]
