"""How wide a source must be, and how wide the theorem asks it to be: width.csv and width.png."""

from collections.abc import Mapping, Sequence
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
from slth.subset_sum.theory import required_multiplicity

FACTOR = (9, 15)
"""Copies of a channel that are said to be enough in practice: the paper's "factor 9 to 15"."""
APART = 1.2
"""Least ratio of two widths whose labels do not touch."""
Row = dict[str, Any]


@tracked("width")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One ticket run for each solver, multiplicity and seed; the curves are means over the seeds."""
    rows: list[Row] = []
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
                        "problems": metrics["subset_sum"]["problems"],
                        "unsolved": metrics["subset_sum"]["unsolved"],
                        "construct_seconds": metrics["seconds"]["construct"],
                        "run": where.name,
                    }
                )
                report.write_csv(folder / "width.csv", rows)
    asked = asked_of(rows, cfg.solver.tolerance, cfg.delta) | _theorem(cfg)
    claims = claims_of(rows, target, asked)
    _draw(folder / "width.png", rows, target, asked, cfg.target.name)
    said = (
        f"{'Error' if target is None else 'Accuracy and relative error'} of tickets of {cfg.target.name} on "
        "the test images against m, the copies that the source holds of each channel of the target, by the "
        f"way subsets are chosen. {seeds_said(cfg.seeds)} Shaded: the factor {FACTOR[0]} to {FACTOR[1]}. "
        f"Below each m: mean bits of a ticket's file for each weight of the target."
    )
    return {"target_accuracy": target, "asked": asked, "points": rows} | recorded(
        claims, {"width": caption(said, claims)}
    )


def asked_of(rows: Sequence[Mapping[str, Any]], tolerance: float, delta: float) -> dict[str, int]:
    """The m that the lemma on subset sums asks for, within ``tolerance`` and with probability 1 - ``delta``.

    ``problem`` is for one problem alone, ``network`` for all problems of the network at once (union bound):
    their number grows with m itself, in proportion to what the widest source here has.
    """
    widest = max(rows, key=lambda row: row["multiplicity"])
    each = widest["problems"] / widest["multiplicity"]
    m = alone = required_multiplicity(tolerance, delta)
    while (needed := required_multiplicity(tolerance, delta, problems=max(1, round(each * m)))) > m:
        m = needed
    return {"problem": alone, "network": m}


def _theorem(cfg: DictConfig) -> dict[str, Any]:
    """The m that Theorem 2 asks for, so that no logit on the test images is off by more than it was given.

    It is asked of the narrowest source, which is done soonest: the theorem knows of a source no more than the
    scale of its weights, to which the target is fitted. In 2L there is none.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    asked = {"certificate": file_of("certificate", "data")}
    asking = OmegaConf.create({str(k): v for k, v in plain.items()} | asked)
    solver = next(iter(cfg.solvers))
    theorem = metrics_of(point(asking, solver, cfg.seeds[0], min(cfg.multiplicities)))["theorem"]
    return {"theorem": theorem["required_multiplicity"], "theorem_epsilon": theorem["epsilon"]}


def claims_of(
    rows: Sequence[Mapping[str, Any]], target: float | None, asked: Mapping[str, Any]
) -> list[Claim]:
    """What the points say: which objectives the factor 9 to 15 is enough for, and what the theorem asks."""
    names = ("relative_error",) if target is None else ("relative_error", "accuracy")
    means = means_of(rows, ("solver", "multiplicity"), names)
    claims, least = [], {}
    for solver in dict.fromkeys(row["solver"] for row in rows):
        own = sorted((row for row in means if row["solver"] == solver), key=lambda row: row["multiplicity"])
        inside = [row for row in own if FACTOR[0] <= row["multiplicity"] <= FACTOR[1]]
        from_there: int | None = None
        for row in reversed(own):
            if not close(row, target):
                break
            from_there = row["multiplicity"]
        if from_there is not None:
            least[solver] = from_there
        reached = (
            f"{solver} is so from m = {from_there} on"
            if from_there is not None
            else f"{solver} is not so at m = {own[-1]['multiplicity']}"
        )
        shown = [f"{number_of(row, target)} at m = {row['multiplicity']}" for row in inside]
        claims.append(
            Claim(
                f"With {solver} subsets a factor of {FACTOR[0]} to {FACTOR[1]} is enough: tickets are "
                f"{as_good(target)}.",
                all(close(row, target) for row in inside) if inside else None,
                f"{reached}; " + (listed(shown) if shown else "no such width was measured"),
            )
        )
    widths = {
        "one subset sum": asked["problem"],
        "all of the network at once": asked["network"],
        f"Theorem 2, logits within {asked['theorem_epsilon']:g}" if asked.get("theorem") else "": asked.get(
            "theorem"
        ),
    }
    said = listed([f"m = {m} for {what}" for what, m in widths.items() if m is not None])
    claims.append(
        Claim(
            "The width that the theorem asks for is sufficient, not necessary.",
            min(least.values()) < asked["network"] if least else None,
            f"It asks for {said}; "
            + (
                listed([f"m = {m} does with {solver}" for solver, m in least.items()])
                if least
                else "no measured width does"
            ),
        )
    )
    return claims


def _draw(path: Path, rows: list[Row], target: float | None, asked: Mapping[str, Any], name: str) -> None:
    coded = {
        m: [row["coded_bits_per_weight"] for row in rows if row["multiplicity"] == m]
        for m in sorted({row["multiplicity"] for row in rows})
    }
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    wide = [m for key in ("problem", "network", "theorem") if (m := asked.get(key)) is not None]
    panels = []
    for y, label, scale in (
        ("accuracy", "test accuracy of the ticket, %", 100),
        ("relative_error", "relative error of the outputs", 1),
    ):
        if y == "accuracy" and target is None:
            continue
        bands = [
            band_of(solver, [row for row in rows if row["solver"] == solver], "multiplicity", y, scale)
            for solver in solvers
        ]
        if y == "accuracy" and target is not None:
            ends, level = [min(coded), max([*coded, *wide])], [100 * target] * 2
            bands.insert(0, report.Band("target", ends, level, level, level, reference=True))
        panels.append(report.Panel(bands, label, log=y != "accuracy"))
    names = {
        "problem": "asked for one subset sum",
        "network": "asked for all subset sums",
        "theorem": "asked by Theorem 2",
    }
    report.draw_panels(
        path,
        panels,
        x_label="multiplicity m, copies of each channel\nbits of the coded ticket for each weight",
        log_x=True,
        ticks={m: f"{m}\n{sum(bits) / len(bits):.0f}" for m, bits in coded.items()}
        | {m: f"{m}" for m in wide if all(max(m / n, n / m) > APART for n in coded)},
        title=f"{'Error' if target is None else 'Accuracy and error'} by width of the source: {name}",
        marks={
            f"{label}: m = {asked[key]}": asked[key]
            for key, label in names.items()
            if asked.get(key) is not None
        },
        within=(f"factor {FACTOR[0]} to {FACTOR[1]}", *FACTOR),
    )


if __name__ == "__main__":
    main(run, "width")
