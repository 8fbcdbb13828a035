"""What theory proves of a ticket's error, and what the error is: bounds.csv and bounds.png.

python -m experiments.bounds data.dir=DIR data.limit=64 target.checkpoint=FILE
python -m experiments.bounds data=digits target=digits_cnn
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from experiments.claims import Claim, caption, recorded
from experiments.command_line import main
from experiments.points import metrics_of, point
from experiments.tracking import tracked
from slth import report
from slth.report.words import percent

CURVES = {
    "error_found": "largest error found",
    "data_bound": "bound on the test images",
    "box_bound": "bound on all images",
    "theorem_epsilon": "Theorem 2",
}


@tracked("bounds")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One ticket run for each multiplicity, tolerance, objective and seed; curves are the worst of seeds."""
    if cfg.certificate.name != "data+box":
        raise ValueError(f"certificate: the bounds drawn are those of data+box, got {cfg.certificate.name}")
    rows: list[dict[str, Any]] = []
    proofs: list[dict[str, Any]] = []
    for multiplicity in cfg.multiplicities:  # narrow sources first: they are done in no time
        for tolerance in cfg.tolerances:
            for solver in cfg.solvers:
                for seed in cfg.seeds:
                    where = point(cfg, solver, seed, multiplicity, tolerance)
                    metrics = metrics_of(where)
                    key = {"solver": solver, "tolerance": tolerance, "multiplicity": multiplicity}
                    rows.append({**key, "seed": seed, **_row(metrics), "run": where.name})
                    proofs += [{**key, "seed": seed, **one} for one in metrics["certificates"]]
                    report.write_csv(folder / "bounds.csv", rows)
    panels = {}
    for tolerance in cfg.tolerances:
        for solver in cfg.solvers:
            own = [row for row in rows if (row["solver"], row["tolerance"]) == (solver, tolerance)]
            title = solver if len(cfg.tolerances) == 1 else f"{solver}, ε = {tolerance:g}"
            panels[title] = [
                report.Curve(label, list(cfg.multiplicities), _worst(own, name, cfg.multiplicities))
                for name, label in CURVES.items()
            ]
    margins = [
        one["margin"] for one in proofs if one["margin"] is not None
    ]  # none where there are no classes
    report.draw_bounds(
        folder / "bounds.png",
        panels,
        title=f"What is proved of a ticket's error and what it is: {cfg.target.name} on {cfg.data.name}",
        x_label="multiplicity m",
        level=("half the largest margin", max(margins) / 2) if margins else None,
        columns=len(cfg.solvers),
    )
    claims = claims_of(rows)
    count = len(cfg.seeds)
    said = (
        f"Largest error of an output of tickets of {cfg.target.name} that was found, what is proved of it "
        "on the test images and on all images, and what Theorem 2 promises, against m, by the way subsets "
        f"are chosen. {f'Seed {cfg.seeds[0]}' if count == 1 else f'The worst of {count} seeds'}."
    )
    return {"points": rows, "certificates": proofs} | recorded(claims, {"bounds": caption(said, claims)})


def claims_of(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Whether bounds hold, whether they say anything, and whether subset sums keep Theorem 2's budgets."""
    closest = max(rows, key=lambda row: row["error_found"] / row["data_bound"])
    best = max(rows, key=lambda row: row["box_certified"] or 0.0)
    tight = min(rows, key=lambda row: row["box_bound"] / row["error_found"])
    kept = [row for row in rows if row["budgets_met"]]
    return [
        Claim(
            "No error that is found exceeds what is proved.",
            all(row["holds"] for row in rows),
            f"Of {len(rows)} tickets {sum(row['holds'] for row in rows)} keep their bounds; the error that "
            f"comes closest is {percent(closest['error_found'] / closest['data_bound'])} of its bound "
            f"({_named(closest)})",
        ),
        Claim(
            "The bound on all images is small enough to certify some test image.",
            None if best["box_certified"] is None else best["box_certified"] > 0,
            f"At best {percent(best['box_certified'] or 0.0)} of them are certified ({_named(best)}); the "
            f"bound is at least {tight['box_bound'] / tight['error_found']:,.3g} times the error found",
        ),
        Claim(
            "Subset sums keep the budgets of Theorem 2.",
            len(kept) == len(rows),
            f"Those of {len(kept)} of {len(rows)} tickets do; to be sure of it beforehand, the theorem asks "
            f"for m = {rows[-1]['required_multiplicity']}",
        ),
    ]


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['solver']}, m = {row['multiplicity']}"


def _row(metrics: Mapping[str, Any]) -> dict[str, Any]:
    data, box = metrics["certificates"]
    theorem = metrics["theorem"]
    return {
        "accuracy": metrics["ticket"]["accuracy"],
        "agreement": metrics["ticket"]["agreement"],
        "unsolved": metrics["subset_sum"]["unsolved"],
        "max_problem_error": metrics["subset_sum"]["max_error"],
        "error_found": max(data["error"], box["error"]),
        "data_bound": data["bound"],
        "data_certified": data["certified_fraction"],
        "box_bound": box["bound"],
        "box_certified": box["certified_fraction"],
        "theorem_epsilon": theorem["guaranteed"],
        "theorem_epsilon_data": data["theorem"]["guaranteed"],
        "required_multiplicity": theorem["required_multiplicity"],
        "budgets_met": theorem["satisfied"],
        "holds": data["holds"] and box["holds"],
    }


def _worst(rows: list[dict[str, Any]], name: str, multiplicities: list[int]) -> list[float | None]:
    """The largest value over the seeds by multiplicity; None (not drawn) if one is not finite."""
    found: list[float | None] = []
    for m in multiplicities:
        values = [row[name] for row in rows if row["multiplicity"] == m]
        found.append(None if None in values else float(np.max(values)))
    return found


if __name__ == "__main__":
    main(run, "bounds", verdict=report.broken_bound)
