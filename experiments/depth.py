"""How the error of a ticket's copies grows with depth, for each way to choose subsets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.claims import Claim, caption, recorded, seeds_said
from experiments.command_line import main
from experiments.points import layers_of, metrics_of, point
from experiments.tracking import tracked
from slth import report
from slth.report.words import percent

SMALL = 0.1
"""Relative error of a copy that counts as small."""


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
    claims = claims_of({solver: values for solver, (_, values) in curves.items()}, names)
    said = (
        f"Relative error of one copy of a channel, layer by layer, in tickets of {cfg.target.name} with "
        f"m = {cfg.source.multiplicity} copies, on test images, by the way subsets are chosen. "
        f"{seeds_said(cfg.seeds)}"
    )
    return {"points": found} | recorded(claims, {"depth": caption(said, claims)})


def claims_of(errors: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[Claim]:
    """Whether errors stay small in all layers, for each way to choose subsets.

    Args:
      errors: by solver, one for each layer.
      names: of the layers.
    """
    claims = []
    for solver, values in errors.items():
        worst = int(np.argmax(values))
        claims.append(
            Claim(
                f"With {solver} subsets the error of a copy stays below {percent(SMALL)} in every layer.",
                max(values) < SMALL,
                f"It is {values[0]:.2g} in {names[0]} and {values[-1]:.2g} in {names[-1]}, and at most "
                f"{values[worst]:.2g} ({names[worst]})",
            )
        )
    return claims


if __name__ == "__main__":
    main(run, "depth")
