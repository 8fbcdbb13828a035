"""A trained network goes in; a verified strong lottery ticket and a report come out.

python -m experiments.ticket data=digits target=digits_cnn source.seed=0
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.certificates import names_of, proofs_of
from experiments.command_line import main
from experiments.compose import ingredients_of
from experiments.refining import refine_images, refined_of
from experiments.scores import score_of
from experiments.settings import check
from experiments.stages import Stages
from experiments.targets import data_of
from experiments.tracking import tracked
from slth import Ticket, evaluate, report
from slth.compile_cache import use_compile_cache
from slth.construction import Construction, Plan, finish, nodes_of, plan_of
from slth.nn.graph import sums
from slth.report.tables import show
from slth.types import Params

LOG = logging.getLogger(__name__)
FILE = "ticket.safetensors"
NODES = "construction"
"""Folder in which a run keeps its nodes until it ends: a broken one goes on from there."""


@tracked("ticket")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One run: metrics of the contract; everything else into ``folder``."""
    started = time.perf_counter()
    use_compile_cache()
    check(cfg)
    names_of(cfg)
    data = data_of(cfg)
    learning = refine_images(cfg, data)
    target, source, solver, calibration, options, data, train_seconds = ingredients_of(cfg, folder, data)

    stages = Stages()
    with stages("construct"):
        made = constructed(plan_of(target, source, solver, calibration, **options), folder / NODES)
    refined = None
    if learning is not None:
        with stages("refine"):
            refined = refined_of(cfg, made, data, learning)
            made = refined.made
    made.ticket.save(folder / FILE)

    with stages("evaluate"):
        ticket = Ticket.load(folder / FILE)  # what follows rests on the file alone
        LOG.info("reloaded %s: its source was generated again and has the same hash", FILE)
        goal = target(data.test_images)
        network, params, copies = ticket.source.network, ticket.params, made.copies()
        layers, batch = cfg.evaluation.layers, cfg.evaluation.batch
        first = evaluate.run(network, params, data.test_images[:layers], copies=copies, batch=batch)
        seen = {}
        if calibration is not None:
            seen = evaluate.run(network, params, calibration[:layers], copies=copies, batch=batch).layers
        logits = [first.logits]
        if len(data.test_images) > layers:
            logits.append(evaluate.run(network, params, data.test_images[layers:], batch=batch).logits)
        outputs = np.float32(ticket.factor) * np.concatenate(logits)
        comparison = evaluate.compare(goal, outputs, data.task)
        of_target, of_ticket = score_of(data, goal), score_of(data, outputs)
        off = np.abs(outputs.astype(np.float64) - goal)

    def errors(x: np.ndarray) -> np.ndarray:
        found = np.float32(ticket.factor) * evaluate.run(network, params, x, batch=batch).logits
        return np.abs(found.astype(np.float64) - target(x))

    proofs = proofs_of(cfg, data, made, solver, calibration, goal, off, errors)
    rows = report.layer_rows(made, seen, first.layers, proofs[-1] if proofs else None)
    report.write_csv(folder / "layers.csv", rows)
    _draw(folder, made, params, rows, goal, outputs)
    metrics = {
        "target": {
            "task": data.task,
            **report.target_metrics(cfg.target.name, target.network, target.params, *of_target),
        },
        "source": report.source_metrics(ticket, knows_target=source.knows_target),
        "ticket": report.ticket_metrics(
            *(ticket, of_ticket.accuracy, comparison, (folder / FILE).stat().st_size, target.params),
            of_ticket.errors,
        ),
        "subset_sum": report.subset_sum_metrics(made, solver, 0 if calibration is None else len(calibration)),
        "fitting": report.fitting_metrics(made),
        "error": report.error_metrics(comparison, off),
        "refinement": None
        if refined is None
        else {k: v for k, v in refined._asdict().items() if k != "made"},
        **report.certificate_metrics(proofs),
        "seconds": {
            "train": train_seconds,
            "construct": stages.seconds["construct"],
            "refine": stages.seconds.get("refine"),
            "certify": sum(proof.seconds for proof in proofs) if proofs else None,
            "evaluate": stages.seconds["evaluate"],
            "total": time.perf_counter() - started,
        },
        "memory": stages.memory,
        "environment": report.environment(),
    }
    show(report.ticket_table(metrics))
    shutil.rmtree(folder / NODES)
    return metrics


def constructed(plan: Plan, folder: Path) -> Construction:
    """The construction, with progress; nodes that a broken run has left in the folder are taken over."""
    fit = plan.fit
    if fit.predicted is not None:
        LOG.info("fit %g: the error that is predicted of the outputs is %.2g", fit.value, fit.predicted)
    total, nodes = len(sums(plan.target.network)), []
    with report.layer_progress(total) as progress:
        for node in nodes_of(plan, folder):
            nodes.append(node)
            progress.finish(node)
    resumed = sum(node.resumed for node in nodes)
    if resumed:
        LOG.info("took over %d of %d layers from a run that was broken off", resumed, total)
    made = finish(plan, nodes)
    for one in made.misfits:
        LOG.warning(one.text)
    return made


def _draw(
    folder: Path,
    made: Construction,
    params: Params,
    rows: list[dict[str, Any]],
    goal: np.ndarray,
    outputs: np.ndarray,
) -> None:
    report.draw_logits(folder / "logits.png", goal, outputs)
    report.draw_layer_errors(folder / "layers.png", rows)
    if made.stats.sizes:
        report.draw_sizes(folder / "sizes.png", made.stats.sizes)
    kernels = report.realised_kernels(made, params)
    if kernels is not None:
        report.draw_kernels(folder / "kernels.png", kernels)


if __name__ == "__main__":
    main(run, "ticket", verdict=report.broken_bound)
