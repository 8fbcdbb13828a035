"""From a composed config to values of slth: data, target, source, solver; errors name the field."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from slth import nn
from slth.certificate.network import Method
from slth.construct import Solver
from slth.construct.compensate import Compensation
from slth.construct.layout import first_activation, first_info, source_network
from slth.construct.presets import Depth, Inputs, Preset, Subset
from slth.construct.presets import check as check_preset
from slth.construct.scale import with_target_scales
from slth.construct.univariate import Range, input_ranges, smaller_slope, with_small_alpha
from slth.data import Data, load
from slth.interop import load_checkpoint
from slth.nn.network import Network
from slth.nn.zoo import BUILDERS, build
from slth.source import Biases, Init, Source, parameter_shapes
from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES
from slth.train import SETTINGS, TARGET, Settings, train
from slth.types import Params

CALIBRATION = {"independent": 256, "compensated": 512}
"""Training images for a method that needs some, unless ``solver.calibration`` says another number."""

# Products of two random numbers miss more than uniform ones do, so what is built from them (the first layer
# and the biases) has twice the variables of other problems, and no fewer than these where m is small.
LEAST_UNIVARIATE = 16
LEAST_CONSTANTS = 24

# Where phi is no cone, no channel can be scaled to fit: a wider source (times 1 / mu, as are the weights that
# training finds behind a flat phi), and more constants for larger biases.
SMOOTH_SCALE, SMOOTH_BIAS_SCALE, SMOOTH_CONSTANTS = 1.5, 12.0, 60

# Least and largest value of the numbers in a config; a None is allowed where the YAML files have one.
INTEGERS = {
    "data.limit": (1, math.inf),
    "data.train_limit": (1, math.inf),
    "source.multiplicity": (1, MAX_VARIABLES),
    "source.seed": (0, 2**64 - 1),
    "source.univariate": (1, math.inf),
    "source.constants": (0, math.inf),
    "solver.size": (0, MAX_ENUMERATED),
    "solver.calibration": (0, math.inf),
    "solver.compensation.sweeps": (1, math.inf),
    "solver.compensation.block": (1, MAX_ENUMERATED),
    "solver.compensation.positions": (1, math.inf),
    "train.seed": (0, 2**32 - 1),
    "evaluation.batch": (1, math.inf),
    "evaluation.layers": (1, math.inf),
    "certificate.images": (1, math.inf),
}
CHOICES = {
    "source.init": get_args(Init),
    "source.biases": get_args(Biases),
    "source.skip": ("carried", "random"),
    "solver.method": ("independent", "compensated"),
    "solver.objective": ("smallest", "best", "robust", "single"),
    "solver.noise": ("propagated", "measured", "fixed"),
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
    "solver.fit",
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


class Target(NamedTuple):
    """A target as the construction reads it: batch norm folded."""

    name: str
    network: Network
    params: Params
    seconds: float | None
    """Time that training took; None where a checkpoint was loaded."""


def data_of(cfg: DictConfig) -> Data:
    """The data set of the groups ``data`` and ``target`` (a published target has its own normalisation)."""
    data, target = cfg.data, cfg.get("target") or {}
    mean, std = (data[key] if data[key] is not None else target.get(key) for key in ("mean", "std"))
    with field("data.dir" if data.name in ("mnist", "cifar10", "npz") else "data"):
        return load(data.name, data.dir, limit=data.limit, train_limit=data.train_limit, mean=mean, std=std)


def spec_of(cfg: DictConfig, data: Data) -> Network:
    """The spec of the target, with batch norm."""
    known = ("name", "checkpoint", "mean", "std")
    options = {k: v for k, v in _plain(cfg.target).items() if k not in known and v is not None}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    with field("target"):
        if cfg.target.name not in BUILDERS:
            raise ValueError(f"{cfg.target.name!r} is unknown: choose one of {', '.join(BUILDERS)}")
        return build(cfg.target.name, data.shape, data.classes, **options)


def target_of(cfg: DictConfig, data: Data, folder: Path) -> Target:
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
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        kept = Path(cfg.output_dir).expanduser().resolve() / "target" / name
        with field("train"):
            settings = Settings(**{**vars(SETTINGS[data.name]), **chosen})
            params = train(network, data, settings, folder=kept).params
        shutil.copyfile(kept / TARGET, folder / TARGET)
        seconds = time.perf_counter() - started
    folded, folded_params = nn.fold_batch_norm(network, params)
    return Target(cfg.target.name, folded, folded_params, seconds)


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
    """Refuse a target that the theorem of the group ``construction`` does not cover, and certificates of 2L.

    Raises: ValueError that names a construction which covers it.
    """
    preset = preset_of(cfg.construction)
    check_preset(preset, target, inputs_of(data))
    if preset.depth == "2L" and cfg.certificate.name != "off":
        raise ValueError(
            f"certificate: {cfg.certificate.name} bounds tickets of L+1 layers: choose certificate=off, or"
            " construction.depth=L+1"
        )


def _largest_input(data: Data) -> float:
    ends = np.abs((np.array([[0.0], [1.0]]) - data.mean) / data.std)  # pixels are in [0, 1]
    return float(ends.max())


def ranges_of(cfg: DictConfig, target: Target, data: Data) -> dict[str, Range]:
    """What the source of 2L must know of the target's activations where phi is no cone: their ranges.

    Those that no bounded activation gives are seen on training images.
    """
    if cfg.construction.depth != "2L" or first_info(target.network).homogeneous:
        return {}
    count = min(CALIBRATION["independent"], len(data.train_images))
    reach = _largest_input(data)
    images = data.calibration(count) if count else np.full((1, *data.shape), reach, np.float32)
    found = input_ranges(target.network, target.params, jnp.asarray(images), reach)
    if not count and not all(one.exact for one in found.values()):
        raise ValueError(
            f"construction.depth: 2L takes the ranges of {first_activation(target.network).kind} from training"
            f" images, and data {data.name} have none: choose construction.depth=L+1"
        )
    return found


def source_of(
    cfg: DictConfig, target: Network, data: Data, ranges: Mapping[str, Range] | None = None
) -> Source:
    """The source of the group ``source``, wide enough for the target, whose weights it does not know.

    What is null depends on the activation, and on the range of the images where that is not homogeneous; in
    2L on all ``ranges`` (`ranges_of`).
    """
    asked, m = cfg.source, cfg.source.multiplicity
    if cfg.construction.depth == "2L" and asked.constants not in (None, 0):
        raise ValueError(
            f"source.constants: {asked.constants} is of L+1; in 2L univariate layers have twice as many"
            " constants as channels of an input and sign, at most 64: choose null, or 0 for none"
        )
    info = first_info(target)
    scale, bias_scale, least = (
        (1.0, 4.0, max(2 * m, LEAST_CONSTANTS))
        if info.homogeneous
        else (SMOOTH_SCALE / smaller_slope(info), SMOOTH_BIAS_SCALE, max(4 * m, SMOOTH_CONSTANTS))
    )
    network = source_network(
        target,
        m,
        copies_per_sign=max(2 * m, LEAST_UNIVARIATE) if asked.univariate is None else asked.univariate,
        constants=least if asked.constants is None else asked.constants,
        skip=asked.skip,
        own_biases=not info.homogeneous if asked.own_biases is None else asked.own_biases,
        depth=cfg.construction.depth,
    )
    scales = {} if asked.scales is None else OmegaConf.to_container(asked.scales)
    assert isinstance(scales, dict | list)
    with field("source"):
        source = Source(
            network,
            asked.seed,
            m,
            init=asked.init,
            scale=scale if asked.scale is None else asked.scale,
            bias_scale=bias_scale if asked.bias_scale is None else asked.bias_scale,
            scales=tuple((str(k), v) for k, v in scales.items())
            if isinstance(scales, dict)
            else tuple(scales),
            presence=asked.presence,
            biases=asked.biases,
        )
        if info.homogeneous:
            return source
        if cfg.construction.depth == "L+1":
            return with_small_alpha(source, info, _largest_input(data))
        named = {path.removesuffix("/kernel") for path in parameter_shapes(network)}
        reaches = {path: one.reach for path, one in (ranges or {}).items() if path in named}
        return with_small_alpha(source, info, reaches)


def scaled(cfg: DictConfig, source: Source, target: Target) -> Source:
    """The source with scales read off the target where ``source.target_scale`` asks for them."""
    share = cfg.source.target_scale
    return source if share is None else with_target_scales(source, target.network, target.params, share)


def solver_of(cfg: DictConfig) -> Solver:
    """The solver of the group ``solver``."""
    asked = _plain(cfg.solver)
    given: dict[str, Any] = {f.name: asked[f.name] for f in fields(Solver) if asked.get(f.name) is not None}
    given["compensation"] = Compensation(**asked["compensation"])
    if cfg.construction.subset == "one":
        given["objective"] = "single"
        if given["method"] != "independent":
            raise ValueError(
                f"construction={cfg.construction.name} takes one variable for each weight: choose "
                "solver=independent"
            )
    if cfg.construction.inputs == "nonnegative":
        given["inputs"] = "nonnegative"
    solver = Solver(**given)
    most = MAX_ENUMERATED if solver.method == "compensated" or solver.objective == "robust" else MAX_VARIABLES
    if cfg.source.multiplicity > most:
        how = "solver.method=compensated" if solver.method == "compensated" else "solver.objective=robust"
        raise ValueError(f"source.multiplicity: at most {most} with {how}, got {cfg.source.multiplicity}")
    return solver


def calibration_of(cfg: DictConfig, data: Data, solver: Solver) -> np.ndarray | None:
    """Training images for the solver's statistics, None where it needs none and none were asked for."""
    count = cfg.solver.calibration
    if count is None:
        needed = solver.method == "compensated" or (solver.objective == "robust" and solver.noise != "fixed")
        if needed and not len(data.train_images):
            raise ValueError(
                f"solver.calibration: solver.method={solver.method} with solver.objective={solver.objective} "
                f"needs training images, and data {data.name} have none: choose solver.objective=best, or "
                "solver.noise=fixed"
            )
        count = min(CALIBRATION[solver.method], len(data.train_images)) if needed else 0
    with field("solver.calibration"):
        return data.calibration(count) if count else None


class Ingredients(NamedTuple):
    """What a construction takes."""

    solver: Solver
    data: Data
    calibration: np.ndarray | None
    target: Target
    source: Source
    knows_target: bool
    """Whether the source's scales were read off the target."""


def ingredients_of(cfg: DictConfig, folder: Path) -> Ingredients:
    """All that the settings ask for, a target in ``folder`` if it is trained; refusals come before that."""
    solver, data = solver_of(cfg), data_of(cfg)
    calibration = calibration_of(cfg, data, solver)
    refuse_uncovered(cfg, spec_of(cfg, data), data)
    target = target_of(cfg, data, folder)
    ranges = ranges_of(cfg, target, data)
    source = scaled(cfg, source_of(cfg, target.network, data, ranges), target)
    knows = cfg.source.target_scale is not None or not all(one.exact for one in ranges.values())
    return Ingredients(solver, data, calibration, target, source, knows)


def _plain(cfg: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}
