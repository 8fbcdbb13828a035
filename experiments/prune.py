"""One method of pruning on one network: what it finds, and how much of what is known to be there.

python -m experiments.prune pruner=snip planted.kind=circle planted.density=0.1
"""

import inspect
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig
from rich.table import Table

from experiments.command_line import main
from experiments.evaluation import forget, predicted
from experiments.grounds import REFINEMENT, Ground, check_ground, ground_of
from experiments.pruners import batch_of, pruner_of, rehearse
from experiments.settings import check, field, plain
from experiments.stages import Stages
from experiments.tracking import tracked
from slth import interop, nn, planting, pruning, report
from slth.compile_cache import use_compile_cache
from slth.planting import Overlap, Planted
from slth.pruning.protocol import check_density
from slth.report.tables import show
from slth.train import Settings, train
from slth.types import Mask, Params

LOG = logging.getLogger(__name__)
MASK = "mask.safetensors"
SEARCH = "search"
"""Folder in which a method that trains keeps its state until the run ends."""


@tracked("prune")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One method at one density; ``layers.csv`` has the layers, ``mask.safetensors`` the mask."""
    use_compile_cache()
    check(cfg)
    _check(cfg)
    check_ground(cfg)
    rehearse(cfg)
    stages = Stages()
    with stages("plant"):
        ground = ground_of(cfg, folder)
    score = partial(_score, ground, folder)
    planted = ground.planted
    if planted is None:
        method = pruner_of(cfg)
    else:
        method = pruner_of(cfg, planted.densities, planted.target, planted.factor)
    density = planted.density if planted is not None and cfg.density is None else float(cfg.density)
    batch = batch_of(cfg, method, ground.data, ground.train_labels)
    key = jax.random.fold_in(jax.random.key(cfg.seed), 1) if method.needs_key else None
    state = {"folder": folder / SEARCH} if "folder" in inspect.signature(method.prune).parameters else {}
    with stages("prune"), field("pruner"):
        found = method.prune(ground.network, ground.params, density, key=key, batch=batch, **state)
    own_params = isinstance(method, pruning.Biprop)  # its weights are signs times a gain
    strong = found.params if own_params else ground.params
    trained = found.params if isinstance(method, pruning.IMP) else None
    reference = None
    if cfg.retrain.epochs:
        with stages("retrain"):
            if trained is None:
                trained = retrained(cfg, ground, found.mask)
            if planted is not None:
                reference = score(retrained(cfg, ground, planted.mask), planted.mask)
    interop.save_checkpoint(folder / MASK, found.mask)
    rows = _layers(ground, found)
    report.write_csv(folder / "layers.csv", rows)
    metrics = {
        "method": plain(cfg.pruner),
        "network": {
            "weights": sum(int(np.prod(shape)) for shape in pruning.prunable(ground.network).values()),
            "parameters": nn.count(ground.params),
        },
        "found": {
            "density": found.density,
            "score": score(strong, found.mask),
            "trained": None if trained is None else score(trained, found.mask),
            "dense": score(ground.params, None),
            "chance": chance_score(ground),
        },
        "planted": None
        if planted is None
        else {
            "kind": planted.kind,
            "density": planted.density,
            "weights": planted.kept,
            "factor": planted.factor,
            "score": _ticket_score(ground, planted),
            "unrefined": None if ground.unrefined is None else _ticket_score(ground, ground.unrefined),
            "trained": reference,
        },
        "overlap": None
        if planted is None
        else _numbers(planting.overlap(ground.network, found.mask, planted.mask)),
        "layers": rows,
        "seconds": stages.seconds,
        "memory": stages.memory,
        "environment": report.environment(),
    }
    show(_table(metrics))
    forget(folder)
    shutil.rmtree(folder / REFINEMENT, ignore_errors=True)
    return metrics


def _check(cfg: DictConfig) -> None:
    if cfg.density is not None:
        check_density(cfg.density)
    if type(cfg.seed) is not int or not 0 <= cfg.seed < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2^32 - 1, got {cfg.seed!r}")
    if type(cfg.retrain.epochs) is not int or cfg.retrain.epochs < 0:
        raise ValueError(f"retrain.epochs: expected 0 (no training) or more, got {cfg.retrain.epochs!r}")


def retrained(cfg: DictConfig, ground: Ground, mask: Mask) -> Params:
    """The random network trained under a mask, from its own weights."""
    data = ground.data._replace(train_labels=ground.train_labels)
    with field("retrain"):
        settings = Settings(**plain(cfg.retrain), seed=cfg.seed)
        return train(ground.network, data, settings, start=ground.params, mask=mask).params


def _score(ground: Ground, folder: Path, params: Params, mask: Mask | None) -> float:
    """`slth.planting.score` on the test images."""
    own = params if mask is None else pruning.masked(params, mask)
    outputs = predicted(ground.network, own, ground.data.test_images, folder)
    return planting.score(outputs, ground.data.test_labels)


def _ticket_score(ground: Ground, planted: Planted) -> float:
    return planting.score(planted(ground.data.test_images), ground.data.test_labels)


def chance_score(ground: Ground) -> float:
    """What outputs that do not depend on the image reach: the commonest class, or the mean of the numbers."""
    labels = ground.data.test_labels
    if ground.data.classes is None:
        return planting.score(np.broadcast_to(labels.mean(0), labels.shape), labels)
    return float(np.bincount(labels).max() / len(labels))


def _numbers(one: Overlap) -> dict[str, Any]:
    return {**one._asdict(), "jaccard": one.jaccard, "chance": one.chance, "recall": one.recall}


def _layers(ground: Ground, found: pruning.Pruned) -> list[dict[str, Any]]:
    if ground.planted is None:
        return [{"layer": path, "density": density} for path, density in found.densities.items()]
    layers = planting.overlap_by_layer(ground.network, found.mask, ground.planted.mask)
    return [
        {"layer": path, "density": found.densities[path], **_numbers(one)} for path, one in layers.items()
    ]


def _table(metrics: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    found, planted, overlap = metrics["found"], metrics["planted"], metrics["overlap"]
    weights = metrics["network"]["weights"]
    lines = {
        "found": f"{metrics['method']['name']}, density {found['density']:.4f} of {weights:,} weights, "
        f"score {found['score']:.4f}" + _then(found["trained"]),
    }
    if planted is not None:
        lines["planted"] = (
            f"{planted['kind']}, density {planted['density']:.4f} ({planted['weights']:,} weights), "
            f"score {planted['score']:.4f}"
            + ("" if planted["unrefined"] is None else f" (before refinement {planted['unrefined']:.4f})")
            + _then(planted["trained"])
        )
        lines["overlap"] = (
            f"Jaccard {overlap['jaccard']:.4f}, by chance {overlap['chance']:.4f}; "
            f"{overlap['common']:,} of the ticket's {overlap['planted']:,} weights"
        )
    for name, text in lines.items():
        table.add_row(name, text)
    return table


def _then(trained: float | None) -> str:
    return "" if trained is None else f", trained {trained:.4f}"


if __name__ == "__main__":
    main(run, "prune")
