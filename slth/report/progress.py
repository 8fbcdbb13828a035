"""Progress of a construction: a bar on a terminal, else a line in the log for each layer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slth.construction import Node

LOG = logging.getLogger(__name__)


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

    def __init__(self, layers: int, bar: Progress | None = None):
        self.layers, self.bar = layers, bar
        self.ended = self.problems = self.unsolved = 0
        self.task = None if bar is None else bar.add_task("", total=layers)

    def finish(self, node: Node) -> None:
        """A node has ended."""
        record = node.record
        self.ended += 1
        self.problems += record.stats.problems
        self.unsolved += record.stats.unsolved
        unsolved = f", {self.unsolved:,} of {self.problems:,} unsolved so far" if self.problems else ""
        rate = f"{record.stats.problems / max(record.seconds, 1e-9):,.0f} problems/s"
        if self.bar is not None and self.task is not None:
            text = f"{self.ended}/{self.layers} {record.path}: {rate}{unsolved}"
            self.bar.update(self.task, completed=self.ended, description=text)
            return
        LOG.info(
            "%d/%d %s: %s problems, %s, %.1f s%s%s",
            *(self.ended, self.layers, record.path, f"{record.stats.problems:,}", rate, record.seconds),
            *(unsolved, ", taken over" if node.resumed else ""),
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
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LayerProgress(layers)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield LayerProgress(layers, bar)
