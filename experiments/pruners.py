"""From the group ``pruner`` of a config to a method of pruning; errors name the field."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.settings import field, plain
from slth import pruning
from slth.data import Data
from slth.planting import HANDMADE
from slth.target import Target
from slth.train import Settings

METHODS: Mapping[str, type] = {
    "biprop": pruning.Biprop,
    "edge_popup": pruning.EdgePopup,
    "gem_miner": pruning.GemMiner,
    "grasp": pruning.Grasp,
    "imp": pruning.IMP,
    "lamp": pruning.Lamp,
    "magnitude": pruning.Magnitude,
    "random": pruning.Random,
    "relaxed": pruning.Relaxed,
    "snip": pruning.Snip,
    "synflow": pruning.Synflow,
}
"""By ``pruner.name``."""
RULES: Mapping[str, type] = {
    "balanced": pruning.Balanced,
    "erdos_renyi": pruning.ErdosRenyi,
    "erk": pruning.ErdosRenyiKernel,
    "uniform": pruning.Uniform,
}
"""By ``pruner.densities``."""
PLANTED = "planted"
"""Name of the densities by layer of the planted ticket, which a method cannot know."""
DISTILLED: Mapping[str, dict[str, float | None]] = {
    "outputs": {},
    "direction": {"factor": None},
    "classes": {"temperature": 1.0},
}
"""By ``pruner.loss``: squared error of outputs, the same up to a factor, divergence of the softmax."""
LOSSES = ("labels", *DISTILLED)
OWN = ("name", "label", "images", "examples")
"""Settings of the group that are no options of the method."""


def pruner_of(
    cfg: DictConfig,
    densities: Mapping[str, float] | None = None,
    target: Target | None = None,
    factor: float = 1.0,
) -> pruning.Method:
    """The method that the group ``pruner`` describes.

    Args:
      densities: by layer, of the planted ticket; for ``pruner.densities=planted``.
      target, factor: what ``pruner.loss`` asks for but for labels, of the network's outputs times the factor.
    Raises: ValueError for an unknown name or option, or a value that the method refuses.
    """
    asked = plain(cfg.pruner)
    name = str(asked.get("name"))
    if name not in METHODS:
        raise ValueError(f"pruner.name: {name!r} is unknown: choose one of {', '.join(METHODS)}")
    known = [one.name for one in fields(METHODS[name])]
    options = {key: value for key, value in asked.items() if key not in OWN}
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"pruner.{unknown[0]}: {name} has no such option: it has {', '.join(known)}")
    with field("pruner"):
        if "densities" in options:
            options["densities"] = _rule(options["densities"], densities)
        if options.get("settings", {}) is None:
            if not cfg.retrain.epochs:
                raise ValueError("settings: null means those of retrain, which has no epochs: give either")
            options["settings"] = plain(cfg.retrain)
        if "settings" in options:
            options["settings"] = settings_of(options["settings"])
        if "loss" in options:
            options["loss"] = _loss(options["loss"], target, factor)
        return METHODS[name](**options)


def rehearse(cfg: DictConfig) -> None:
    """Refuse a group ``pruner`` that describes no method, before anything is planted.

    Raises: ValueError as `pruner_of`.
    """
    if cfg.planted.kind == "none":
        pruner_of(cfg)
    else:
        asked = cfg.planted
        name = asked.kind if asked.of is None else asked.of
        stand_in = HANDMADE[name if name in HANDMADE else "circle"]()
        pruner_of(cfg, {"any": 1.0}, stand_in)


def _rule(word: str | None, densities: Mapping[str, float] | None) -> pruning.LayerDensities | None:
    if word is None:
        return None
    if word == PLANTED:
        if densities is None:
            raise ValueError("densities: nothing is planted in this network: choose planted.kind, or null")
        return pruning.Given(densities)
    if word not in RULES:
        raise ValueError(
            f"densities: {word!r} is unknown: choose one of {', '.join(RULES)}, {PLANTED} or null"
        )
    return RULES[word]()


def settings_of(given: Any) -> Settings:
    """The settings of a training or a search.

    Raises: ValueError for an unknown one, or a value out of range.
    """
    if not isinstance(given, dict):
        raise ValueError(f"settings: expected epochs, batch, rate and so on, got {given!r}")
    known = [one.name for one in fields(Settings)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"settings.{unknown[0]}: no such setting: there are {', '.join(known)}")
    return Settings(**given)


def _loss(word: str, target: Target | None, factor: float) -> pruning.Loss:
    if word not in LOSSES:
        raise ValueError(f"loss: {word!r} is unknown: choose one of {', '.join(LOSSES)}")
    if word == "labels":
        return pruning.Labels()
    if target is None:
        raise ValueError(f"loss: {word}: a planted target is asked, and nothing is planted: choose labels")
    return pruning.Distilled(target, **{"factor": factor, **DISTILLED[word]})


def batch_of(cfg: DictConfig, method: pruning.Method, data: Data, labels: np.ndarray) -> pruning.Batch | None:
    """The training images that the method looks at: ``pruner.images`` of them, or ``pruner.examples`` of each
    class, the first ones; all where neither is said; None where it looks at none.

    Args:
      labels: of the training part, in the units of the network.
    Raises: ValueError where there are not so many.
    """
    if not method.needs_batch:
        return None
    images, examples = cfg.pruner.get("images"), cfg.pruner.get("examples")
    if len(data.train_images) == 0:
        raise ValueError(f"data: {data.name} have no training part, and {cfg.pruner.name} looks at one")
    if examples is not None and data.classes is not None:
        of_class = [np.flatnonzero(labels == one)[:examples] for one in range(data.classes)]
        chosen = np.sort(np.concatenate(of_class))
    else:
        count = len(labels) if images is None else images
        if not (type(count) is int and 1 <= count <= len(labels)):
            raise ValueError(f"pruner.images: expected a number from 1 to {len(labels)}, got {count!r}")
        chosen = np.arange(count)
    return pruning.Batch(data.train_images[chosen], labels[chosen])
