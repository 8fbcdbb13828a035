"""The ticket zoo: tickets of published networks built again from their seeds, and known by their hashes.

python -m experiments.zoo files=DIR cifar10=DIR mnist=DIR
"""

import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig

from experiments import ticket
from experiments.command_line import main
from experiments.compose import calibration_of, solver_of
from experiments.points import metrics_of
from experiments.run_folder import execute
from experiments.targets import data_of
from slth.cli import zoo
from slth.cli.zoo import Entry

LOG = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Every ticket that is asked for, as ``NAME.ticket`` in the folder, and its place in the table."""
    known = zoo.entries()
    names = [*cfg.tickets] if cfg.only is None else [*cfg.only]
    settings = {name: ticket_config(cfg, name) for name in names}  # refusals come before any work
    rows, made = [], {}
    for name, one in settings.items():
        LOG.info("%s", name)
        where = execute(ticket.run, one, "ticket", again=True)
        path = folder / f"{name}.ticket"
        shutil.copyfile(where / ticket.FILE, path)
        made[name] = entry_of(cfg, name, one, path, metrics_of(where))
        said = _compared(path, known.get(name))
        rows.append({"name": name, "same": said is None, "said": said, **_numbers(made[name])})
        LOG.info("%s", said or f"{name}: the same ticket as in the table, byte for byte")
    if cfg.write:
        order = dict.fromkeys([*cfg.tickets, *known])
        zoo.write([one for name in order if (one := made.get(name, known.get(name))) is not None])
    return {"written": cfg.write, "tickets": rows}


def ticket_config(cfg: DictConfig, name: str) -> DictConfig:
    """The config of `experiments.ticket` for one ticket of the zoo.

    Raises: ValueError where there is no such ticket, or where its target or data are.
    """
    if name not in cfg.tickets:
        raise ValueError(f"only: {name!r} is not in the zoo: choose among {', '.join(cfg.tickets)}")
    target = cfg.targets[cfg.tickets[name].target]
    for setting, what in (("files", f"the folder of {target.file}"), (target.data, "its folder")):
        if cfg[setting] is None:
            raise ValueError(f"{setting}: {name} needs {what}: {setting}=DIR")
    path = Path(cfg.files).expanduser() / target.file
    if not path.is_file():
        raise ValueError(f"files: {path} is not there: it is published by {target.published}")
    choices = [f"data={target.data}", f"target={cfg.tickets[name].target}", *settings_of(cfg, name)]
    made = hydra.compose("ticket", choices)
    made.target.checkpoint, made.data.dir, made.output_dir = str(path), cfg[target.data], cfg.output_dir
    return made


def settings_of(cfg: DictConfig, name: str) -> list[str]:
    """Settings of a ticket beside the places of its target and data: its target's, then its own."""
    one = cfg.tickets[name]
    return [*cfg.targets[one.target].get("settings", []), *one.settings]


def entry_of(cfg: DictConfig, name: str, one: DictConfig, path: Path, metrics: Mapping[str, Any]) -> Entry:
    """The entry of a ticket that was just made."""
    target = cfg.targets[cfg.tickets[name].target]
    data = data_of(one)
    seen = calibration_of(one, data, solver_of(one))
    pixels = None if seen is None else np.rint(255 * (seen * data.std + data.mean)).astype(np.uint8)
    return Entry(
        name=name,
        target=cfg.tickets[name].target,
        file=target.file,
        file_sha256=hashlib.sha256(Path(one.target.checkpoint).read_bytes()).hexdigest(),
        published=target.published,
        data=target.data,
        settings=tuple(settings_of(cfg, name)),
        calibration_images=0 if pixels is None else len(pixels),
        calibration_sha256=None if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest(),
        test_images=metrics["error"]["examples"],
        target_accuracy=metrics["target"]["accuracy"],
        accuracy=metrics["ticket"]["accuracy"],
        agreement=metrics["ticket"]["agreement"],
        jax=metrics["environment"]["jax"],
        device=metrics["environment"]["device"],
        **zoo.identity(path),
    )


def _compared(path: Path, entry: Entry | None) -> str | None:
    """None for the ticket of the table, else what differs."""
    if entry is None:
        return f"{path.stem} is not in the table: write=true adds it"
    try:
        zoo.verdict(path, entry)
    except ValueError as error:
        return str(error)
    return None


def _numbers(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("accuracy", "agreement", "bytes", "sha256")}


def others(metrics: Mapping[str, Any]) -> str | None:
    """What is wrong with a finished run: tickets that are not those of the table."""
    found = [row for row in metrics["tickets"] if not row["same"]]
    if metrics["written"] or not found:
        return None
    return f"{len(found)} of {len(metrics['tickets'])} tickets are not those of the table: {found[0]['said']}"


if __name__ == "__main__":
    main(run, "zoo", again=True, verdict=others)
