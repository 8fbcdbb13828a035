"""The page of one run: ``report.html`` in its folder."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from experiments.contract import CONTRACT
from experiments.rerun import command_of
from experiments.runs import PASSED_OVER, Run, filled, numbers, read_run, table
from slth import report

LOG = logging.getLogger(__name__)
FILE = "report.html"
TICKET, TARGET = "ticket.safetensors", "target.safetensors"
AGAIN = "Make it again"
CAPTIONS = {
    "logits": "Outputs of the ticket against those of its target, and their differences.",
    "layers": "Relative error of one copy of each channel, and of the mean of the copies, layer by layer.",
    "sizes": "How many weights the source keeps for one weight of the target.",
    "kernels": "Kernels of the first layer: the target's, and those that the ticket computes.",
}


def write_report(folder: Path, experiment: str, final: Path) -> None:
    """``report.html`` of a run whose metrics are written; what goes wrong is one line of the log.

    Args:
      folder: where the run is now.
      experiment: its name.
      final: where its folder will be; the commands name it.
    """
    if experiment in PASSED_OVER:
        return
    try:
        run = read_run(folder, experiment)._replace(name=final.name)
        report.write_page(folder / FILE, page_of(run, final))
    except Exception as error:  # numbers that are done outweigh any page
        LOG.warning("%s was not written: %s", FILE, " ".join(f"{type(error).__name__}: {error}".split()))


def page_of(run: Run, final: Path) -> report.Page:
    """A run as a page: in words, in numbers, layer by layer, in figures, and how to make and check it."""
    ticket = run.experiment == "ticket"
    captions = CAPTIONS | dict(run.metrics.get("captions") or {})
    layers = filled(table(run.folder / "layers.csv"))
    return report.Page(
        title=f"{run.experiment} {run.name}",
        summary=report.sentences(run.metrics) if ticket else [],
        problems=report.problems(run.metrics),
        facts=(report.ticket_lines(run.metrics) if ticket else _numbers(run)) | hashes_of(run),
        sheets=[
            report.Sheet(
                "Layers",
                layers,
                "Errors of subset sums are in units of the layer's source scale; a dash: not computed.",
                bad={(number, "unsolved") for number, row in enumerate(layers) if row.get("unsolved")},
            )
        ],
        figures=[
            report.Figure(path, captions.get(path.stem, path.stem.replace("_", " ")))
            for path in sorted(run.folder.glob("*.png"))
        ],
        commands=commands_of(run, final),
    )


def commands_of(run: Run, final: Path) -> dict[str, str]:
    """How to make a run again, and how to check its ticket."""
    known = run.experiment in CONTRACT
    commands = {AGAIN: command_of(run.experiment, run.settings)} if known else {}
    if run.experiment == "ticket" and (run.folder / TICKET).is_file():
        data, target = run.settings.get("data"), run.settings.get("target")
        settings: dict[str, Any] = {"ticket": str(final / TICKET)}
        if data is not None:
            settings["data"] = data
        if data is not None and target is not None and (run.folder / TARGET).is_file():
            named = (
                {}
                if target.get("name") == "file"
                else {"checkpoint": str(final / TARGET), "key": None, "rename": None, "ignore": None}
            )
            settings["target"] = target | {k: v for k, v in named.items() if k in target}
        elif data is not None and target is not None and target.get("checkpoint") is not None:
            settings["target"] = target
        evaluation = run.settings.get("evaluation") or {}
        if data is not None and evaluation.get("images") is not None:  # on the same images
            settings["evaluation"] = {"images": evaluation["images"]}
        commands["Verify it"] = command_of("verify", settings)
    return commands


def hashes_of(run: Run) -> dict[str, str]:
    """SHA-256 of a run's ticket file and of its source, where it has them."""
    found = {}
    if (run.folder / TICKET).is_file():
        with (run.folder / TICKET).open("rb") as file:
            found["ticket sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    source = run.metrics.get("source")
    if isinstance(source, dict) and source.get("sha256"):
        found["source sha256"] = str(source["sha256"])
    return found


def _numbers(run: Run) -> dict[str, str]:
    return {name: report.shown(value) for name, value in numbers(run).items()}
