"""Progress of a construction: a bar on a terminal, else a line in the log for each layer."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slth.construction import Node
from slth.progress import bar

LOG = logging.getLogger(__name__)


@dataclass
class LayerProgress:
    """What is said of a construction while it runs: a line, or a step of the bar, for each node.

    Example:
      >>> import jax, slth
      >>> from slth import nn, report
      >>> from slth.construction import nodes_of, plan_of
      >>> network = nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2)))
      >>> target = slth.Target(network, nn.init(network, jax.random.key(0)))
      >>> progress = report.LayerProgress(layers=2)
      >>> for node in nodes_of(plan_of(target, slth.Source.of(target, copies=5), slth.Best())):
      ...     progress.finish(node)
      >>> progress.ended, progress.problems, progress.unsolved
      (2, 126, 8)
    """

    layers: int
    tell: Callable[[str], None] = LOG.info
    ended: int = 0
    problems: int = 0
    unsolved: int = 0

    def finish(self, node: Node) -> None:
        """A node has ended."""
        record, stats = node.record, node.record.stats
        self.ended += 1
        self.problems += stats.problems
        self.unsolved += stats.unsolved
        rate = stats.problems / max(record.seconds, 1e-9)
        self.tell(
            f"{self.ended}/{self.layers} {record.path}: {stats.problems:,} problems, {rate:,.0f} problems/s,"
            f" {record.seconds:.1f} s"
            + (f", {self.unsolved:,} of {self.problems:,} unsolved so far" if self.problems else "")
            + (", taken over" if node.resumed else "")
        )


@contextmanager
def layer_progress(layers: int) -> Iterator[LayerProgress]:
    """A `LayerProgress` for a target with so many nodes, on standard error.

    Example:
      >>> from slth import report
      >>> with report.layer_progress(20) as progress:
      ...     progress.layers
      20
    """
    with bar(layers) as advance:
        yield LayerProgress(layers, advance or LOG.info)
