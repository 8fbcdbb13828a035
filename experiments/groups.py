"""Runs that differ in nothing but seeds, and what the others differ in."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.contract import is_number
from experiments.runs import Run, flat, numbers
from slth.report import Mean, mean_of

ABSENT = "(not there)"
"""In place of a setting that a run does not have, as one of another version of the code."""
VERSION = "version of slth"


class Groups(NamedTuple):
    """Runs of one experiment, in groups."""

    experiment: str
    settings: dict[str, list[Any]]
    """What differs between runs, seeds left out, by dotted name: its different values."""
    seeds: dict[str, list[Any]]
    """The seeds that differ."""
    members: list[tuple[dict[str, Any], list[Run]]]
    """For each group the values of ``settings``, and its runs."""


def groups_of(experiment: str, runs: Sequence[Run]) -> Groups:
    """Runs of one experiment grouped by all settings that differ but seeds, and by the version of slth."""
    leaves = {id(run): _leaves(run) for run in runs}
    names = dict.fromkeys(name for one in leaves.values() for name in one)
    differing: dict[str, list[Any]] = {}
    for name in names:
        values = {_key(one.get(name, ABSENT)): one.get(name, ABSENT) for one in leaves.values()}
        if len(values) > 1:
            differing[name] = sorted(values.values(), key=_rank)
    settings = {name: values for name, values in differing.items() if not is_seed(name)}
    members: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        own = {name: leaves[id(run)].get(name, ABSENT) for name in settings}
        members.setdefault(_key(own), (own, []))[1].append(run)
    ordered = sorted(members.values(), key=lambda one: [_rank(value) for value in one[0].values()])
    seeds = {name: values for name, values in differing.items() if is_seed(name)}
    return Groups(experiment, settings, seeds, ordered)


def is_seed(name: str) -> bool:
    """Whether a setting is a seed: its last word says so."""
    return name.rpartition(".")[2] == "seed"


def repeated(groups: Groups, runs: Sequence[Run]) -> bool:
    """Whether two runs of a group have equal seeds too: they are no two samples, so they get no interval."""
    seeds = [_key({name: flat(run.settings).get(name) for name in groups.seeds}) for run in runs]
    return len(set(seeds)) < len(seeds)


def means(groups: Groups, confidence: float) -> list[tuple[dict[str, Any], dict[str, Mean]]]:
    """Each group's settings, and the mean and interval of all its numbers by dotted name."""
    found = []
    for settings, runs in groups.members:
        each = [numbers(run) for run in runs]
        names = dict.fromkeys(name for one in each for name, value in one.items() if is_number(value))
        averaged = {}
        for name in names:
            values = [one.get(name) for one in each]
            mean = mean_of([value if is_number(value) else None for value in values], confidence)
            averaged[name] = mean._replace(low=None, high=None) if repeated(groups, runs) else mean
        found.append((settings, averaged))
    return found


def _leaves(run: Run) -> dict[str, Any]:
    environment = run.metrics.get("environment")
    version = environment.get("slth") if isinstance(environment, dict) else None
    return flat(run.settings) | ({} if version is None else {VERSION: version})


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _rank(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by its text."""
    return (False, value, "") if is_number(value) else (True, 0.0, _key(value))
