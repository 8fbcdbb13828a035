"""Progress of long work: as a bar where there is a terminal, else as lines in the log; rate and time left."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG = logging.getLogger(__name__)
EACH = 30.0
"""Seconds between two lines of the log."""
SOON = 5.0
"""Seconds within which work ends that is not worth a line on the way."""


@contextmanager
def bar(total: int, done: int = 0) -> Iterator[Callable[[str], None] | None]:
    """What moves a bar on standard error on by one, with a text beside it; None where that is no terminal."""
    with _shown(total, done) as (shown, task):
        yield None if shown is None else lambda text: shown.update(task, advance=1, description=text)


@contextmanager
def _shown(total: int, done: int = 0) -> Iterator[tuple[Progress | None, TaskID]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None, TaskID(0)
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        yield shown, shown.add_task("", total=total, completed=done)


@dataclass
class Pace:
    """How fast work goes. Its first part is not timed: it compiles."""

    total: int
    unit: str
    """What is counted, such as images."""
    timed_from: tuple[int, float] | None = None
    """What was done, and when, where timing began."""
    rate: float | None = None
    """How much is done in a second."""

    def reach(self, done: int) -> None:
        """So much is done now."""
        now = time.monotonic()
        if self.timed_from is None:
            self.timed_from = done, now
        elif done > self.timed_from[0]:
            self.rate = (done - self.timed_from[0]) / max(now - self.timed_from[1], 1e-9)

    def left(self, done: int) -> float | None:
        """Seconds that the rest takes at this rate; None while there is none."""
        return None if self.rate is None else (self.total - done) / self.rate

    def text(self, done: int) -> str:
        """The rate and the time left in words."""
        left = self.left(done)
        return "" if left is None else f"{self.rate:,.3g} {self.unit}/s, about {duration(left)} left"


@contextmanager
def paced(
    what: str, total: int, unit: str, say: Callable[[str], None] = LOG.info
) -> Iterator[Callable[..., None]]:
    """What is told how far long work is: how much is done, how much of it before this process, and a text.

    A bar on a terminal. Else, where it takes longer than seconds, a line as soon as the rate is known, one
    every half minute, and one at the end.

    Args:
      what: is done, in a word.
      total: of it.
      unit: in which it is counted.
      say: takes the lines.
    """
    pace, begun, due = Pace(total, unit), time.monotonic(), 0.0
    reached = taken_over = 0
    begun_here = told_once = False

    def begin() -> None:
        nonlocal begun_here
        if taken_over and not begun_here:
            say(f"{what}: took over {taken_over:,} of {total:,} {unit} from a run that was broken off")
        begun_here = True

    with _shown(total) as (shown, task):

        def tell(done: int, before: int, text: str = "") -> None:
            nonlocal due, reached, taken_over, told_once
            reached, taken_over = done, before
            if done > before:
                begin()
                pace.reach(done)
            told = ", ".join(filter(None, (text, pace.text(done))))
            if shown is not None:
                shown.update(task, completed=done, description=f"{what} {told}")
            elif (left := pace.left(done)) is not None and left > SOON and time.monotonic() >= due:
                say(f"{what}: {done:,}/{total:,} {unit}, {told}")
                due, told_once = time.monotonic() + EACH, True

        yield tell
    begin()
    if told_once:
        say(f"{what}: {reached - taken_over:,} {unit} in {duration(time.monotonic() - begun)}")


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.31), duration(42.3), duration(312), duration(8000)
    ('0.3 s', '42 s', '5 min 12 s', '2 h 13 min')
    """
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
