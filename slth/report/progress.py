"""Progress of a construction: a bar on a terminal, else a line in the log for each layer."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slth.construct import LayerRecord

LOG = logging.getLogger(__name__)


class LayerProgress:
    """What a construction calls: (path, done, total) while a layer runs, its record when it ends."""

    def __init__(self, layers: int, bar: Progress | None = None):
        self.layers, self.bar = layers, bar
        self.ended = self.problems = self.unsolved = 0
        self.started = time.perf_counter()
        self.layer, self.layer_started = "", self.started
        self.task = None if bar is None else bar.add_task("", total=1)

    def __call__(self, path: str, done: int, total: int) -> None:
        """Part of a layer's problems is done."""
        if path != self.layer:
            self.layer, self.layer_started = path, time.perf_counter()
        if self.bar is not None and self.task is not None:
            text = (
                f"{self.ended + 1}/{self.layers} {path}: {_rate(done, self.layer_started)}{self._unsolved()}"
            )
            self.bar.update(self.task, completed=done, total=max(total, 1), description=text)

    def finish(self, record: LayerRecord) -> None:
        """A layer has ended."""
        self.ended += 1
        self.problems += record.stats.problems
        self.unsolved += record.stats.unsolved
        if self.bar is None:
            LOG.info(
                "%d/%d %s: %s problems, %s, %.1f s%s",
                *(self.ended, self.layers, record.path, f"{record.stats.problems:,}"),
                f"{record.stats.problems / max(record.seconds, 1e-9):,.0f} problems/s",
                *(record.seconds, self._unsolved()),
            )

    def _unsolved(self) -> str:
        return f", {self.unsolved:,} of {self.problems:,} unsolved so far" if self.problems else ""


def _rate(done: int, since: float) -> str:
    return f"{done / max(time.perf_counter() - since, 1e-9):,.0f} problems/s"


@contextmanager
def layer_progress(layers: int) -> Iterator[LayerProgress]:
    """A `LayerProgress` for a target with so many linear layers, on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LayerProgress(layers)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield LayerProgress(layers, bar)
