"""What a run tells a tracker: its settings, curves, numbers and figures; a tracker that fails loses no run.

@tracked("ticket")
def run(cfg, folder):
...
return metrics
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.contract import is_number
from experiments.run_folder import folder_of, settings
from experiments.runs import flat, table
from experiments.trackers import OPEN, Tracker, check_package
from slth.train.progress import Epoch, listened

LOG = logging.getLogger(__name__)
LAYERS = "layers.csv"
"""The table whose columns are curves over the layers, from the input to the output."""

Run = Callable[[DictConfig, Path], dict[str, Any]]


def tracked(experiment: str) -> Callable[[Run], Run]:
    """A run that also tells the tracker of its config, group ``tracker``.

    Args:
      experiment: the name under which its run folders lie.
    """

    def decorate(run: Run) -> Run:
        @wraps(run)
        def told(cfg: DictConfig, folder: Path) -> dict[str, Any]:
            chosen = cfg.get("tracker") or {"name": "none"}
            check_package(chosen["name"])
            if chosen["name"] == "none":
                return run(cfg, folder)
            listener = Listener(
                lambda: OPEN[chosen["name"]](chosen, experiment, folder_of(cfg, experiment).name)
            )
            listener.tell(lambda tracker: tracker.config(flat_config(cfg, experiment)))
            finished = False
            try:
                with listened(listener.training):
                    metrics = run(cfg, folder)
                listener.results(metrics, folder)
                finished = True
            finally:
                listener.tell(lambda tracker: tracker.end(finished))
            return metrics

        return told

    return decorate


class Listener:
    """A tracker that is asked no more after it has failed once.

    Args:
      opener: what starts it.
    """

    def __init__(self, opener: Callable[[], Tracker]) -> None:
        self._tracker: Tracker | None = None
        self._trainings = 0
        self._guarded(lambda: setattr(self, "_tracker", opener()))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a server, a disk or a package does: the run is worth more
            said = " ".join(str(error).split()) or type(error).__name__
            LOG.warning("the tracker failed and is told no more; the run goes on: %s", said)
            self._tracker = None

    def tell(self, action: Callable[[Tracker], None]) -> None:
        """Do something with the tracker, if it still works."""
        tracker = self._tracker
        if tracker is not None:
            self._guarded(lambda: action(tracker))

    def training(self) -> Callable[[Epoch], None]:
        """What hears of the epochs of one training; each has curves of its own."""
        self._trainings += 1
        group = "training" if self._trainings == 1 else f"training_{self._trainings}"

        def hear(epoch: Epoch) -> None:
            values = {"loss": epoch.loss, "accuracy": epoch.accuracy, "seconds": epoch.seconds}
            own = {f"{group}/{name}": value for name, value in values.items() if value is not None}
            self.tell(lambda tracker: tracker.numbers(own, epoch.epoch))

        return hear

    def results(self, metrics: Mapping[str, Any], folder: Path) -> None:
        """The numbers of ``metrics.json``, the columns of `LAYERS` and the figures."""
        numbers = dict(scalars(metrics))
        if numbers:
            self.tell(lambda tracker: tracker.numbers(numbers, None))
        for step, row in enumerate(layer_numbers(folder / LAYERS)):
            self.tell(lambda tracker, row=row, step=step: tracker.numbers(row, step))
        for path in sorted(folder.glob("*.png")):
            self.tell(lambda tracker, path=path: tracker.picture(path))


def flat_config(cfg: DictConfig, experiment: str) -> dict[str, Any]:
    """The settings by their dotted names, and the folder in which the run ends."""
    leaves = {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in flat(settings(cfg)).items()
    }
    return {**leaves, "folder": str(folder_of(cfg, experiment))}


def scalars(metrics: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers, and whether, of nested metrics, by names with slashes."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{before}{name}/")
        elif getattr(value, "ndim", None) == 0 or isinstance(value, bool | int | float):
            number = float(value)
            if math.isfinite(number):
                yield f"{before}{name}" if before else f"metrics/{name}", number


def layer_numbers(path: Path) -> Iterator[dict[str, float]]:
    """The finite numbers of each layer."""
    for row in table(path):
        numbers = {
            f"layers/{name}": float(value)
            for name, value in row.items()
            if is_number(value) and math.isfinite(value)
        }
        if numbers:
            yield numbers
