"""Progress of a construction: a bar on a terminal, else a line in the log for each layer."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slth.construction import Node
from slth.progress import bar, duration

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
    parameters: int | None = None
    """Of the source; with them, the time left is said."""
    ended: int = 0
    problems: int = 0
    unsolved: int = 0
    _seconds: float = 0.0
    _solved: int = 0
    _passed: int = 0

    def finish(self, node: Node) -> None:
        """A node has ended."""
        record, stats = node.record, node.record.stats
        self.ended += 1
        self.problems += stats.problems
        self.unsolved += stats.unsolved
        self._passed += record.parameters
        if not node.resumed:
            self._seconds += record.seconds
            self._solved += record.parameters
        rate = stats.problems / max(record.seconds, 1e-9)
        self.tell(
            f"{self.ended}/{self.layers} {record.path}: {stats.problems:,} problems, {rate:,.0f} problems/s,"
            f" {record.seconds:.1f} s"
            + (f", {self.unsolved:,} of {self.problems:,} unsolved so far" if self.problems else "")
            + (", taken over" if node.resumed else self._left())
        )

    def _left(self) -> str:
        """The time left, if each parameter of the source takes as long as those so far."""
        if self.parameters is None or self.ended == self.layers:
            return ""
        left = self._seconds / self._solved * (self.parameters - self._passed)
        return f", about {duration(left)} left"


@contextmanager
def layer_progress(layers: int, parameters: int | None = None) -> Iterator[LayerProgress]:
    """A `LayerProgress` for a target with so many nodes, on standard error.

    Args:
      parameters: of the source, for the time left.

    Example:
      >>> from slth import report
      >>> with report.layer_progress(20) as progress:
      ...     progress.layers
      20
    """
    with bar(layers) as advance:
        yield LayerProgress(layers, advance or LOG.info, parameters)
