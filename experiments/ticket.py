"""A trained network goes in; a verified strong lottery ticket and a report come out.

python -m experiments.ticket data=digits target=digits_cnn source.seed=0
"""

import logging
import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.certificates import names_of, proofs_of
from experiments.command_line import main
from experiments.compose import ingredients_of
from experiments.evaluation import about_images, evaluated, forget, part_evaluated
from experiments.refining import refine_images, refined_of
from experiments.scores import score_of
from experiments.settings import check
from experiments.stages import Stages
from experiments.targets import data_of
from experiments.tracking import tracked
from slth import Ticket, evaluate, nn, report
from slth.compile_cache import use_compile_cache
from slth.construction import Construction, Plan, finish, nodes_of, plan_of
from slth.nn.graph import sums
from slth.report.tables import show
from slth.types import Params

LOG = logging.getLogger(__name__)
FILE = "ticket.safetensors"
NODES = "construction"
"""Folder in which a run keeps nodes and the state of a refinement until it ends: a broken one goes on."""


@tracked("ticket")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One run: metrics of the contract; everything else into ``folder``."""
    started = time.perf_counter()
    use_compile_cache()
    check(cfg)
    names_of(cfg)
    stages = Stages()
    with stages("prepare"):
        data = data_of(cfg)
        part = part_evaluated(cfg, data)
        learning = refine_images(cfg, data)
        ingredients = ingredients_of(cfg, folder, data)
    target, source, solver, calibration, options, data, train_seconds = ingredients

    with stages("construct"):
        made = constructed(plan_of(target, source, solver, calibration, **options), folder / NODES)
    refined = None
    if learning is not None:
        with stages("refine"):
            refined = refined_of(cfg, made, data, learning, folder / NODES)
            made = refined.made
    made.ticket.save(folder / FILE)

    with stages("evaluate"):
        ticket = Ticket.load(folder / FILE)  # what follows rests on the file alone
        LOG.info("reloaded %s: its source was generated again and has the same hash", FILE)
        found = evaluated(cfg, ticket, part.test_images, folder, made.copies(), calibration)
        goal, outputs = target(part.test_images), found.outputs
        comparison = evaluate.compare(goal, outputs, data.task)
        whole = goal if part is data else target(data.test_images)
        of_target, of_ticket = score_of(data, whole), score_of(part, outputs)
        off = np.abs(outputs.astype(np.float64) - goal)

    def errors(x: np.ndarray) -> np.ndarray:
        network, params, batch = found.form.network, found.form.params, cfg.evaluation.batch
        logits = evaluate.run(network, params, x, batch=batch).logits
        return np.abs((np.float32(ticket.factor) * logits).astype(np.float64) - target(x))

    with stages("certify") if names_of(cfg) else nullcontext():
        proofs = proofs_of(cfg, part, made, solver, calibration, goal, off, errors)
    rows = report.layer_rows(made, found.seen, found.layers, proofs[-1] if proofs else None)
    report.write_csv(folder / "layers.csv", rows)
    with stages("report"):
        _draw(folder, made, ticket.params, rows, goal, outputs)
    metrics = {
        "target": {
            "task": data.task,
            **report.target_metrics(cfg.target.name, target.network, target.params, *of_target),
        },
        "source": report.source_metrics(ticket, knows_target=source.knows_target),
        "ticket": report.ticket_metrics(
            *(ticket, of_ticket.accuracy, comparison, (folder / FILE).stat().st_size, target.params),
            *(of_ticket.errors, len(outputs)),
        ),
        "subset_sum": report.subset_sum_metrics(made, solver, 0 if calibration is None else len(calibration)),
        "fitting": report.fitting_metrics(made),
        "error": report.error_metrics(comparison, off),
        "evaluation": about_images(part, data, goal) | found.about,
        "refinement": None
        if refined is None
        else {k: v for k, v in refined._asdict().items() if k != "made"},
        **report.certificate_metrics(proofs),
        "seconds": {
            "prepare": stages.seconds["prepare"],
            "train": train_seconds,
            "construct": stages.seconds["construct"],
            "refine": stages.seconds.get("refine"),
            "evaluate": stages.seconds["evaluate"],
            "certify": stages.seconds.get("certify"),
            "report": stages.seconds["report"],
            "total": time.perf_counter() - started,
        },
        "memory": stages.memory,
        "environment": report.environment(),
    }
    show(report.ticket_table(metrics))
    shutil.rmtree(folder / NODES)
    forget(folder)
    return metrics


def constructed(plan: Plan, folder: Path) -> Construction:
    """The construction, with progress; nodes that a broken run has left in the folder are taken over."""
    fit = plan.fit
    if fit.predicted is not None:
        LOG.info("fit %g: the error that is predicted of the outputs is %.2g", fit.value, fit.predicted)
    total, nodes = len(sums(plan.target.network)), []
    size = sum(math.prod(shape) for shape in nn.parameter_shapes(plan.source.network).values())
    with report.layer_progress(total, size) as progress:
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
