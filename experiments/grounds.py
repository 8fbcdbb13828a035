"""From a composed config to the network that is pruned, and to the ticket that is known to be in it."""

import inspect
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from omegaconf import DictConfig

from experiments.compose import calibration_of, construct_options, ingredients_of, solver_of, source_of
from experiments.refining import refine_images, refined_of
from experiments.settings import field, plain
from experiments.targets import data_of, spec_of, target_of
from slth import construct, nn, planting, pruning
from slth.data import Data
from slth.nn.network import Network
from slth.planting import HANDMADE, Planted
from slth.target import Target
from slth.train import SETTINGS, Settings, train
from slth.types import Params

KINDS = (*HANDMADE, "trained", "constructed", "none")
"""What ``planted.kind`` may be."""
REFINEMENT = "refinement"
"""Folder in which a run keeps the state of a refinement until it ends."""


class Ground(NamedTuple):
    """A network that is pruned, its data, and the ticket that is known to be in it."""

    network: Network
    params: Params
    data: Data
    planted: Planted | None
    """None where nothing is known."""
    unrefined: Planted | None = None
    """The ticket before it was refined."""

    @property
    def train_labels(self) -> np.ndarray:
        """In the units of the network."""
        labels = self.data.train_labels
        return labels if self.planted is None else self.planted.labels(labels)


def check_ground(cfg: DictConfig) -> None:
    """Refuse settings that no ground has, before any work.

    Raises: ValueError, naming the field.
    """
    asked = cfg.planted
    if asked.kind not in KINDS:
        raise ValueError(f"planted.kind: {asked.kind!r} is unknown: choose one of {', '.join(KINDS)}")
    for name in ("density", "own_density"):
        value = asked[name]
        if value is not None and (type(value) not in (int, float) or not 0 < value <= 1):
            raise ValueError(f"planted.{name}: expected a number above 0 and of at most 1, got {value!r}")
    for name in ("scale", "size"):
        if type(asked[name]) not in (int, float) or not 0 < asked[name] < math.inf:
            raise ValueError(f"planted.{name}: expected a positive number, got {asked[name]!r}")
    planted = asked.kind in (*HANDMADE, "trained")
    if planted and asked.density is None:
        raise ValueError(f"planted.density: {asked.kind} is planted at a density: say one, such as 0.1")
    if not planted and asked.density is not None:
        raise ValueError(
            f"planted.density: the density of {asked.kind} is what comes of it: leave it null, got"
            f" {asked.density:g}"
        )
    if asked.of is not None and (asked.kind != "constructed" or asked.of not in HANDMADE):
        raise ValueError(
            f"planted.of: expected null, or with planted.kind=constructed one of {', '.join(HANDMADE)}, got"
            f" {asked.of!r}"
        )
    if cfg.refine.steps and asked.kind != "constructed":
        raise ValueError(
            f"refine.steps: only a constructed ticket is refined, and planted.kind is {asked.kind}: choose 0"
        )
    if asked.kind == "none" and cfg.density is None:
        raise ValueError("density: nothing is planted that has one: say one, such as 0.1")


def ground_of(cfg: DictConfig, folder: Path) -> Ground:
    """The network that the settings ask for; a trained target leaves its checkpoint in ``folder``."""
    check_ground(cfg)
    kind = cfg.planted.kind
    if kind in HANDMADE:
        return _planted(cfg, _handmade(cfg, kind), _samples(cfg, kind))
    if kind == "constructed" and cfg.planted.of is not None:
        target, data, solver = _handmade(cfg, cfg.planted.of), _samples(cfg, cfg.planted.of), solver_of(cfg)
        source, images = source_of(cfg, target, data), calibration_of(cfg, data, solver)
        return _constructed(cfg, folder, data, target, source, solver, images, **construct_options(cfg))
    data = data_of(cfg)
    if kind == "trained":
        return _planted(cfg, sparse_target(cfg, data, folder), data)
    if kind == "constructed":
        target, source, solver, images, options, data, _ = ingredients_of(cfg, folder, data)
        return _constructed(cfg, folder, data, target, source, solver, images, **options)
    network = spec_of(cfg, data)
    key, weights = jax.random.key(cfg.seed), plain(cfg.weights)
    if weights["kind"] is None:
        return Ground(network, nn.init(network, key), data, None)
    with field("weights"):
        return Ground(network, pruning.random_weights(network, key, **weights), data, None)


def _handmade(cfg: DictConfig, name: str) -> Target:
    options, known = plain(cfg.planted.options), tuple(inspect.signature(HANDMADE[name]).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"planted.options.{unknown[0]}: {name} has no such option: it has {', '.join(known)}"
        )
    with field("planted.options"):
        return planting.handmade(name, **options)


def _samples(cfg: DictConfig, name: str) -> Data:
    with field("samples"):
        return planting.samples(name, **plain(cfg.samples), seed=cfg.seed)


def _constructed(cfg: DictConfig, folder: Path, data: Data, *parts: Any, **options: Any) -> Ground:
    """A ticket in a source that knows nothing of it: `slth.construct` of the parts, refined if asked for."""
    learning = refine_images(cfg, data)
    made = construct(*parts, **options)
    planted = Planted.of(made)
    if learning is None:
        return Ground(planted.network, planted.params, data, planted)
    refined = Planted.of(refined_of(cfg, made, data, learning, folder / REFINEMENT).made)
    return Ground(refined.network, refined.params, data, refined, unrefined=planted)


def _planted(cfg: DictConfig, target: Target, data: Data) -> Ground:
    asked = cfg.planted
    with field("planted"):
        planted = planting.plant(
            target,
            density=asked.density,
            seed=cfg.seed,
            init=asked.init,
            scale=asked.scale,
            size=asked.size,
            kind=asked.kind,
        )
    return Ground(planted.network, planted.params, data, planted)


def sparse_target(cfg: DictConfig, data: Data, folder: Path) -> Target:
    """The target of the config, its smallest weights pruned and the others trained once more."""
    target, _ = target_of(cfg, data, folder)
    share = cfg.planted.own_density
    if share is None:
        raise ValueError("planted.own_density: the share of its weights that the target keeps: say one")
    pruned = pruning.Magnitude(floor=1).prune(target.network, target.params, share)
    chosen = {name: value for name, value in plain(cfg.train).items() if value is not None}
    with field("train"):
        settings = Settings(**{**vars(SETTINGS[data.name]), **chosen})
        tuned = train(target.network, data, settings, start=target.params, mask=pruned.mask)
    return Target(target.network, pruning.masked(tuned.params, pruned.mask), target.task)
