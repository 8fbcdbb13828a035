"""Iterative magnitude pruning level by level, with rewinding and without, beside what its controls reach.

The controls of a level are trained as its ticket is. *Shuffled*: the mask's places are dealt anew within each
layer, the weights are those of the ticket. *Reinitialised*: the mask is the ticket's, the weights are another
draw, and the whole training is theirs.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig

from experiments.command_line import main
from experiments.pruners import settings_of
from experiments.settings import check, field, plain
from experiments.targets import data_of, spec_of
from experiments.tracking import tracked
from slth import nn, pruning, report
from slth.compile_cache import use_compile_cache
from slth.data import Data
from slth.nn.network import Network
from slth.pruning.search import seeded
from slth.train import accuracy, train
from slth.types import Mask, Params

STATE = "levels"
"""Folder in which trainings keep their states until the run ends."""
SHUFFLED, REINITIALISED = "shuffled", "reinitialised"


@tracked("rewinding")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A line of ``levels.csv`` for each seed, k and level, ``rewinding.png`` with means and bands."""
    use_compile_cache()
    check(cfg)
    _check(cfg)
    data = data_of(cfg)
    network = spec_of(cfg, data)
    methods = {k: _method(cfg, k) for k in cfg.rewinds}
    rows: list[dict[str, Any]] = []
    for seed in cfg.seeds:
        for k, method in methods.items():
            for row in _levels(cfg, network, data, method, seed, folder / STATE / f"seed{seed}_k{k}"):
                rows.append({"seed": seed, "rewind": k, **row})
                report.write_csv(folder / "levels.csv", rows)
    curves = means(rows)
    report.write_csv(folder / "means.csv", curves)
    _draw(folder / "rewinding.png", curves, cfg.target.name)
    shutil.rmtree(folder / STATE, ignore_errors=True)
    return {"levels": rows, "means": curves, "environment": report.environment()}


def _check(cfg: DictConfig) -> None:
    for name in ("seeds", "rewinds"):
        values = plain(cfg)[name]
        whole = isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)
        if not whole or not values or len(set(values)) < len(values):
            raise ValueError(f"{name}: expected different whole numbers of at least 0, got {values!r}")
    if type(cfg.controls) is not int or cfg.controls < 0:
        raise ValueError(f"controls: expected 0 (none) or every how many levels, got {cfg.controls!r}")
    if type(cfg.density) not in (int, float) or not 0 < cfg.density < 1:
        raise ValueError(f"density: expected a number between 0 and 1, got {cfg.density!r}")


def _method(cfg: DictConfig, rewind: int) -> pruning.IMP:
    with field("settings"):
        settings = settings_of(plain(cfg.settings))
    return pruning.IMP(settings=settings, rate=cfg.rate, rewind=rewind, floor=cfg.floor)


def _levels(
    cfg: DictConfig, network: Network, data: Data, method: pruning.IMP, seed: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """What each level reaches, and its controls."""
    original, key = nn.init(network, jax.random.key(seed)), jax.random.key(seed)
    settings = seeded(method.settings, key)
    batch = pruning.Batch(data.train_images, data.train_labels)
    levels = method.levels(network, original, cfg.density, key=key, batch=batch, folder=folder)
    last = len(method.schedule(cfg.density))
    for level in levels:
        row = {
            "level": level.number,
            "density": level.density,
            "accuracy": accuracy_of(network, level.params, level.mask, data),
            SHUFFLED: None,
            REINITIALISED: None,
        }
        if cfg.controls and level.number and (level.number % cfg.controls == 0 or level.number == last):
            dealt = jax.random.fold_in(key, level.number)
            others = {
                SHUFFLED: (level.start, pruning.shuffled(network, level.mask, dealt), method.rewind),
                REINITIALISED: (pruning.reinitialised(network, original, dealt), level.mask, 0),
            }
            for name, (start, mask, first) in others.items():
                place = folder / f"level{level.number:02d}_{name}"
                found = train(network, data, settings, start=start, mask=mask, first=first, folder=place)
                row[name] = accuracy_of(network, found.params, mask, data)
        yield row


def accuracy_of(network: Network, params: Params, mask: Mask, data: Data) -> float:
    """Of the masked network on the test images."""
    return accuracy(network, pruning.masked(params, mask), data.test_images, data.test_labels)


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, least and largest over the seeds, by k, level and what was trained."""
    found = []
    for k in dict.fromkeys(row["rewind"] for row in rows):
        for name in ("accuracy", SHUFFLED, REINITIALISED):
            kept = [row for row in rows if row["rewind"] == k and row[name] is not None]
            for level in sorted({row["level"] for row in kept}):
                values = [row[name] for row in kept if row["level"] == level]
                density = next(row["density"] for row in kept if row["level"] == level)
                found.append(
                    {
                        **{"rewind": k, "trained": "ticket" if name == "accuracy" else name},
                        **{"level": level, "density": density, "seeds": len(values)},
                        **{"mean": float(np.mean(values)), "min": min(values), "max": max(values)},
                    }
                )
    return found


def _draw(path: Path, curves: list[dict[str, Any]], target: str) -> None:
    panels = {}
    for k in dict.fromkeys(row["rewind"] for row in curves):
        own = [row for row in curves if row["rewind"] == k]
        bands = []
        for name in dict.fromkeys(row["trained"] for row in own):
            kept = [row for row in own if row["trained"] == name]
            x, y, low, high = ([row[part] for row in kept] for part in ("density", "mean", "min", "max"))
            bands.append(report.Band(name, x, y, low, high))
        panels["original weights" if k == 0 else f"weights of iteration {k}"] = bands
    report.draw_bands(
        path,
        panels,
        title=f"Iterative magnitude pruning: {target}",
        x_label="density",
        y_label="test accuracy",
        columns=2,
    )


if __name__ == "__main__":
    main(run, "rewinding")
