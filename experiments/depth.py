"""How the error of a ticket's copies grows with depth, for each way to choose subsets."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.command_line import main
from experiments.points import layers_of, metrics_of, point
from experiments.tracking import tracked
from slth import report


@tracked("depth")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One ticket run for each solver and seed; the curves are geometric means over the seeds."""
    rows, curves, spread, found = [], {}, {}, []
    names: list[str] = []
    for solver in cfg.solvers:
        errors = []
        for seed in cfg.seeds:
            where = point(cfg, solver, seed, cfg.source.multiplicity)
            layers, metrics = layers_of(where), metrics_of(where)
            names = [row["layer"] for row in layers]
            errors.append([float(row["copy_error_test"]) for row in layers])
            rows += [{"solver": solver, "seed": seed, **row} for row in layers]
            found.append({"solver": solver, "seed": seed, "run": where.name} | metrics["ticket"])
        values = np.maximum(np.array(errors), 1e-12)  # 0 has no place on a logarithmic axis
        x = list(range(len(names)))
        curves[solver] = (x, np.exp(np.log(values).mean(0)).tolist())
        spread[solver] = (values.min(0).tolist(), values.max(0).tolist())
    report.write_csv(folder / "depth.csv", rows)
    report.draw_curves(
        folder / "depth.png",
        curves,
        x_label="",
        y_label="relative error of one copy",
        title=f"Error by depth: {cfg.target.name}, m = {cfg.source.multiplicity}, test images",
        names=names,
        log=True,
        spread=spread,
    )
    return {"points": found}


if __name__ == "__main__":
    main(run, "depth")
