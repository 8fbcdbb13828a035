"""From a composed config to what a construction takes: source, solver, images; errors name the field."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from omegaconf import DictConfig, ListConfig

from experiments.settings import SOLVERS, field, pairs_of, plain
from experiments.targets import data_of, spec_of, target_of
from slth import Rounded, Single, Solver, Source, Target, nn
from slth.construction.checks import check_widths
from slth.construction.presets import Inputs, Preset
from slth.construction.presets import check as check_preset
from slth.data import Data
from slth.nn.network import Network

IMAGES = 256
"""Training images for statistics, unless ``solver.calibration`` says another number."""
ROW_IMAGES = 512
"""The same for a solver of whole rows."""
GROUPS = ("compensation", "rounding")
"""Groups of options within ``solver``."""


def preset_of(construction: Mapping[str, Any]) -> Preset:
    """The preset that a file of the group ``construction`` describes."""
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list | ListConfig) else v for k, v in construction.items()
    }
    with field("construction"):
        unknown = set(given) ^ set(Preset._fields)
        if unknown:
            raise ValueError(f"its settings are {', '.join(Preset._fields)}, got {', '.join(given)}")
    return Preset(**given)


def inputs_of(data: Data) -> Inputs:
    """Whether no input of a network can be below 0, by the range before normalisation."""
    return "nonnegative" if float(((data.low - data.mean) / data.std).min()) >= 0 else "any"


def refuse_uncovered(cfg: DictConfig, target: Network, data: Data) -> None:
    """Refuse a target that the theorem of the group ``construction`` does not cover.

    Raises: ValueError that names a construction which covers it.
    """
    check_preset(preset_of(cfg.construction), target, inputs_of(data))


def _largest_input(data: Data) -> float:
    ends = np.abs((np.array([[data.low], [data.high]]) - data.mean) / data.std)
    return float(ends.max())


def source_of(cfg: DictConfig, target: Target, data: Data) -> Source:
    """The source of the group ``source``, wide enough for the target (`slth.Source.of`)."""
    asked, depth = plain(cfg.source), cfg.construction.depth
    images = None
    if depth == "2L" and len(data.train_images):  # activations may have to be seen to be bounded
        images = data.calibration(min(IMAGES, len(data.train_images)))
    scales = asked.pop("scales") or ()
    with field("source"):
        return Source.of(
            target,
            asked.pop("multiplicity"),
            asked.pop("seed"),
            depth=depth,
            images=images,
            reach=_largest_input(data),
            scales=pairs_of(scales),
            **asked,
        )


def solver_kind(solver: Mapping[str, Any]) -> type:
    """The class of the solver that ``method`` and ``objective`` name."""
    return SOLVERS[solver["method"]][solver["objective"]]


def options_of(solver: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a solver that are not null, by their names in the config."""
    given = {name: solver[name] for name in ("tolerance", "noise", "price", "means", "size", "bits")}
    given |= {f"{group}.{name}": value for group in GROUPS for name, value in solver[group].items()}
    return {name: value for name, value in given.items() if value is not None}


def solver_of(cfg: DictConfig) -> Solver:
    """The solver of the group ``solver``; an option that is not null must be one of its own."""
    asked = plain(cfg.solver)
    if cfg.construction.subset == "one":
        asked["objective"] = "single"
    kind = solver_kind(asked)
    if cfg.construction.subset == "one" and kind is not Single:
        raise ValueError(
            f"construction={cfg.construction.name} takes one variable for each weight: choose "
            "solver=independent"
        )
    if kind is Rounded and cfg.construction.depth != "2L":
        raise ValueError(
            "solver.method: rounded chooses among univariate channels, which L+1 has in front of its first "
            "layer only: choose construction.depth=2L"
        )
    known = [field.name for field in fields(kind)]
    options = {}
    for name, value in options_of(asked).items():
        option = name.rpartition(".")[2]
        if option not in known:
            raise ValueError(
                f"solver.{name}: means nothing to {kind.__name__}, whose options are {', '.join(known)}:"
                " leave it null"
            )
        options[option] = value
    with field("solver"):
        solver = kind(**options)
    if cfg.construction.depth == "L+1" and cfg.source.multiplicity > solver.most_copies:
        raise ValueError(
            f"source.multiplicity: at most {solver.most_copies} with {kind.__name__}, got"
            f" {cfg.source.multiplicity}"
        )
    return solver


def calibration_of(cfg: DictConfig, data: Data, solver: Solver) -> np.ndarray | None:
    """Training images for the solver's statistics, None where it needs none and none were asked for."""
    count = cfg.solver.calibration
    if count == 0 and solver.needs_images:
        raise ValueError(
            f"solver.calibration: {type(solver).__name__} needs training images: choose null or a number, or "
            "solver.objective=best, or solver.noise=fixed"
        )
    if count is None:
        if solver.needs_images and not len(data.train_images):
            raise ValueError(
                f"solver.calibration: {type(solver).__name__} needs training images, and data {data.name}"
                " have none: choose solver.objective=best, or solver.noise=fixed"
            )
        usual = ROW_IMAGES if solver.solves_rows else IMAGES
        count = min(usual, len(data.train_images)) if solver.needs_images else 0
    with field("solver.calibration"):
        return data.calibration(count) if count else None


def nonnegative_of(cfg: DictConfig) -> bool:
    """Whether the settings say that no input of the network is below 0."""
    return "nonnegative" in (cfg.construction.inputs, cfg.solver.inputs)


def construct_options(cfg: DictConfig) -> dict[str, Any]:
    """What the settings say of a construction beside its target, source, solver and images."""
    return {"fit": cfg.solver.fit, "nonnegative": nonnegative_of(cfg)}


class Ingredients(NamedTuple):
    """What a construction takes, and the data that it is measured on."""

    target: Target
    source: Source
    solver: Solver
    calibration: np.ndarray | None
    options: dict[str, Any]
    """Of `slth.construct`."""
    data: Data
    train_seconds: float | None


def rehearse(cfg: DictConfig, data: Data, solver: Solver, network: Network) -> None:
    """Refuse settings of source and solver that do not fit a network, before it is trained.

    Raises: ValueError.
    """
    untrained = Target.of(network, nn.init(network, jax.random.key(0)))
    check_widths(untrained, source_of(cfg, untrained, data), solver)


def ingredients_of(cfg: DictConfig, folder: Path, data: Data | None = None) -> Ingredients:
    """All that the settings ask for, a target in ``folder`` if it is trained; refusals come before that."""
    solver, data = solver_of(cfg), data_of(cfg) if data is None else data
    calibration = calibration_of(cfg, data, solver)
    network = spec_of(cfg, data)
    refuse_uncovered(cfg, network, data)
    if cfg.target.checkpoint is None:
        rehearse(cfg, data, solver, network)
    target, seconds = target_of(cfg, data, folder)
    source = source_of(cfg, target, data)
    return Ingredients(target, source, solver, calibration, construct_options(cfg), data, seconds)
