"""From a composed config to values of slth: data, target, source, solver; errors name the field."""

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from experiments.run_folder import content_hashes, digest
from slth import Best, Compensated, Robust, Rounded, Single, Smallest, Solver, Source, Target
from slth.certificate.prove import Method
from slth.coding.rounded import MOST_MEMBERS
from slth.construction.presets import Depth, Inputs, Preset, Subset
from slth.construction.presets import check as check_preset
from slth.construction.solvers import Noise
from slth.data import Data, load
from slth.data.archive import LAYOUTS
from slth.interop import load_checkpoint
from slth.nn.network import Network
from slth.nn.zoo import BUILDERS, build
from slth.source.source import Biases, Init
from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES
from slth.train import SETTINGS, TARGET, Settings, train

IMAGES = 256
"""Training images for statistics, unless ``solver.calibration`` says another number."""
ROW_IMAGES = 512
"""The same for a solver of whole rows."""
INDEPENDENT: dict[str, type] = {"smallest": Smallest, "best": Best, "robust": Robust, "single": Single}
SOLVERS = {
    "independent": INDEPENDENT,
    "compensated": dict.fromkeys(INDEPENDENT, Compensated),
    "rounded": dict.fromkeys(INDEPENDENT, Rounded),
}
"""By ``solver.method`` and ``solver.objective``."""
GROUPS = ("compensation", "rounding")
"""Groups of options within ``solver``."""

# Least and largest value of the numbers in a config; a None is allowed where the YAML files have one.
INTEGERS = {
    "data.limit": (1, math.inf),
    "data.train_limit": (1, math.inf),
    "data.classes": (1, math.inf),
    "source.multiplicity": (1, MAX_VARIABLES),
    "source.seed": (0, 2**64 - 1),
    "source.univariate": (1, math.inf),
    "source.constants": (0, math.inf),
    "solver.size": (0, MAX_ENUMERATED),
    "solver.calibration": (0, math.inf),
    "solver.compensation.sweeps": (0, math.inf),
    "solver.compensation.block": (1, MAX_ENUMERATED),
    "solver.compensation.positions": (1, math.inf),
    "solver.rounding.variables": (1, MOST_MEMBERS),
    "train.seed": (0, 2**32 - 1),
    "refine.steps": (0, math.inf),
    "refine.batch": (1, math.inf),
    "refine.images": (2, math.inf),
    "evaluation.batch": (1, math.inf),
    "evaluation.layers": (1, math.inf),
    "certificate.images": (1, math.inf),
}
CHOICES = {
    "data.layout": LAYOUTS,
    "source.init": get_args(Init),
    "source.biases": get_args(Biases),
    "source.skip": ("carried", "random"),
    "source.univariate_signs": ("random", "positive"),
    "solver.method": tuple(SOLVERS),
    "solver.objective": tuple(SOLVERS["independent"]),
    "solver.noise": get_args(Noise),
    "solver.inputs": ("signed", "nonnegative"),
    "construction.depth": get_args(Depth),
    "construction.subset": get_args(Subset),
    "construction.inputs": get_args(Inputs),
    "certificate.method": get_args(Method),
}
NUMBERS = (
    "source.scale",
    "source.bias_scale",
    "source.target_scale",
    "source.presence",
    "solver.tolerance",
    "solver.price",
    "solver.bits",
    "solver.fit",
    "refine.rate",
    "certificate.radius",
    "certificate.epsilon",
    "certificate.delta",
)


@contextmanager
def field(name: str) -> Iterator[None]:
    """Errors of bad input inside say which field of the config they are about."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        text = str(error)
        raise ValueError(text if text.startswith(f"{name.split('.')[0]}.") else f"{name}: {text}") from error


def check(cfg: DictConfig) -> None:
    """Refuse numbers of the wrong kind or size and words that are not known, naming the field.

    Raises: ValueError.
    """
    for name, (low, high) in INTEGERS.items():
        value = OmegaConf.select(cfg, name)
        if value is None:
            continue
        if type(value) is not int or not low <= value <= high:
            bound = f" of at least {low}" if math.isinf(high) else f" from {low} to {high}"
            raise ValueError(f"{name}: expected an integer{bound}, got {value!r}")
    for name in NUMBERS:
        value = OmegaConf.select(cfg, name)
        if value is not None and (type(value) not in (int, float) or not 0 < value < math.inf):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    own = OmegaConf.select(cfg, "source.own_biases")
    if own not in (None, True, False):
        raise ValueError(f"source.own_biases: expected true, false or null, got {own!r}")
    scales = OmegaConf.select(cfg, "source.scales")
    if scales is not None and not OmegaConf.is_config(scales):
        raise ValueError(f"source.scales: expected a mapping of patterns to numbers, got {scales!r}")
    for name, known in CHOICES.items():
        value = OmegaConf.select(cfg, name)
        if value is not None and value not in known:
            raise ValueError(f"{name}: {value!r} is unknown: choose one of {', '.join(known)}")


class Trained(NamedTuple):
    """A target, and how it came about."""

    target: Target
    seconds: float | None
    """Time that training took; None where a checkpoint was loaded."""


def data_of(cfg: DictConfig) -> Data:
    """The data set of the groups ``data`` and ``target`` (a published target has its own normalisation)."""
    data, target = cfg.data, cfg.get("target") or {}
    mean, std = (data[key] if data[key] is not None else target.get(key) for key in ("mean", "std"))
    with field("data.dir" if data.name in ("mnist", "cifar10", "npz") else "data"):
        return load(
            data.name,
            data.dir,
            limit=data.limit,
            train_limit=data.train_limit,
            mean=mean,
            std=std,
            layout=data.get("layout"),
            classes=data.get("classes"),
        )


def spec_of(cfg: DictConfig, data: Data) -> Network:
    """The spec of the target, with batch norm."""
    known = ("name", "checkpoint", "mean", "std")
    options = {k: v for k, v in _plain(cfg.target).items() if k not in known and v is not None}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    with field("target"):
        if cfg.target.name not in BUILDERS:
            raise ValueError(f"{cfg.target.name!r} is unknown: choose one of {', '.join(BUILDERS)}")
        return build(cfg.target.name, data.shape, data.classes, **options)


def target_of(cfg: DictConfig, data: Data, folder: Path) -> Trained:
    """The target, from its checkpoint or trained; a trained one leaves its checkpoint in ``folder``.

    A training goes on where it was broken off, and all runs under one ``output_dir`` that ask for the same
    target, data and training share it.
    """
    network = spec_of(cfg, data)
    if cfg.target.checkpoint is not None:
        with field("target.checkpoint"):
            params, seconds = load_checkpoint(cfg.target.checkpoint, network), None
    else:
        started = time.perf_counter()
        chosen = {k: v for k, v in _plain(cfg.train).items() if v is not None}
        asked = {"target": _plain(cfg.target), "data": _plain(cfg.data), "train": chosen}
        asked["data"]["limit"] = None  # of test images
        if files := content_hashes(cfg):
            asked["files"] = files
        kept = Path(cfg.output_dir).expanduser().resolve() / "target" / digest(asked)
        with field("train"):
            settings = Settings(**{**vars(SETTINGS[data.name]), **chosen})
            params = train(network, data, settings, folder=kept).params
        shutil.copyfile(kept / TARGET, folder / TARGET)
        seconds = time.perf_counter() - started
    return Trained(Target.of(network, params), seconds)


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
    """Whether no input of a network can be below 0: pixels are in [0, 1] before normalisation."""
    return "nonnegative" if float(((0.0 - data.mean) / data.std).min()) >= 0 else "any"


def refuse_uncovered(cfg: DictConfig, target: Network, data: Data) -> None:
    """Refuse a target that the theorem of the group ``construction`` does not cover.

    Raises: ValueError that names a construction which covers it.
    """
    check_preset(preset_of(cfg.construction), target, inputs_of(data))


def _largest_input(data: Data) -> float:
    ends = np.abs((np.array([[0.0], [1.0]]) - data.mean) / data.std)  # pixels are in [0, 1]
    return float(ends.max())


def source_of(cfg: DictConfig, target: Target, data: Data) -> Source:
    """The source of the group ``source``, wide enough for the target (`slth.Source.of`)."""
    asked, depth = _plain(cfg.source), cfg.construction.depth
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
            scales=_patterns(scales),
            **asked,
        )


def _patterns(scales: Any) -> Any:
    """A mapping of patterns or a list of pairs as sources take them; `slth.Source` refuses all else."""
    if isinstance(scales, dict):
        return {str(pattern): factor for pattern, factor in scales.items()}
    return tuple(tuple(pair) if isinstance(pair, list) else pair for pair in scales)


def solver_kind(solver: Mapping[str, Any]) -> type:
    """The class of the solver that ``method`` and ``objective`` name."""
    return SOLVERS[solver["method"]][solver["objective"]]


def options_of(solver: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a solver that are not null, by their names in the config."""
    given = {name: solver[name] for name in ("tolerance", "noise", "price", "size", "bits")}
    given |= {f"{group}.{name}": value for group in GROUPS for name, value in solver[group].items()}
    return {name: value for name, value in given.items() if value is not None}


def solver_of(cfg: DictConfig) -> Solver:
    """The solver of the group ``solver``; an option that is not null must be one of its own."""
    asked = _plain(cfg.solver)
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


def ingredients_of(cfg: DictConfig, folder: Path) -> Ingredients:
    """All that the settings ask for, a target in ``folder`` if it is trained; refusals come before that."""
    solver, data = solver_of(cfg), data_of(cfg)
    calibration = calibration_of(cfg, data, solver)
    refuse_uncovered(cfg, spec_of(cfg, data), data)
    target, seconds = target_of(cfg, data, folder)
    source = source_of(cfg, target, data)
    options = {"fit": float(cfg.solver.fit), "nonnegative": nonnegative_of(cfg)}
    return Ingredients(target, source, solver, calibration, options, data, seconds)


def _plain(cfg: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}
