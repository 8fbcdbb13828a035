"""Finished runs in one place: tables, means over seeds with intervals, figures, and a page.

python -m experiments.collect runs=outputs
python -m experiments.collect runs=outputs,other/outputs 'only=[ticket]'
"""

import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.collected import page_of
from experiments.command_line import main
from experiments.contract import CONTRACT
from experiments.drawings import draw
from experiments.groups import Groups, groups_of, means
from experiments.pages import AGAIN, commands_of, hashes_of
from experiments.runs import Found, Run, flat, numbers, read, rows_of
from slth import report

LOG = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """``runs.csv``, ``rows.csv``, ``summary.csv``, figures and ``index.html`` of the runs in some folders."""
    found = _found(cfg)
    commands = {run.key: commands_of(run, run.folder) for run in found.runs}
    hashes = {run.key: hashes_of(run) for run in found.runs}
    problems = {run.key: report.problems(run.metrics) for run in found.runs}
    for path in found.unfinished:
        LOG.info("not finished, not read: %s", path)
    for path, why in found.broken.items():
        LOG.warning("not read: %s: %s", path, why)
    for path, first in found.again.items():
        LOG.info("the same run as %s, counted once: %s", first, path)

    table = [_row(run, commands[run.key][AGAIN], hashes[run.key], problems[run.key]) for run in found.runs]
    _write(folder / "runs.csv", table)
    _write(folder / "rows.csv", [{"run": run.key} | row for run in found.runs for row in rows_of(run)])
    by_experiment: dict[str, list[Run]] = {}
    for one in found.runs:
        by_experiment.setdefault(one.experiment, []).append(one)
    groups = [groups_of(experiment, runs) for experiment, runs in by_experiment.items()]
    _write(folder / "summary.csv", [row for one in groups for row in _summary(one, cfg.confidence)])
    figures = [figure for one in groups for figure in draw(folder, one, cfg.confidence)]
    page = page_of(cfg.confidence, found, groups, figures, commands, hashes, problems)
    report.write_page(folder / "index.html", page)
    LOG.info("%d runs in %s", len(found.runs), folder / "index.html")
    return {
        "runs": len(found.runs),
        "experiments": {experiment: len(runs) for experiment, runs in by_experiment.items()},
        "unfinished": [str(path) for path in found.unfinished],
        "broken": [{"folder": str(path), "said": why} for path, why in found.broken.items()],
        "again": [str(path) for path in found.again],
        "with_problems": sum(bool(one) for one in problems.values()),
        "bytes": (folder / "index.html").stat().st_size,
        "environment": report.environment(),
    }


def _found(cfg: DictConfig) -> Found:
    """What the config names, checked before any work.

    Raises: ValueError.
    """
    named, only, confidence = (_plain(cfg[name]) for name in ("runs", "only", "confidence"))
    listed = [named] if isinstance(named, str) else named
    if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
        raise ValueError(f"runs: name the folders to read, such as runs=outputs, got {named!r}")
    wanted = [only] if isinstance(only, str) else only
    for name in wanted or ():
        if name not in CONTRACT:
            raise ValueError(f"only: {name!r} is no experiment: choose among {', '.join(CONTRACT)}")
    if type(confidence) is not float or not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence!r}")
    if importlib.util.find_spec("itables") is None:
        raise ValueError("itables is not installed, which the page needs: pip install 'slth[page]'")
    found = read(listed)
    if wanted:
        found = found._replace(runs=[run for run in found.runs if run.experiment in wanted])
    if not found.runs:
        also = f"; {len(found.unfinished)} unfinished" if found.unfinished else ""
        also += "".join(f"; {path}: {why}" for path, why in list(found.broken.items())[:3])
        raise ValueError(
            f"runs: no finished run {'of ' + ', '.join(wanted) + ' ' if wanted else ''}in "
            f"{', '.join(listed)}{also}"
        )
    return found


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _row(run: Run, command: str, hashes: dict[str, str], problems: Sequence[str]) -> dict[str, Any]:
    """A run as a row: what it is, all its settings, all its numbers."""
    return {
        "experiment": run.experiment,
        "run": run.name,
        "folder": str(run.folder),
        "command": command,
        "ticket_sha256": hashes.get("ticket sha256"),
        "problems": "; ".join(problems),
        **{f"settings.{name}": value for name, value in flat(run.settings).items()},
        **{f"metrics.{name}": value for name, value in numbers(run).items()},
    }


def _summary(groups: Groups, confidence: float) -> list[dict[str, Any]]:
    """A row for each group and number, with the settings that tell groups apart."""
    return [
        {"experiment": groups.experiment, "runs": len(runs), **settings, "measure": name, **mean._asdict()}
        for (settings, found), (_, runs) in zip(means(groups, confidence), groups.members, strict=True)
        for name, mean in found.items()
        if not name.endswith("seed")
    ]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of unequal keys as CSV, lists as JSON; nothing where there is no row."""
    if rows:
        names = dict.fromkeys(name for row in rows for name in row)
        report.write_csv(path, [{name: _cell(row.get(name)) for name in names} for row in rows])


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def listed(arguments: Sequence[str]) -> list[str]:
    """Arguments in which ``runs=A,B`` is the list that it means; Hydra would take it for a sweep.

    Example:
      >>> from experiments.collect import listed
      >>> listed(["runs=a,b/c", "only=[ticket]", "runs=[d,e]"])
      ['runs=["a","b/c"]', 'only=[ticket]', 'runs=[d,e]']
    """
    found = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "runs" and "," in value and value[0] not in "[\"'":
            value = "[" + ",".join(f'"{one}"' for one in value.split(",") if one) + "]"
            argument = f"runs={value}"
        found.append(argument)
    return found


if __name__ == "__main__":
    sys.argv[1:] = listed(sys.argv[1:])
    main(run, "collect", again=True)
