"""How wide a source must be: accuracy (of numbers, error) against multiplicity for each solver, width.csv and
width.png."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.command_line import main
from experiments.points import metrics_of, point
from experiments.tracking import tracked
from slth import report


@tracked("width")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One ticket run for each solver, multiplicity and seed; the curves are means over the seeds."""
    rows: list[dict[str, Any]] = []
    target: float | None = None
    for multiplicity in cfg.multiplicities:  # narrow sources first: they are done in no time
        for solver in cfg.solvers:
            for seed in cfg.seeds:
                where = point(cfg, solver, seed, multiplicity)
                metrics = metrics_of(where)
                target = metrics["target"]["accuracy"]
                rows.append(
                    {
                        **{"solver": solver, "multiplicity": multiplicity, "seed": seed},
                        "accuracy": metrics["ticket"]["accuracy"],
                        "agreement": metrics["ticket"]["agreement"],
                        "density": metrics["ticket"]["density"],
                        "bits_per_weight": metrics["ticket"]["bits_per_weight"],
                        "coded_bits_per_weight": metrics["ticket"]["coded_bits_per_weight"],
                        "mean_error": metrics["error"]["mean"],
                        "max_error": metrics["error"]["max"],
                        "relative_error": metrics["error"]["relative"],
                        "unsolved": metrics["subset_sum"]["unsolved"],
                        "construct_seconds": metrics["seconds"]["construct"],
                        "run": where.name,
                    }
                )
                report.write_csv(folder / "width.csv", rows)
    coded = {
        m: [row["coded_bits_per_weight"] for row in rows if row["multiplicity"] == m]
        for m in cfg.multiplicities
    }
    curves, spread = {}, {}
    drawn, scale = ("relative_error", 1) if target is None else ("accuracy", 100)
    for solver in cfg.solvers:
        by_width = [
            [scale * row[drawn] for row in rows if (row["solver"], row["multiplicity"]) == (solver, m)]
            for m in cfg.multiplicities
        ]
        curves[solver] = (list(cfg.multiplicities), [sum(one) / len(one) for one in by_width])
        spread[solver] = ([min(one) for one in by_width], [max(one) for one in by_width])
    report.draw_curves(
        folder / "width.png",
        curves,
        x_label="multiplicity m (copies of each channel), and mean bits of the coded ticket for each weight",
        ticks={m: f"{m}\n{sum(bits) / len(bits):.1f}" for m, bits in coded.items()},
        y_label="relative error of the outputs" if target is None else "test accuracy of the ticket, %",
        title=f"{'Error' if target is None else 'Accuracy'} by width of the source: {cfg.target.name}",
        log=target is None,
        level=None if target is None else ("target", 100 * target),
        spread=spread,
    )
    return {"target_accuracy": target, "points": rows}


if __name__ == "__main__":
    main(run, "width")
