"""The paper's figures by name: pictures, a table of claims, and a page: index.html.

python -m experiments.figures
python -m experiments.figures names=[width,epsilon]
"""

import copy
import importlib
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.claims import VERDICTS
from experiments.command_line import main
from experiments.defaults import ELSEWHERE, SECTIONS, composed, file_of
from experiments.names import unknown
from experiments.points import metrics_of
from experiments.rerun import command_of, written
from experiments.run_folder import execute, settings
from experiments.tracking import tracked
from slth import report

LOG = logging.getLogger(__name__)
GROUPS = ("data", "target")
"""What one setting of this experiment says for all figures."""
PAGE, TABLE, TEXT = "index.html", "figures.csv", "figures.md"


@tracked("figures")
def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The figures, one after the other; all are checked before the first."""
    asked = {name: config_of(cfg, name) for name in names_of(cfg)}
    made: dict[str, dict[str, Any]] = {}
    for name, own in asked.items():
        experiment = cfg.figures[name].experiment
        LOG.info("figure %s: %s", name, command_of(experiment, settings(own)))
        clock, processor = time.perf_counter(), _processor()
        where = execute(importlib.import_module(f"experiments.{experiment}").run, own, experiment)
        metrics = metrics_of(where)
        if not metrics.get("captions"):
            raise ValueError(f"{where}: its figure has no caption, it is of an older version: force=true")
        for stem in metrics["captions"]:
            shutil.copyfile(where / f"{stem}.png", folder / f"{stem}.png")
        made[name] = {
            "experiment": experiment,
            "run": where.name,
            "captions": metrics["captions"],
            "claims": metrics["claims"],
            "broken": report.broken_bound(metrics),
            "command": command_of(experiment, settings(own)),
            "seconds": time.perf_counter() - clock,
            "processor_seconds": _processor() - processor,
        }
        _write(folder, cfg, made)
    rows = [{"figure": name, **claim} for name, one in made.items() for claim in one["claims"]]
    seconds = {key: sum(one[key] for one in made.values()) for key in ("seconds", "processor_seconds")}
    environment = report.environment()
    return {"figures": made, "claims": rows, **seconds, "environment": environment}


def names_of(cfg: DictConfig) -> list[str]:
    """The figures that are asked for.

    Raises: ValueError.
    """
    names = OmegaConf.to_container(cfg.names) if OmegaConf.is_config(cfg.names) else cfg.names
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise ValueError(f"names: expected figures, such as names=[width,epsilon], got {names!r}")
    for name in names:
        if name not in cfg.figures:
            raise ValueError(f"names: {name!r} is no figure: choose among {', '.join(cfg.figures)}")
    return names


def config_of(cfg: DictConfig, name: str) -> DictConfig:
    """The config of a figure's experiment, with the data and the target that all figures share.

    Raises: ValueError for a setting that the experiment does not have.
    """
    entry = cfg.figures[name]
    known = composed(entry.experiment)
    target = cfg.get("target")
    overrides = [] if "data" not in known else _said("data", cfg.data)
    if "target" in known:
        overrides += [f"target={entry.target}"] if target is None else _said("target", target)
    changes = [entry.settings, *([] if target is None else [entry.get("named") or {}])]
    own = copy.deepcopy(composed(entry.experiment, tuple(overrides)))
    for change in changes:
        _merge(own, OmegaConf.to_container(OmegaConf.create(change)), f"figures.{name}.settings")
    return OmegaConf.create(own | {key: cfg.get(key) for key in ELSEWHERE} | {"returns": None})


def _said(group: str, given: DictConfig) -> list[str]:
    """Overrides that choose the file of a group and say what differs from it."""
    plain = OmegaConf.to_container(given, resolve=True)
    assert isinstance(plain, dict)
    usual = file_of(group, str(plain["name"]))
    return [
        f"{group}={plain['name']}",
        *(
            f"{group}.{key}={written(value)}"
            for key, value in plain.items()
            if key not in usual or usual[key] != value
        ),
    ]


def _merge(settings: dict[Any, Any], changes: Any, where: str) -> None:
    """Changes set within the settings; one of a setting that is not there is refused.

    What lists runs, such as ``solvers``, is replaced whole.
    """
    inside = "settings." in where
    for key, value in changes.items():
        if key not in settings:
            raise ValueError(f"{where}.{unknown(str(key), map(str, settings))}")
        if isinstance(value, Mapping) and isinstance(settings[key], dict) and (inside or key in SECTIONS):
            _merge(settings[key], value, f"{where}.{key}")
        else:
            settings[key] = value


def _processor() -> float:
    """Seconds of processor time that this process and its children have had."""
    return sum(os.times()[:4])


def _write(folder: Path, cfg: DictConfig, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Table, text and page of the figures that there are so far."""
    rows = [
        {
            "figure": name,
            "verdict": claim["verdict"],
            "claim": claim["text"],
            "numbers": f"{claim['found']}.",
        }
        for name, one in made.items()
        for claim in one["claims"]
    ]
    if rows:
        report.write_csv(folder / TABLE, [{**row, "command": made[row["figure"]]["command"]} for row in rows])
    (folder / TEXT).write_text(text_of(made))
    report.write_page(folder / PAGE, page_of(folder, cfg, made, rows))


def page_of(
    folder: Path,
    cfg: DictConfig,
    made: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> report.Page:
    """The figures as one page: claims, pictures with captions, and each one's command."""
    target = cfg.get("target")
    what = cfg.data.name if target is None else f"{target.name} on {cfg.data.name}"
    counts = {word: sum(row["verdict"] == word for row in rows) for word in VERDICTS.values()}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return report.Page(
        title=f"Figures of the paper: {what}",
        summary=[
            f"{len(made)} figures, {len(rows)} claims: {said}.",
            "Captions and verdicts are written by the program, from the numbers of its runs.",
        ],
        problems=[f"{name}: {one['broken']}" for name, one in made.items() if one["broken"]],
        sheets=[
            report.Sheet(
                "Claims",
                rows,
                "A figure's name leads to its command.",
                bad={(n, "verdict") for n, row in enumerate(rows) if row["verdict"] == VERDICTS[False]},
                links={n: f"figure-{row['figure']}" for n, row in enumerate(rows)},
                wrap=True,
            )
        ],
        figures=[
            report.Figure(folder / f"{stem}.png", f"{name}: {text}")
            for name, one in made.items()
            for stem, text in one["captions"].items()
        ],
        entries=[
            report.Entry(
                f"figure-{name}",
                f"{name} ({one['experiment']} {one['run']})",
                {
                    "seconds": f"{one['seconds']:.0f}",
                    "seconds of the processors": f"{one['processor_seconds']:.0f}",
                },
                {"Draw it again": one["command"]},
            )
            for name, one in made.items()
        ],
    )


def text_of(made: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as Markdown: of each its command, its pictures and captions, and its claims."""
    parts = []
    for name, one in made.items():
        lines = [f"## {name}", "", "```bash", one["command"], "```", ""]
        for stem, text in one["captions"].items():
            lines += [f"![{name}]({stem}.png)", "", text, ""]
        lines += ["| verdict | claim | numbers |", "| --- | --- | --- |"]
        for claim in one["claims"]:
            cells = (claim["verdict"], claim["text"], f"{claim['found']}.")
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def broken(metrics: Mapping[str, Any]) -> str | None:
    """What is wrong with figures whose bounds are broken; None if nothing is."""
    found = [f"{name}: {one['broken']}" for name, one in metrics["figures"].items() if one["broken"]]
    return "; ".join(found) or None


if __name__ == "__main__":
    main(run, "figures", verdict=broken)
