"""Finished run folders, read and checked; also while others are written beside them."""

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.contract import CONTRACT, breach

PASSED_OVER = ("collect",)
"""Experiments whose folders hold no measurement."""


class Run(NamedTuple):
    """A finished run."""

    experiment: str
    name: str
    """Of its folder: the hash of its settings."""
    folder: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Experiment and hash."""
        return f"{self.experiment}/{self.name}"


class Found(NamedTuple):
    """What some folders hold."""

    runs: list[Run]
    unfinished: list[Path]
    broken: dict[Path, str]
    """What is wrong with a folder that is not read."""
    again: dict[Path, Path]
    """Copies of a run that was already read, and where that is."""


def read(folders: Sequence[str | Path]) -> Found:
    """The runs in and below some folders, in the order of their paths.

    Raises: ValueError for a folder that is not there.
    """
    found, known = Found([], [], {}, {}), {}
    for given in folders:
        root = Path(given).expanduser()
        if not root.is_dir():
            raise ValueError(f"runs: {given} is no folder: name the output_dir of some runs, or a run folder")
        for folder in _run_folders(root.resolve()):
            experiment, name = folder.parent.name, folder.name
            if experiment in PASSED_OVER or name.endswith(".old") or folder in known.values():
                continue
            if name.startswith(".") or not (folder / "metrics.json").exists():
                found.unfinished.append(folder)
                continue
            try:
                run = read_run(folder)
            except FileNotFoundError:  # it is being done anew
                found.unfinished.append(folder)
            except (ValueError, OSError) as error:
                found.broken[folder] = " ".join(str(error).split())
            else:
                if run.key in known:
                    found.again[folder] = known[run.key]
                else:
                    known[run.key] = folder
                    found.runs.append(run)
    return found


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a ``config.yaml`` or a ``metrics.json``; what is inside one is its own."""
    for here, below, files in os.walk(root):
        if "config.yaml" in files or "metrics.json" in files:
            below.clear()
            yield Path(here)
        below.sort()


def read_run(folder: Path, experiment: str | None = None) -> Run:
    """One run, checked against the contract of its experiment.

    Args:
      folder: with ``config.yaml`` and ``metrics.json``.
      experiment: by default what the folder around it is called, which must be an experiment of ours.

    Raises: ValueError that says how it breaks the contract; OSError for files that cannot be read.
    """
    if experiment is None:
        experiment = folder.parent.name
        if experiment not in CONTRACT:
            raise ValueError(f"{experiment!r}, the folder around it, is no experiment")
    settings = _settings(folder / "config.yaml")
    try:
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"), parse_constant=_refuse)
    except ValueError as error:  # of JSON, of UTF-8, and of NaN
        raise ValueError(f"metrics.json is not strict JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("metrics.json is nested too deep") from error
    wrong = breach(experiment, metrics)
    if wrong is not None:
        raise ValueError(wrong)
    return Run(experiment, folder.name, folder, settings, metrics)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON, where null stands for it")


def _settings(path: Path) -> dict[str, Any]:
    try:
        plain = yaml.load(path.read_text("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"config.yaml cannot be read: {error}") from error
    if not isinstance(plain, dict):
        raise ValueError("config.yaml holds no settings")
    return {str(key): value for key, value in plain.items()}


class _Loader(yaml.SafeLoader):
    """YAML as Hydra reads it: 1e-05 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.[\d_]*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested tables by dotted name; lists are leaves, and so are empty tables."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flat(value, f"{name}.")
        else:
            leaves[name] = value
    return leaves


def numbers(run: Run) -> dict[str, Any]:
    """All single values of a run's metrics by dotted name; what is not finite is None."""
    leaves = {k: v for k, v in flat(run.metrics).items() if not isinstance(v, list | dict)}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in leaves.items()}


def rows_of(run: Run) -> Iterator[dict[str, Any]]:
    """The rows that a run's metrics hold as lists, such as the points of a sweep."""
    for part, value in run.metrics.items():
        if isinstance(value, list):
            for number, row in enumerate(value):
                if isinstance(row, Mapping):
                    yield {"part": part, "row": number, **flat(row)}


def filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the columns that nothing fills."""
    known = {name for row in rows for name, value in row.items() if value is not None}
    return [{name: value for name, value in row.items() if name in known} for row in rows]


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, numbers as numbers and empty cells as None; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: _cell(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _cell(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None
