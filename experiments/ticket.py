"""A trained network goes in; a verified strong lottery ticket and a report come out.

python -m experiments.ticket data=digits target=digits_cnn source.seed=0
"""

import logging
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig

from experiments.certificates import names_of, proofs_of
from experiments.compose import check, ingredients_of
from experiments.run_folder import main
from slth import evaluate, report, ticket
from slth.compile_cache import use_compile_cache
from slth.construct import Construction, construct
from slth.construct.node import Stats
from slth.construct.prune import read_channels
from slth.data import Data
from slth.nn.network import Network
from slth.report.tables import show
from slth.train import predict
from slth.types import Params

LOG = logging.getLogger(__name__)
FILE = "ticket.safetensors"


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One run: metrics of the contract; everything else into ``folder``."""
    started = time.perf_counter()
    use_compile_cache()
    check(cfg)
    names_of(cfg)
    solver, data, calibration, target, source, knows_target = ingredients_of(cfg, folder)

    begun = time.perf_counter()
    with report.layer_progress(len(evaluate.carried_values(target.network))) as progress:
        made = construct(
            target.network,
            target.params,
            source,
            solver,
            None if calibration is None else jnp.asarray(calibration),
            progress,
            progress.finish,
        )
    ticket.save(folder / FILE, ticket.make(source, made.mask, made.factor, target.network))
    construction_seconds = time.perf_counter() - begun

    begun = time.perf_counter()
    kept = ticket.load(folder / FILE)  # what follows rests on the file alone
    LOG.info("reloaded %s: its source was generated again and has the same hash", FILE)
    wanted = predict(target.network, target.params, jnp.asarray(data.test_images))
    params = ticket.masked(kept)
    reads = read_channels(source.network, made.mask)
    copies = evaluate.Copies(target.network, made.params, made.columns, reads)
    layers, batch = cfg.evaluation.layers, cfg.evaluation.batch
    wide = kept.source.network
    first = evaluate.run(wide, params, data.test_images[:layers], copies=copies, batch=batch)
    seen = {}
    if calibration is not None:
        seen = evaluate.run(wide, params, calibration[:layers], copies=copies, batch=batch).layers
    logits = [first.logits]
    if len(data.test_images) > layers:
        logits.append(evaluate.run(wide, params, data.test_images[layers:], batch=batch).logits)
    found = np.float32(kept.factor) * np.concatenate(logits)
    comparison = evaluate.compare(wanted, found)
    off = np.abs(found.astype(np.float64) - wanted)
    evaluation_seconds = time.perf_counter() - begun

    def errors(x: np.ndarray) -> np.ndarray:
        outputs = np.float32(kept.factor) * evaluate.run(wide, params, x, batch=batch).logits
        return np.abs(outputs.astype(np.float64) - predict(target.network, target.params, jnp.asarray(x)))

    proofs = proofs_of(cfg, data, target, source, made, calibration, wanted, off, errors)
    rows = report.layer_rows(made, seen, first.layers, proofs[-1] if proofs else None)
    report.write_csv(folder / "layers.csv", rows)
    _draw(folder, made, params, target.network, rows, wanted, found)
    metrics = {
        "target": report.target_metrics(target.name, target.network, target.params, _accuracy(wanted, data)),
        "source": report.source_metrics(kept, knows_target=knows_target),
        "ticket": report.ticket_metrics(
            kept, _accuracy(found, data), comparison, (folder / FILE).stat().st_size
        ),
        "subset_sum": report.subset_sum_metrics(made, solver, 0 if calibration is None else len(calibration)),
        "error": report.error_metrics(comparison, off),
        **report.certificate_metrics(proofs),
        "seconds": {
            "train": target.seconds,
            "construct": construction_seconds,
            "certify": sum(one.seconds for one in proofs) if proofs else None,
            "evaluate": evaluation_seconds,
            "total": time.perf_counter() - started,
        },
        "environment": report.environment(),
    }
    show(report.ticket_table(metrics))
    return metrics


def _accuracy(logits: np.ndarray, data: Data) -> float:
    return float((logits.argmax(-1) == data.test_labels).mean())


def _draw(
    folder: Path,
    made: Construction,
    params: Params,
    network: Network,
    rows: list[dict[str, Any]],
    wanted: np.ndarray,
    found: np.ndarray,
) -> None:
    report.draw_logits(folder / "logits.png", wanted, found)
    report.draw_layer_errors(folder / "layers.png", rows)
    sizes = sum((record.stats for record in made.records), Stats()).sizes
    if sizes:
        report.draw_sizes(folder / "sizes.png", sizes)
    kernels = report.realised_kernels(network, made, params)
    if kernels is not None:
        report.draw_kernels(folder / "kernels.png", kernels)


if __name__ == "__main__":
    main(run, "ticket", verdict=report.broken_bound)
