"""Checks of a composed config: numbers in range, words that are known; errors name the field."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from experiments.evaluation import FORMS
from experiments.names import names_of, unknown
from slth import Best, Compensated, Robust, Rounded, Single, Smallest
from slth.certificate.prove import Method
from slth.coding.rounded import MOST_MEMBERS
from slth.construction.presets import Depth, Inputs, Subset
from slth.construction.solvers import Noise
from slth.data.npz import LAYOUTS
from slth.source.source import Biases, Init
from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES
from slth.types import Task

INDEPENDENT: dict[str, type] = {"smallest": Smallest, "best": Best, "robust": Robust, "single": Single}
SOLVERS = {
    "independent": INDEPENDENT,
    "compensated": dict.fromkeys(INDEPENDENT, Compensated),
    "rounded": dict.fromkeys(INDEPENDENT, Rounded),
}
"""By ``solver.method`` and ``solver.objective``."""

# Least and largest value of the numbers in a config; a None is allowed where the YAML files have one.
INTEGERS = {
    "data.limit": (1, math.inf),
    "data.train_limit": (1, math.inf),
    "data.seed": (0, 2**32 - 1),
    "data.classes": (1, math.inf),
    "data.resize": (1, math.inf),
    "data.crop": (1, math.inf),
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
    "solver.rounding.constants": (0, math.inf),
    "train.seed": (0, 2**32 - 1),
    "refine.steps": (0, math.inf),
    "refine.batch": (1, math.inf),
    "refine.images": (2, math.inf),
    "evaluation.batch": (1, math.inf),
    "evaluation.layers": (1, math.inf),
    "evaluation.images": (1, math.inf),
    "certificate.images": (1, math.inf),
}
CHOICES = {
    "data.layout": LAYOUTS,
    "data.task": get_args(Task),
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
    "evaluation.form": FORMS,
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


REQUIRED = (
    *(f"source.{name}" for name in ("multiplicity", "seed", "init", "presence", "biases", "skip")),
    *("source.univariate_signs", "solver.method", "solver.objective", "construction.depth"),
    *("refine.steps", "evaluation.batch", "evaluation.layers", "train.seed"),
    "evaluation.form",
)
"""Settings that cannot be null."""


GROUPS = ("solver", "source", "certificate")
"""Groups whose settings are all in their ``base.yaml``."""


@cache
def _known(group: str) -> tuple[str, ...]:
    """The settings of a group by their names in the config; those of settings within settings too."""
    path = Path(__file__).resolve().parent.parent / "conf" / group / "base.yaml"
    return tuple(names_of(OmegaConf.to_container(OmegaConf.load(path)), group))


def _check_names(cfg: DictConfig) -> None:
    """Refuse a setting that was appended (``+solver.sweeps=2``) and that nothing reads.

    Raises: ValueError, naming the setting that may have been meant.
    """
    for group in GROUPS:
        own, known = OmegaConf.select(cfg, group), _known(group)
        for name in names_of(plain(own), group) if OmegaConf.is_dict(own) else ():
            if name in known or name.startswith("source.scales."):  # which has names of layers
                continue
            raise ValueError(unknown(name, known))


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
    _check_names(cfg)
    for name in REQUIRED:
        if OmegaConf.select(cfg, name, default=name) is None:
            raise ValueError(f"{name}: expected a value, got null")
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
    for name in ("data.low", "data.high", "certificate.low", "certificate.high"):
        value = OmegaConf.select(cfg, name)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{name}: expected a number, got {value!r}")
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


def plain(cfg: Any) -> dict[str, Any]:
    """A group of the config as a dict of plain values."""
    values = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}


def pairs_of(given: Any) -> tuple:
    """A mapping or a list of pairs as pairs; whoever takes them refuses all else."""
    if isinstance(given, dict):
        return tuple((str(name), value) for name, value in given.items())
    return tuple(tuple(pair) if isinstance(pair, list) else pair for pair in given)
