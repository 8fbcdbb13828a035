"""The constructions of the literature side by side: how large a source each needs for the same error.

python -m experiments.compare_constructions target=mlp
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from experiments.claims import Claim, caption, recorded
from experiments.command_line import CONF, main
from experiments.compose import inputs_of, preset_of
from experiments.points import metrics_of, ticket_run
from experiments.targets import data_of, spec_of
from experiments.tracking import tracked
from slth import report
from slth.construction.presets import missing
from slth.report.tables import show

LOG = logging.getLogger(__name__)
Row = dict[str, Any]


@tracked("compare_constructions")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Ticket runs of each construction that covers the target, at each of its widths, for each seed.

    ``points.csv`` has them all. ``constructions.csv`` has of each construction the smallest source that
    reaches ``cfg.error`` with every seed, or the widest if none does; numbers are means over the seeds.
    """
    data = data_of(cfg)
    network = spec_of(cfg, data)
    rows: list[Row] = []
    chosen: list[Row] = []
    curves, uncovered = {}, {}
    for label, entry in cfg.constructions.items():
        construction = OmegaConf.to_container(OmegaConf.load(CONF / f"construction/{entry.name}.yaml"))
        assert isinstance(construction, dict)
        construction = {str(k): v for k, v in construction.items()}
        lacking = missing(preset_of(construction), network, inputs_of(data))
        if lacking is not None:
            LOG.info("%s leaves out %s", label, lacking)
            uncovered[str(label)] = lacking
            continue
        found = []
        for width in entry.widths:
            points = [_point(cfg, str(label), construction, width, seed) for seed in cfg.seeds]
            rows += points
            report.write_csv(folder / "points.csv", rows)
            found.append(_mean(points))
        curves[str(label)] = ([one["parameters"] for one in found], [one["max_error"] for one in found])
        reached = [one for one in found if one["worst_error"] <= cfg.error]
        chosen.append({**(reached[0] if reached else found[-1]), "reached": bool(reached)})
    if not chosen:
        raise ValueError("constructions: none of them covers this target: " + str(uncovered))
    report.write_csv(folder / "constructions.csv", chosen)
    report.draw_curves(
        folder / "constructions.png",
        curves,
        x_label="parameters of the source",
        y_label="largest logit error on test images",
        title=f"Sources of the constructions: {cfg.target.name}",
        log=True,
        log_x=True,
        level=(f"error asked for, {cfg.error:g}", cfg.error),
    )
    show(_table(chosen))
    names = {str(label): str(entry.name) for label, entry in cfg.constructions.items()}
    claims = claims_of([{**row, "name": names[row["construction"]]} for row in chosen], cfg.error)
    said = (
        f"Largest error of a logit on test images against the number of the source's parameters, for "
        f"sources of growing width of each construction, {cfg.target.name}. "
        + " ".join(_described(row) for row in chosen)
        + "".join(f" Left out: {label} ({lacking})." for label, lacking in uncovered.items())
    )
    return {
        "error": cfg.error,
        "constructions": chosen,
        "uncovered": uncovered,
        "points": rows,
    } | recorded(claims, {"constructions": caption(said, claims)})


def _described(row: Row) -> str:
    reached = "reaches" if row["reached"] else "does not reach"
    return (
        f"{row['construction']} {reached} the error asked for with {row['parameters']:,} parameters, of "
        f"which the ticket keeps {row['kept']:,.0f} (error {row['max_error']:.2g})."
    )


PAIRS = (
    ("burkholz2022_fc", "pensia2020", "L + 1 layers need fewer parameters than 2L."),
    ("burkholz2022", "dacunha2021", "L + 1 layers need fewer parameters than 2L for inputs not below 0."),
    ("pensia2020", "malach2020", "Subset sums need fewer parameters than one random weight for each weight."),
    ("dacunha2021", "pensia2020", "Inputs that are not below 0 need fewer parameters than any inputs."),
)
"""Constructions, the one that is said to need the smaller source first."""


def claims_of(chosen: Sequence[Mapping[str, Any]], error: float) -> list[Claim]:
    """Which constructions need the smaller sources for the same error.

    Args:
      chosen: rows of ``constructions``, with the ``name`` of the preset.
    """
    by_name = {row["name"]: row for row in chosen}
    claims = []
    for small, large, text in PAIRS:
        if small in by_name and large in by_name:
            one, other = by_name[small], by_name[large]
            claims.append(
                Claim(
                    text,
                    _fewer(one, other),
                    f"For an error of {error:g}, {small} {_needs(one)} and {large} {_needs(other)}",
                )
            )
    return claims


def _fewer(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    """Whether one needs fewer parameters; a construction whose widest source misses needs more than that."""
    if one["reached"] and other["reached"]:
        return one["parameters"] < other["parameters"]
    if one["reached"] and one["parameters"] <= other["parameters"]:
        return True
    if other["reached"] and other["parameters"] <= one["parameters"]:
        return False
    return None


def _needs(row: Mapping[str, Any]) -> str:
    if row["reached"]:
        return f"needs {row['parameters']:,}"
    return f"has {row['worst_error']:.2g} with {row['parameters']:,}, its most"


def _point(cfg: DictConfig, label: str, construction: Row, width: int, seed: int) -> Row:
    """One ticket run. The width of L+1 is its multiplicity, that of 2L the channels of an input and sign."""
    name = "multiplicity" if construction["depth"] == "L+1" else "univariate"
    LOG.info("%s, %s %d, seed %d", label, name, width, seed)
    where = ticket_run(cfg, construction=construction, source={name: width, "seed": seed})
    metrics = metrics_of(where)
    return {
        **{"construction": label, "layers": construction["depth"], "width": width, "seed": seed},
        "depth": metrics["source"]["depth"],
        "parameters": metrics["source"]["parameters"],
        "kept": metrics["ticket"]["nonzero"],
        "problems": metrics["subset_sum"]["problems"],
        "unsolved": metrics["subset_sum"]["unsolved"],
        "max_error": metrics["error"]["max"],
        "relative_error": metrics["error"]["relative"],
        "agreement": metrics["ticket"]["agreement"],
        "seconds": metrics["seconds"]["construct"],
        "run": where.name,
    }


def _mean(points: list[Row]) -> Row:
    """The means of some seeds' numbers, and their largest error."""
    kept = ("construction", "layers", "width", "depth", "parameters")
    averaged = ("kept", "problems", "unsolved", "max_error", "relative_error", "agreement", "seconds")
    row = {name: points[0][name] for name in kept}
    for name in averaged:
        values = [one[name] for one in points]
        row[name] = None if None in values else sum(values) / len(values)  # no agreement without classes
    return row | {"worst_error": max(one["max_error"] for one in points)}


def _table(chosen: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    heads = ("construction", "layers", "width", "parameters", "kept", "unsolved", "of", "error", "agreement")
    for number, head in enumerate((*heads, "seconds")):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in chosen:
        table.add_row(
            *(row["construction"], row["layers"], str(row["width"]), f"{row['parameters']:,}"),
            *(f"{row['kept']:,.0f}", f"{row['unsolved']:,.1f}", f"{row['problems']:,.0f}"),
            f"{row['max_error']:.3g}" + ("" if row["reached"] else " (not reached)"),
            *("" if row["agreement"] is None else f"{100 * row['agreement']:.2f} %", f"{row['seconds']:.1f}"),
        )
    return table


if __name__ == "__main__":
    main(run, "compare_constructions")
