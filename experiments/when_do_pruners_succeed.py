"""Methods of pruning on networks in which a ticket is known to be: who finds what is there, at which density.

python -m experiments.when_do_pruners_succeed
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from experiments import prune
from experiments.command_line import CONF, main
from experiments.grounds import check_ground
from experiments.points import metrics_of
from experiments.pruners import rehearse
from experiments.run_folder import execute
from experiments.tracking import tracked
from slth import report
from slth.report.tables import show

LOG = logging.getLogger(__name__)
OWN = ("seeds", "densities", "grounds", "pruners")
AVERAGED = ("score", "trained", "planted_score", "planted_trained", "gap", "jaccard", "chance", "recall")
Row = dict[str, Any]
OUTCOMES = ("none of its", "training diverged")
"""Errors that are results of a method: a layer would be emptied, or a loss is not finite."""


@tracked("when_do_pruners_succeed")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Runs of `experiments.prune` for each ground, density, method and seed, found again if already done.

    ``points.csv`` has them all, ``means.csv`` their means over the seeds, least and largest. ``strong.png``,
    ``trained.png`` and ``overlap.png`` draw those of grounds with two densities or more. A method that
    refuses a point, because a layer would be emptied, has the layer's name in ``refused`` and no numbers.
    """
    points = list(points_of(cfg))
    rows: list[Row] = []
    for key, point in points:
        LOG.info("%s", ", ".join(f"{name} {value}" for name, value in key.items()))
        row = _row(point)
        density = row["planted_density"] if key["density"] is None else key["density"]
        rows.append({**key, "asked": key["density"], "density": density, **row})
        report.write_csv(folder / "points.csv", rows)
    means = means_of(rows)
    report.write_csv(folder / "means.csv", means)
    if any(row["planted_score"] is not None for row in means):
        _draw(folder / "strong.png", means, "score", "planted_score", "score, untrained")
        _draw(folder / "overlap.png", means, "jaccard", "chance", "Jaccard index with the ticket")
    if cfg.retrain.epochs:
        _draw(folder / "trained.png", means, "trained", "planted_trained", "score, trained under the mask")
    show(_table(means))
    return {"means": means, "points": rows}


def points_of(cfg: DictConfig) -> Iterator[tuple[Row, DictConfig]]:
    """What each point is called, and its settings; all checked before the first is run.

    A ground whose ``density`` is not said is planted at every density, and pruned to it. One with a density
    is planted at that, and pruned to every density. A constructed one has the density that it has, and is
    pruned to that; with ``every: true`` to every density too. ``config`` of a ground or a method holds
    changes of the config, group by group.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    shared: dict[str, Any] = {str(name): value for name, value in plain.items() if name not in OWN}
    for name in OWN:
        if not plain[name]:
            raise ValueError(f"{name}: expected one or more, got {plain[name]!r}")
    pruners = {label: pruner_settings(label, given) for label, given in _labelled(plain, "pruners").items()}
    points = []
    for ground, given in _labelled(plain, "grounds").items():
        asked = {name: value for name, value in given.items() if name not in ("config", "every")}
        kind = asked.get("kind", shared["planted"]["kind"])
        every = given.get("every", kind != "constructed")
        if type(every) is not bool or ("every" in given and kind != "constructed"):
            raise ValueError(
                f"grounds.{ground}.every: expected true or false, and kind: constructed, got {every!r}"
            )
        whole = [None] if kind == "constructed" else []
        for density in whole + (list(plain["densities"]) if every else []):
            for label, (pruner, changes) in pruners.items():
                for seed in plain["seeds"]:
                    where = f"grounds.{ground}"
                    planted = {"density": None if kind in ("none", "constructed") else density} | asked
                    point = _changed(shared, {"planted": planted}, where)
                    point = _changed(point, given.get("config", {}), where)
                    point = _changed(point, changes, f"pruners.{label}")
                    free = asked.get("density") is not None or kind in ("none", "constructed")
                    own = density if free else None
                    key = {"ground": ground, "density": density, "pruner": label, "seed": seed}
                    point |= {"pruner": pruner, "density": own, "seed": seed}
                    points.append((key, OmegaConf.create(point)))
    for key, point in points:
        try:
            check_ground(point)
            rehearse(point)
        except ValueError as error:
            raise ValueError(f"grounds.{key['ground']}, pruners.{key['pruner']}: {error}") from error
    yield from points


def _labelled(plain: dict[Any, Any], name: str) -> dict[str, dict[str, Any]]:
    """The entries of a list by their labels.

    Raises: ValueError for an entry without a label, and for a label that stands there twice.
    """
    found = {}
    for entry in plain[name]:
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise ValueError(f"{name}: expected entries with a label, got {entry!r}")
        if entry["label"] in found:
            raise ValueError(f"{name}: {entry['label']!r} stands there twice")
        found[entry["label"]] = {key: value for key, value in entry.items() if key != "label"}
    return found


def _changed(config: dict[str, Any], changes: Any, where: str) -> dict[str, Any]:
    """A config with other values in some of its groups.

    Raises: ValueError for a setting that is not there.
    """
    config = dict(config)
    for group, values in changes.items():
        if not isinstance(config.get(group), dict) or not isinstance(values, dict):
            raise ValueError(f"{where}: {group}: expected a group of settings, got {values!r}")
        for name in values:
            if name not in config[group]:
                raise ValueError(f"{where}: {group}.{name}: there is no such setting")
        config[group] = config[group] | values
    return config


def pruner_settings(label: str, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a method, those of a file in ``conf/pruner`` with changes, and changes of other groups.

    Raises: ValueError where there is no such file, or a change of what the file has not.
    """
    if not isinstance(given, dict) or "file" not in given:
        raise ValueError(f"pruners.{label}: expected a file of conf/pruner and changes, got {given!r}")
    path = CONF / "pruner" / f"{given['file']}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.yaml")))
        raise ValueError(f"pruners.{label}.file: there is no {given['file']!r}: choose one of {known}")
    settings = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(settings, dict)
    changes = {name: value for name, value in given.items() if name not in ("file", "config")}
    for name, value in changes.items():
        if name not in settings:
            raise ValueError(f"pruners.{label}.{name}: {path.name} has no such setting")
        both = isinstance(settings[name], dict) and isinstance(value, dict)
        settings[name] = settings[name] | value if both else value
    return {str(name): value for name, value in settings.items()}, given.get("config") or {}


def _row(point: DictConfig) -> Row:
    """The numbers of one point."""
    empty = dict.fromkeys(("planted_density", "weights", "found_density", *AVERAGED, "seconds", "run"))
    try:
        folder = execute(prune.run, point, "prune")
    except ValueError as error:
        if not any(outcome in str(error) for outcome in OUTCOMES):
            raise
        LOG.warning("%s", error)
        return {**empty, "refused": str(error).removeprefix("pruner: ").partition(":")[0]}
    metrics: Mapping[str, Any] = metrics_of(folder)
    found, planted, overlap = metrics["found"], metrics["planted"] or {}, metrics["overlap"] or {}
    score, aim = ("trained", "trained") if planted.get("trained") is not None else ("score", "score")
    return {
        "planted_density": planted.get("density"),
        "weights": metrics["network"]["weights"],
        "found_density": found["density"],
        "score": found["score"],
        "trained": found["trained"],
        "planted_score": planted.get("score"),
        "planted_trained": planted.get("trained"),
        "gap": planted[aim] - found[score] if planted else None,
        **{name: overlap.get(name) for name in ("jaccard", "chance", "recall")},
        "seconds": metrics["seconds"]["prune"],
        "run": folder.name,
        "refused": "",
    }


def means_of(rows: list[Row]) -> list[Row]:
    """Means over the seeds, with the least and largest, of each ground, density asked for, and method."""
    keys = dict.fromkeys((row["ground"], row["asked"], row["pruner"]) for row in rows)
    means = []
    for ground, asked, pruner in keys:
        same = [
            row for row in rows if (row["ground"], row["asked"], row["pruner"]) == (ground, asked, pruner)
        ]
        done = [row for row in same if not row["refused"]]
        densities = [row["density"] for row in same if row["density"] is not None]
        density = float(np.mean(densities)) if densities else None
        mean: Row = {"ground": ground, "asked": asked, "density": density, "pruner": pruner}
        mean["seeds"] = len(done)
        mean["refused"] = len(same) - len(done)
        for name in ("planted_density", "found_density", *AVERAGED, "seconds"):
            values = [row[name] for row in done if row[name] is not None]
            mean[name] = float(np.mean(values)) if values else None
            if name in AVERAGED:
                mean[f"{name}_min"] = min(values) if values else None
                mean[f"{name}_max"] = max(values) if values else None
        means.append(mean)
    return means


def _draw(path: Path, means: list[Row], name: str, reference: str, y_label: str) -> None:
    panels = {}
    for ground in dict.fromkeys(row["ground"] for row in means):
        own = [row for row in means if row["ground"] == ground]
        if len({row["asked"] for row in own}) < 2:
            continue
        bands = [
            _band([row for row in own if row["pruner"] == pruner], name, pruner)
            for pruner in dict.fromkeys(row["pruner"] for row in own)
        ]
        label = "chance" if reference == "chance" else "planted ticket"
        bands.append(_band(own, reference, label)._replace(reference=True))
        panels[ground] = [band for band in bands if band.x]
    if not any(panels.values()):
        return
    report.draw_bands(
        path,
        panels,
        title="Who finds what is there?",
        x_label="density",
        y_label=y_label,
        y_range=(-0.03, 0.63) if reference == "chance" else (-0.05, 1.05),
    )


def _band(rows: list[Row], name: str, label: str) -> report.Band:
    """A method's means by density; of several methods, such as of chance, the mean of these."""
    kept = [row for row in rows if row[name] is not None]
    x = sorted({row["density"] for row in kept})
    groups = [[row for row in kept if row["density"] == density] for density in x]
    return report.Band(
        label,
        x,
        [float(np.mean([row[name] for row in group])) for group in groups],
        [min(row[f"{name}_min"] for row in group) for group in groups],
        [max(row[f"{name}_max"] for row in group) for group in groups],
    )


def _table(means: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    heads = ("ground", "density", "method", "score", "trained", "planted", "Jaccard", "chance", "recall")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number in (0, 2) else "right")
    for row in means:
        numbers = ("score", "trained", "planted_score", "jaccard", "chance", "recall")
        table.add_row(
            *(row["ground"], "" if row["density"] is None else f"{row['density']:.3g}", row["pruner"]),
            *("" if row[name] is None else f"{row[name]:.3f}" for name in numbers),
        )
    return table


if __name__ == "__main__":
    main(run, "when_do_pruners_succeed")
