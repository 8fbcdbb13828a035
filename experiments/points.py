"""Experiments that are many ticket runs: each point has a run folder of its own; a broken sweep goes on."""

import csv
import json
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments import ticket
from experiments.compose import options_of, solver_kind
from experiments.run_folder import execute

LOG = logging.getLogger(__name__)
OWN = (
    *("solvers", "seeds", "multiplicities", "tolerances", "constructions", "error", "delta"),
    *("tickets", "quantised", "rounding_images", "published", "references", "beside"),
    *("layer", "outputs", "inputs", "copies", "channels"),
)


def point(cfg: DictConfig, solver: str, seed: int, multiplicity: int, tolerance: float | None = None) -> Path:
    """The finished folder of one ticket run: the config without the sweep's own keys, with the values given.

    The settings are those of ``python -m experiments.ticket`` with the same values, and so is the folder.
    """
    known = OmegaConf.to_container(cfg.solvers, resolve=True)
    assert isinstance(known, dict)
    unknown = sorted(set(known[solver]) - set(cfg.solver))
    if unknown:
        raise ValueError(f"solvers.{solver}.{unknown[0]}: no such setting of a solver")
    LOG.info("%s, m = %d, seed %d", solver, multiplicity, seed)
    changes = known[solver] | ({} if tolerance is None else {"tolerance": tolerance})
    return ticket_run(
        cfg,
        solver=changes | _foreign(OmegaConf.to_container(cfg.solver, resolve=True) | changes),
        source={"seed": seed, "multiplicity": multiplicity},
    )


def _foreign(solver: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a sweep's config sets for its other solvers, as null."""
    known = {field.name for field in fields(solver_kind(solver))}
    foreign = [name for name in options_of(solver) if name.rpartition(".")[2] not in known]
    nulls: dict[str, Any] = {name: None for name in foreign if "." not in name}
    for group in {name.partition(".")[0] for name in foreign if "." in name}:
        nulls[group] = {k: None if f"{group}.{k}" in foreign else v for k, v in solver[group].items()}
    return nulls


def ticket_run(cfg: DictConfig, **changes: Mapping[str, Any]) -> Path:
    """The finished folder of the ticket run with these changes, by group, of what a sweep's config says."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    chosen: dict[str, Any] = {str(k): v for k, v in plain.items() if k not in OWN}
    for group, values in changes.items():
        chosen[group] |= values
    return execute(ticket.run, OmegaConf.create(chosen), "ticket")


def metrics_of(folder: Path) -> Mapping[str, Any]:
    """The metrics of a finished run."""
    return json.loads((folder / "metrics.json").read_text())


def layers_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a finished run's ``layers.csv``."""
    with open(folder / "layers.csv", newline="") as file:
        return list(csv.DictReader(file))
