"""How exact subset sums must be: accuracy and error of tickets against epsilon; epsilon.png."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.claims import (
    Claim,
    as_good,
    band_of,
    caption,
    close,
    listed,
    means_of,
    number_of,
    recorded,
    seeds_said,
)
from experiments.command_line import main
from experiments.defaults import file_of
from experiments.points import metrics_of, point
from experiments.tracking import tracked
from slth import report

LOG = logging.getLogger(__name__)
Row = dict[str, Any]


@tracked("epsilon")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Ticket runs of each network, multiplicity, tolerance and seed; the curves are means over the seeds."""
    if len(cfg.solvers) != 1:
        raise ValueError(f"solvers: epsilon draws one solver's curves, got {listed(list(cfg.solvers))}")
    networks = list(_networks(cfg))
    rows: list[Row] = []
    for name, own in networks:
        for row in _points(own):
            rows.append({"target": name, **row})
            report.write_csv(folder / "epsilon.csv", rows)
    panels = []
    for name, _ in networks:
        panels += _panels([row for row in rows if row["target"] == name], list(cfg.references), name)
    report.draw_panels(
        folder / "epsilon.png",
        panels,
        title=f"Tickets by the tolerance of their subset sums: {listed([name for name, _ in networks])}",
        x_label="tolerance ε, in units of the source's scale",
        log_x=True,
        ticks={e: f"{e:g}" for e in sorted(cfg.tolerances)},
    )
    claims = [
        claim
        for name, _ in networks
        for claim in claims_of([row for row in rows if row["target"] == name], name)
    ]
    (solver,) = cfg.solvers
    said = (
        f"Accuracy (left) and relative error of the outputs (right) of tickets on the test images, against "
        f"the tolerance ε of every subset sum, for m copies of each channel, {solver} subsets. "
        + (f"Dotted: {listed(list(cfg.references))}, which ε does not steer. " if cfg.references else "")
        + seeds_said(cfg.seeds)
    )
    return {"points": rows} | recorded(claims, {"epsilon": caption(said, claims)})


def _networks(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The target and those beside it, by name, each with the config of its runs."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    shared = {str(k): v for k, v in plain.items() if k != "beside"}
    for name, changes in (plain["beside"] or {}).items():
        own = file_of("target", name)
        if not own:
            raise ValueError(f"beside: there is no conf/target/{name}.yaml")
        for key in changes:
            if key not in own:
                raise ValueError(f"beside.{name}.{key}: there is no such setting of a target")
        yield name, OmegaConf.create(shared | {"target": own | changes})
    yield cfg.target.name, OmegaConf.create(shared)


def _points(cfg: DictConfig) -> Iterator[Row]:
    """The runs of one network; a reference's ε is that of ``solver``."""
    (solver,) = cfg.solvers
    known = OmegaConf.merge(cfg, {"solvers": cfg.references})
    assert isinstance(known, DictConfig)
    for multiplicity in cfg.multiplicities:  # narrow sources first: they are done in no time
        for seed in cfg.seeds:
            for tolerance in cfg.tolerances:
                yield _row(cfg, solver, seed, multiplicity, tolerance)
            for name in cfg.references:
                yield _row(known, name, seed, multiplicity, None)


def _row(cfg: DictConfig, solver: str, seed: int, multiplicity: int, tolerance: float | None) -> Row:
    where = point(cfg, solver, seed, multiplicity, tolerance)
    metrics = metrics_of(where)
    return {
        **{"solver": solver, "multiplicity": multiplicity, "tolerance": tolerance, "seed": seed},
        "target_accuracy": metrics["target"]["accuracy"],
        "accuracy": metrics["ticket"]["accuracy"],
        "agreement": metrics["ticket"]["agreement"],
        "density": metrics["ticket"]["density"],
        "relative_error": metrics["error"]["relative"],
        "max_error": metrics["error"]["max"],
        "unsolved": metrics["subset_sum"]["unsolved"],
        "problems": metrics["subset_sum"]["problems"],
        "mean_size": metrics["subset_sum"]["mean_size"],
        "run": where.name,
    }


def _panels(rows: Sequence[Row], references: Sequence[str], name: str) -> list[report.Panel]:
    """Accuracy, unless the labels are numbers, and relative error of one network."""
    target = rows[0]["target_accuracy"]
    swept = [row for row in rows if row["tolerance"] is not None]
    tolerances = {row["tolerance"] for row in swept}
    ends = sorted({min(tolerances), max(tolerances)})
    panels = []
    for y, label, scale in (
        ("accuracy", "test accuracy of the ticket, %", 100),
        ("relative_error", "relative error of the outputs", 1),
    ):
        if y == "accuracy" and target is None:
            continue
        bands = []
        if y == "accuracy" and target is not None:
            level = [100 * target] * len(ends)
            bands.append(report.Band("target", ends, level, level, level, reference=True))
        for m in sorted({row["multiplicity"] for row in rows}):
            own = [row for row in swept if row["multiplicity"] == m]
            bands.append(band_of(f"m = {m}", own, "tolerance", y, scale))
            for reference in references:
                flat = [
                    {**row, "tolerance": end}
                    for end in ends
                    for row in rows
                    if (row["solver"], row["multiplicity"]) == (reference, m) and row["tolerance"] is None
                ]
                label_of = f"m = {m}, {reference}"
                bands.append(band_of(label_of, flat, "tolerance", y, scale, like=f"m = {m}"))
        panels.append(report.Panel(bands, label, name, log=y != "accuracy"))
    return panels


def claims_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[Claim]:
    """Whether ε = 0.01 is enough for one network, whether a smaller one helps, and whether prices help more.

    Args:
      rows: of ``points``; where ``tolerance`` is None, the row is of a reference.
    """
    target = rows[0]["target_accuracy"]
    by = ("multiplicity", "tolerance", "solver")
    means = means_of(rows, by, ("relative_error", *(() if target is None else ("accuracy",))))
    swept = [row for row in means if row["tolerance"] is not None]
    fine, coarse = (pick(row["tolerance"] for row in swept) for pick in (min, max))
    claims = []
    wide = max(row["multiplicity"] for row in swept)
    enough = [row for row in swept if row["multiplicity"] == wide and row["tolerance"] <= 0.01]
    if enough:
        claims.append(
            Claim(
                f"{name}: with ε ≤ 0.01 and {wide} copies, tickets are {as_good(target)}.",
                all(close(row, target) for row in enough),
                "They have "
                + listed([f"{number_of(row, target)} (ε = {row['tolerance']:g})" for row in enough]),
            )
        )
    error = {(row["multiplicity"], row["tolerance"]): row["relative_error"] for row in swept}
    widths = sorted({m for m, _ in error})
    if fine < coarse:
        claims.append(
            Claim(
                f"{name}: a smaller ε makes smaller errors, whatever the width.",
                all(error[m, fine] < error[m, coarse] for m in widths),
                f"From ε = {coarse:g} to {fine:g} the relative error goes "
                + listed([f"from {error[m, coarse]:.3g} to {error[m, fine]:.3g} (m = {m})" for m in widths]),
            )
        )
    for other in dict.fromkeys(row["solver"] for row in means if row["tolerance"] is None):
        priced = {row["multiplicity"]: row["relative_error"] for row in means if row["solver"] == other}
        best = {m: min(error[m, e] for _, e in error if (m, e) in error) for m in widths}
        claims.append(
            Claim(
                f"{name}: no ε makes errors as small as {other} subsets do.",
                all(priced[m] < best[m] for m in widths),
                listed([f"{priced[m]:.3g} against {best[m]:.3g} (m = {m})" for m in widths]),
            )
        )
    return claims


if __name__ == "__main__":
    main(run, "epsilon")
