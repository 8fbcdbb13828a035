"""What a pass over the training images gave, and how it is told."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG = logging.getLogger("slth.train")


class Epoch(NamedTuple):
    """What one pass over the training images gave.

    Example:
      >>> from slth import train
      >>> train.Epoch(epoch=1, epochs=20, loss=2.3, accuracy=0.1, seconds=0.5).loss
      2.3
    """

    epoch: int
    """Passes done, from 1."""
    epochs: int
    loss: float
    """Mean cross-entropy of the pass, in nats."""
    accuracy: float
    """Share of training images with the right top-1, in training mode."""
    seconds: float


@contextlib.contextmanager
def reporter(
    epochs: int, done: int, report: Callable[[Epoch], None] | None
) -> Iterator[Callable[[Epoch], None]]:
    """What to call after each epoch: ``report``, else a progress bar on a terminal, else lines in the log."""
    console = Console(stderr=True)
    if report is not None:
        yield report
    elif not console.is_terminal:
        every = max(1, epochs // 10)

        def log(epoch: Epoch) -> None:
            if epoch.epoch % every == 0 or epoch.epoch == epochs:
                LOG.info(_line(epoch))

        yield log
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("training", total=epochs, completed=done)
            yield lambda epoch: bar.update(task, advance=1, description=_line(epoch))


def _line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.epoch}/{epoch.epochs}: loss {epoch.loss:.4f}, training accuracy "
        f"{100 * epoch.accuracy:.1f} %, {epoch.seconds:.1f} s"
    )
