"""A ticket file is verified, not believed: source generated again, hash compared, outputs measured.

python -m experiments.verify ticket=FILE data=digits target=digits_resnet target.checkpoint=TARGET
python -m experiments.verify ticket=FILE data=digits compact=SMALL
"""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.command_line import main
from experiments.evaluation import about_images, evaluated, forget, part_evaluated
from experiments.scores import Score, score_of
from experiments.settings import check, field
from experiments.stages import Stages
from experiments.targets import data_of, loaded, spec_of
from slth import Target, Ticket, evaluate, nn, report
from slth.compact import compact
from slth.compile_cache import use_compile_cache
from slth.data import Data
from slth.interop import load_network, save_network
from slth.nn.network import Network
from slth.report.bounds import comparison_metrics
from slth.report.tables import show, verify_table
from slth.types import Params

LOG = logging.getLogger(__name__)
EXACT = 8
"""Images on which the compact network is also compared in float64, where only the order of sums differs."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One verification: the metrics that a ticket file alone allows, and those that data and target add."""
    use_compile_cache()
    check(cfg)
    if cfg.ticket is None:
        raise ValueError("ticket: name a file, such as ticket=outputs/ticket/RUN/ticket.safetensors")
    path = Path(cfg.ticket).expanduser()
    if cfg.compact is not None and cfg.get("data") is not None:
        cfg = _dense(cfg)  # the export is held against it
    stages = Stages()
    with stages("verify"):
        kept = Ticket.load(path)
    LOG.info("verified %s: the source of seed %d has the same hash", path, kept.source.seed)
    comparison = data = part = found = target = about = None
    score = Score(None, None)
    if cfg.get("data") is not None:
        data = data_of(cfg)
        part = part_evaluated(cfg, data)
        if data.shape != kept.source.network.input_shape:
            raise ValueError(
                f"data: images of shape {data.shape}, the ticket reads {kept.source.network.input_shape}"
            )
        target = _target(cfg, data, kept)
        with stages("evaluate"):
            made = evaluated(cfg, kept, part.test_images, folder)
            found, score = made.outputs, score_of(part, made.outputs)
            goal = None if target is None else target(part.test_images)
            comparison = None if goal is None else evaluate.compare(goal, found, data.task)
        about = about_images(part, data, goal) | made.about
    elif cfg.get("target") is not None:
        raise ValueError("data: name the images to compare ticket and target on, such as data=digits")
    exported = None if cfg.compact is None else _export(cfg, kept, part, found)
    metrics = {
        "verified": True,
        "source": report.source_metrics(kept),
        "ticket": report.ticket_metrics(
            *(kept, score.accuracy, comparison, path.stat().st_size),
            *(None if target is None else target.params, score.errors),
            *(() if part is None else (len(part.test_images),)),
        ),
        "error": comparison_metrics(comparison),
        "compact": exported,
        "evaluation": about,
        "seconds": {"evaluate": None, **stages.seconds},
        "memory": stages.memory,
        "environment": report.environment(),
    }
    show(verify_table(metrics))
    forget(folder)
    return metrics


def _dense(cfg: DictConfig) -> DictConfig:
    """The settings, with the whole masked source evaluated."""
    cfg = cfg.copy()
    cfg.evaluation.form = "dense"
    return cfg


def _outputs(cfg: DictConfig, network: Network, params: Params, factor: float, data: Data) -> np.ndarray:
    return (
        np.float32(factor)
        * evaluate.run(network, params, data.test_images, batch=cfg.evaluation.batch).logits
    )


def _export(cfg: DictConfig, kept: Ticket, data: Data | None, wanted: np.ndarray | None) -> dict[str, Any]:
    """Write the compact network, read it back, and compare it with the ticket on the data, if any."""
    path = Path(cfg.compact).expanduser()
    with field("compact"):
        small = compact(kept.source.network, kept.params, kept.mask)
        save_network(path, *small, factor=kept.factor)
        network, params, factor = load_network(path)
    LOG.info("wrote %s: the ticket without its dead channels", path)
    difference = exact = None
    if data is not None and wanted is not None:
        difference = float(np.abs(_outputs(cfg, network, params, factor, data) - wanted).max())
        images = data.test_images[:EXACT]
        whole = _in_float64(kept.source.network, kept.params, images)
        exact = factor * float(np.abs(whole - _in_float64(network, params, images)).max())
    return {
        "parameters": nn.count(params),
        "nonzero": int(sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(params))),
        "bytes": path.stat().st_size,
        "difference": difference,
        "difference_float64": exact,
    }


def _in_float64(network: Network, params: Params, images: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), params)
        return np.asarray(nn.apply(network, exact, jnp.asarray(images, jnp.float64)))


def _target(cfg: DictConfig, data: Data, kept: Ticket) -> Target | None:
    """The target that the config names, None where it names none."""
    if cfg.get("target") is None:
        return None
    if cfg.target.checkpoint is None:
        raise ValueError("target.checkpoint: name the file of the target that the ticket is compared with")
    spec = spec_of(cfg, data)
    target = Target.of(spec, loaded(cfg, spec), data.task)
    if kept.target is not None and target.network != kept.target:
        raise ValueError(f"target: {cfg.target.name} is not the network that the ticket was made for")
    return target


if __name__ == "__main__":
    main(run, "verify", again=True)
