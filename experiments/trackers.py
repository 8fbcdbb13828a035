"""Programs that show runs beside each other: each is a class that takes what a run has to say.

A name such as ``subset_sum/unsolved`` has its group before the slash.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

EXTRAS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that each tracker needs; the extra has the tracker's name."""
NAMES = ("none", *EXTRAS)


class Tracker(Protocol):
    """What a run tells, in this order; any of it may be told several times but the first and the last."""

    def config(self, values: Mapping[str, Any]) -> None:
        """The settings, by their dotted names."""
        ...

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """Numbers by name; with a step, the points of curves."""
        ...

    def picture(self, path: Path) -> None:
        """A figure in a PNG file."""
        ...

    def end(self, finished: bool) -> None:
        """Nothing more comes."""
        ...


class TensorBoard:
    """Event files in ``dir/EXPERIMENT/HASH``, written by tensorboardX, which needs no TensorFlow."""

    def __init__(self, settings: Mapping[str, Any], experiment: str, label: str) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(Path(settings["dir"]).expanduser() / experiment / label))

    def config(self, values: Mapping[str, Any]) -> None:
        """As a table in the tab of texts."""
        rows = (f"| {name} | {value} |" for name, value in values.items())
        self._writer.add_text("config", "\n".join(["| setting | value |", "| --- | --- |", *rows]))

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """As scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step or 0)
        self._writer.flush()

    def picture(self, path: Path) -> None:
        """As an image."""
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(
                f"figures/{path.stem}", np.asarray(image.convert("RGB")), dataformats="HWC"
            )

    def end(self, finished: bool) -> None:
        """Close the file."""
        self._writer.close()


class Mlflow:
    """A run in the experiment ``project`` of a store: a file of SQLite, or a server."""

    def __init__(self, settings: Mapping[str, Any], experiment: str, label: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = importlib.import_module("mlflow")

        uri, project, artifacts = settings["uri"], settings["project"], settings["artifacts"]
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._client = mlflow.MlflowClient(uri)
        known = self._client.get_experiment_by_name(project)
        place = None if artifacts is None else Path(artifacts).expanduser().resolve().as_uri()
        group = self._client.create_experiment(project, place) if known is None else known.experiment_id
        name = f"{experiment}/{label}"
        self._run = self._client.create_run(group, run_name=name, tags={"experiment": experiment}).info.run_id

    def config(self, values: Mapping[str, Any]) -> None:
        """As parameters."""
        for name, value in values.items():
            self._client.log_param(self._run, _allowed(name), value)

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """As metrics."""
        for name, value in values.items():
            self._client.log_metric(self._run, _allowed(name), value, step=step or 0)

    def picture(self, path: Path) -> None:
        """As an artifact."""
        self._client.log_artifact(self._run, str(path), "figures")

    def end(self, finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")


def _allowed(name: str) -> str:
    """The name in the letters that MLflow allows."""
    return re.sub(r"[^\w\-./: ]", "_", name)


class Wandb:
    """A run of Weights & Biases; offline it is a folder ``wandb/offline-run-...`` in ``dir``."""

    def __init__(self, settings: Mapping[str, Any], experiment: str, label: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = importlib.import_module("wandb")

        folder = Path(settings["dir"]).expanduser()
        folder.mkdir(parents=True, exist_ok=True)  # else it takes the system's folder of temporary files
        self._wandb, self._steps = wandb, set()
        self._run = wandb.init(
            project=settings["project"],
            mode=settings["mode"],
            dir=str(folder),
            name=f"{experiment}/{label}",
            job_type=experiment,
            reinit="create_new",  # a sweep has a run of its own beside its points'
            settings=wandb.Settings(console="off", silent=True),
        )

    def config(self, values: Mapping[str, Any]) -> None:
        """As the run's config."""
        self._run.config.update(dict(values))

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """In the summary, or as curves over the step of their group."""
        if step is None:
            self._run.summary.update(dict(values))
            return
        group = next(iter(values)).partition("/")[0]
        if group not in self._steps:
            self._steps.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({**values, f"{group}/step": step})

    def picture(self, path: Path) -> None:
        """As an image."""
        self._run.log({f"figures/{path.stem}": self._wandb.Image(str(path))})

    def end(self, finished: bool) -> None:
        """Say how the run ended."""
        self._run.finish(exit_code=0 if finished else 1)


OPEN: dict[str, Callable[[Mapping[str, Any], str, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}


def check_package(name: str) -> None:
    """Refuse a tracker whose package is not installed, and a name that is none.

    Raises: ValueError with the extra that brings it.
    """
    if name not in NAMES:
        raise ValueError(f"tracker.name: {name!r} is unknown: choose one of {', '.join(NAMES)}")
    if name in EXTRAS and importlib.util.find_spec(EXTRAS[name]) is None:
        raise ValueError(
            f'tracker={name} needs the package {EXTRAS[name]}: pip install -e ".[{name}]", or tracker=none'
        )
