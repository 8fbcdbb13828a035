"""What a bit buys: accuracy of tickets and of the rounded target against bits for each weight.

python -m experiments.bits
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from experiments.claims import POINT, Claim, caption, recorded
from experiments.command_line import main
from experiments.points import metrics_of, ticket_run
from experiments.targets import data_of, target_of
from experiments.tracking import tracked
from slth import evaluate, report
from slth.data import Data
from slth.quantise import quantised
from slth.report.tables import show
from slth.report.words import percent
from slth.target import Target

LOG = logging.getLogger(__name__)
Row = dict[str, Any]
MEASURED = ("construct", "refine", "evaluate")
"""Stages whose memory counts."""
ROUNDED, PUBLISHED = "target rounded", "published"
"""How the kinds begin that are no tickets."""
AVERAGED = ("bits", "mask_bits", "accuracy", "agreement", "seconds", "memory")


@tracked("bits")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Ticket runs at each size for each seed, and the target rounded to as many bits, on the same images.

    ``points.csv`` has them all, ``bits.csv`` and the figures the means over the seeds.
    """
    data = data_of(cfg)
    if data.task != "classes":
        raise ValueError(f"data: bits draws accuracies, and the labels of {data.name} are no classes")
    rows: list[Row] = []
    for row in _tickets(cfg):
        rows.append(row)
        report.write_csv(folder / "points.csv", rows)
    target, _ = target_of(cfg, data, folder)
    rows += _rounded(cfg, target, data)
    rows += [
        {"kind": PUBLISHED, "label": one.label, "bits": one.bits, "accuracy": one.accuracy}
        for one in cfg.published
        if (one.target, one.data) == (cfg.target.name, data.name)
    ]
    report.write_csv(folder / "points.csv", rows)
    means = _means(rows)
    report.write_csv(folder / "bits.csv", means)
    own = data.accuracy(target(data.test_images))
    for name, level in (("accuracy", own), ("agreement", 1.0)):
        _draw(folder / f"bits_{name}.png", means, name, level, cfg.target.name)
    show(_table(means))
    claims = claims_of(means, own)
    captions = {
        f"bits_{name}": caption(
            f"{said} on test images against bits for each weight of the target {cfg.target.name}: those of "
            "the ticket's file, of the rounded target those of its levels and scales.",
            claims,
        )
        for name, said in (("accuracy", "Accuracy"), ("agreement", "Agreement with the target"))
    }
    return {"target_accuracy": own, "means": means, "points": rows} | recorded(claims, captions)


def claims_of(means: Sequence[Mapping[str, Any]], target: float) -> list[Claim]:
    """Whether tickets, curve by curve, need as few bits as the rounded target to be as good as it."""
    few: dict[str, Mapping[str, Any]] = {}
    for row in sorted(means, key=lambda row: row["bits"], reverse=True):
        if row["accuracy"] is not None and row["accuracy"] >= target - POINT:
            few[row["kind"]] = row
    kinds = dict.fromkeys(row["kind"] for row in means)
    rounded = [few[kind] for kind in kinds if kind in few and kind.startswith(ROUNDED)]
    if not rounded:
        return []
    least = min(rounded, key=lambda row: row["bits"])
    claims = []
    for kind in kinds:
        if kind.startswith((ROUNDED, PUBLISHED)):
            continue
        own = few.get(kind)
        claims.append(
            Claim(
                f"Tickets of {kind} need no more bits than the rounded target to come within one point of "
                f"{percent(target)}.",
                own is not None and own["bits"] <= least["bits"],
                (
                    f"{own['label']} needs {own['bits']:.2f} bits a weight ({percent(own['accuracy'])})"
                    if own is not None
                    else "No ticket measured comes so near"
                )
                + f", {least['label']} {least['bits']:.2f} ({percent(least['accuracy'])})",
            )
        )
    return claims


def _tickets(cfg: DictConfig) -> Iterator[Row]:
    """One run for each source and seed."""
    for curve, groups in _points(cfg):
        for seed in cfg.seeds:
            LOG.info("%s, %s, seed %d", curve, groups, seed)
            where = ticket_run(cfg, **groups | {"source": groups.get("source", {}) | {"seed": seed}})
            metrics = metrics_of(where)
            ticket, seconds = metrics["ticket"], metrics["seconds"]
            label = _label(curve, metrics, groups)
            yield {
                **{"kind": curve, "label": label, "seed": seed},
                "bits": ticket["coded_bits_per_weight"],
                "mask_bits": ticket["bits_per_weight"],
                "accuracy": ticket["accuracy"],
                "agreement": ticket["agreement"],
                "seconds": seconds["construct"] + (seconds["refine"] or 0.0),
                "memory": max(filter(None, map(metrics["memory"].get, MEASURED)), default=None),
                "run": where.name,
            }


def _points(cfg: DictConfig) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """The curve and the settings by group of every point, all of them checked before the first run."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    points = []
    for name, curve in plain["tickets"].items():
        where = f"tickets.{name}"
        if not isinstance(curve, dict) or not {"label", "points"} <= set(curve):
            raise ValueError(f"{where}: expected a label, points, and settings by group, got {curve!r}")
        shared = {group: values for group, values in curve.items() if group not in ("label", "points")}
        for point in [shared, *curve["points"]]:
            for group, values in point.items():
                known = plain.get(group)
                if not (isinstance(known, dict) and isinstance(values, dict)):
                    raise ValueError(f"{where}: {group}: expected a group of settings, got {values!r}")
                for key in values:
                    if key not in known or key == "seed":
                        hint = "use seeds" if key == "seed" else "there is no such setting"
                        raise ValueError(f"{where}: {group}.{key}: {hint}")
        points += [
            (curve["label"], {g: {**shared.get(g, {}), **point.get(g, {})} for g in {**shared, **point}})
            for point in curve["points"]
        ]
    labels = [repr(one) for one in points]
    if len(set(labels)) < len(labels):
        raise ValueError("tickets: a point stands there twice")
    return points


def _label(kind: str, metrics: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> str:
    """A point in words: the curve, the width, and all else that is set."""
    wide = metrics["source"]
    size = f"N = {wide['univariate']}" if wide["univariate"] else f"m = {wide['multiplicity']}"
    said = {"depth", "method", "univariate", "multiplicity"}
    others = [f"{k} {v}" for values in groups.values() for k, v in values.items() if k not in said]
    return ", ".join([kind, size, *others])


def _rounded(cfg: DictConfig, target: Target, data: Data) -> Iterator[Row]:
    """The target rounded to few bits, with a scale for each output channel."""
    goal = target(data.test_images)
    for rounding, sizes in cfg.quantised.items():
        images = data.calibration(min(cfg.rounding_images, len(data.train_images)))
        for bits in sizes:
            LOG.info("%s rounding to %d bits", rounding, bits)
            found = quantised(target, bits, rounding, images if rounding == "feedback" else None)
            outputs = found.target(data.test_images)
            yield {
                **{"kind": f"{ROUNDED}, {rounding}", "label": f"{rounding}, {bits} bits", "seed": None},
                "bits": found.bits_per_weight,
                "accuracy": data.accuracy(outputs),
                "agreement": evaluate.compare(goal, outputs, data.task).agreement,
            }


def _means(rows: list[Row]) -> list[Row]:
    """The means over the seeds of each label, in order."""
    means = []
    for label in dict.fromkeys(row["label"] for row in rows):
        same = [row for row in rows if row["label"] == label]
        mean: Row = {"kind": same[0]["kind"], "label": label, "seeds": len(same)}
        for name in AVERAGED:
            values = [row[name] for row in same if row.get(name) is not None]
            mean[name] = float(np.mean(values)) if values else None
        means.append(mean)
    return means


def _draw(path: Path, means: list[Row], name: str, level: float, target: str) -> None:
    curves = {}
    for kind in dict.fromkeys(row["kind"] for row in means):
        points = sorted(
            (row["bits"], 100 * row[name]) for row in means if row["kind"] == kind and row[name] is not None
        )
        if points:
            bits, values = zip(*points, strict=True)
            curves[kind] = (list(bits), list(values))
    report.draw_curves(
        path,
        curves,
        x_label="bits for each weight of the target (coded file; levels and scales)",
        y_label=f"{name} on test images, %",
        title=f"What a bit buys: {target}",
        log_x=True,
        ticks={2**power: f"{2**power}" for power in range(8)},
        level=("target", 100 * level),
    )


def _table(means: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(
        ("", "bits", "mask bits", "accuracy", "agreement", "seconds", "memory, GB")
    ):
        table.add_column(head, justify="right" if number else "left")
    for row in means:
        shown = (
            "" if row[name] is None else form.format(row[name] * scale)
            for name, form, scale in (
                ("bits", "{:.2f}", 1),
                ("mask_bits", "{:.2f}", 1),
                ("accuracy", "{:.2f} %", 100),
                ("agreement", "{:.2f} %", 100),
                ("seconds", "{:.0f}", 1),
                ("memory", "{:.2f}", 1),
            )
        )
        table.add_row(row["label"], *shown)
    return table


if __name__ == "__main__":
    main(run, "bits")
