"""What a pass over the training images gave, and how it is told."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from slth.progress import bar, duration

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
    """Mean cross-entropy of the pass, in nats, or mean squared error."""
    accuracy: float | None
    """Share of training images with the right top-1, in training mode; None where labels are no classes."""
    seconds: float


LISTENER: ContextVar[Callable[[], Callable[[Epoch], None]] | None] = ContextVar("LISTENER", default=None)


@contextlib.contextmanager
def listened(start: Callable[[], Callable[[Epoch], None]]) -> Iterator[None]:
    """Whoever trains inside also tells a listener of each epoch.

    Args:
      start: called at the beginning of each training; gives what is called after its epochs.
    """
    token = LISTENER.set(start)
    try:
        yield
    finally:
        LISTENER.reset(token)


@contextlib.contextmanager
def reporter(
    epochs: int, done: int, report: Callable[[Epoch], None] | None
) -> Iterator[Callable[[Epoch], None]]:
    """What to call after each epoch: what `_shown` gives, and the listener where there is one."""
    start = LISTENER.get()
    with _shown(epochs, done, report) as tell:
        if start is None:
            yield tell
            return
        hear = start()

        def both(one: Epoch) -> None:
            tell(one)
            hear(one)

        yield both


@contextlib.contextmanager
def _shown(
    epochs: int, done: int, report: Callable[[Epoch], None] | None
) -> Iterator[Callable[[Epoch], None]]:
    """What to call after each epoch: ``report``, else a progress bar on a terminal, else lines in the log."""
    if report is not None:
        yield report
        return
    every = max(1, epochs // 10)
    with bar(epochs, done) as advance:

        def tell(one: Epoch) -> None:
            right = "" if one.accuracy is None else f"training accuracy {100 * one.accuracy:.1f} %, "
            line = f"epoch {one.epoch}/{epochs}: loss {one.loss:.4f}, {right}{one.seconds:.1f} s"
            if left := (epochs - one.epoch) * one.seconds:
                line += f", about {duration(left)} left"
            if advance is not None:
                advance(line)
            elif one.epoch % every == 0 or one.epoch == epochs:
                LOG.info(line)

        yield tell
