"""Strong lottery tickets, constructed: masks of a random network that make it compute a trained one."""

from slth import evaluate, nn, ticket
from slth.construct import Construction, Solver
from slth.construct.layout import source_network
from slth.source import Source
from slth.ticket import Ticket

__all__ = ["Construction", "Solver", "Source", "Ticket", "evaluate", "nn", "source_network", "ticket"]
