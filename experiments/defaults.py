"""Which settings of a run count: those that differ from the first default of their field.

A field that has its first default is left out of a run's name, as if it were not there. So a new field
renames no run. A default that is changed later differs from the first one, so it counts from then on: a run
that relies on it has another name, and one that asks for the old value has the old name. The first defaults
stand in ``conf/first_defaults.json``; after a new field, experiment or file of a group is added,

    python -m experiments.defaults

adds what is missing there, and changes nothing. What is not there at all counts whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.names import names_of

CONF = Path(__file__).resolve().parent.parent / "conf"
RECORD = CONF / "first_defaults.json"
ELSEWHERE = ("output_dir", "force", "returns", "tracker")
"""Settings that say where a run is put, whether it is done anew and who is told of it: no part of it."""
SECTIONS = (
    *("data", "target", "source", "construction", "solver", "certificate", "pruner", "train", "refine"),
    *("evaluation", "planted", "weights", "samples", "retrain", "settings"),
)
"""Mappings of fields. Every other mapping, such as ``solvers``, is one value: what is added there counts."""
Plain = dict[str, Any]


def counted(settings: Plain, experiment: str | None) -> Plain:
    """The settings that count, nested as they are; ``deleted`` names fields that were taken away.

    Args:
      settings: resolved, without `ELSEWHERE`.
      experiment: whose defaults are left out; None for parts of a config, such as a target and its training.
    """
    record = recorded()
    base = _overlaid(_of_experiment(experiment), record[experiment]) if experiment in record else {}
    for group, kind in kinds_of(settings).items():
        named = base.pop(group, {})
        if (first := record.get(f"{group}/{kind}")) is not None:
            base[group] = _overlaid(file_of(group, kind), first)
            base[group].pop("name", None)
            base[group] |= {key: value for key, value in named.items() if key == "name"}
    deleted: list[str] = []
    found = _differing(settings, base, deleted)
    return found | ({"deleted": sorted(deleted)} if deleted else {})


def drawn(settings: Plain) -> Plain:
    """The settings; where all images are taken, none are drawn, and ``data.seed`` says nothing."""
    data, evaluation = settings.get("data"), settings.get("evaluation")
    if not isinstance(data, dict) or data.get("limit") is not None or data.get("train_limit") is not None:
        return settings
    if isinstance(evaluation, dict) and evaluation.get("images") is not None:
        return settings
    return settings | {"data": data | {"seed": None}} if "seed" in data else settings


def kinds_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The groups that say which of their files they are, and which that is."""
    named = {group: settings[group] for group in SECTIONS if isinstance(settings.get(group), Mapping)}
    return {group: own["name"] for group, own in named.items() if isinstance(own.get("name"), str)}


def _fields(name: str, prefix: str, *values: Any) -> bool:
    """Whether values of a setting are mappings of fields, each of which counts by itself."""
    return bool(prefix or name in SECTIONS) and all(isinstance(one, dict) and one for one in values)


def _overlaid(now: Plain, first: Plain, prefix: str = "") -> Plain:
    """Today's defaults, with the first ones where there are any."""
    found = dict(now)
    for name in now.keys() & first.keys():
        within = _fields(name, prefix, now[name], first[name])
        found[name] = _overlaid(now[name], first[name], f"{prefix}{name}.") if within else first[name]
    return found


def _differing(settings: Plain, base: Plain, deleted: list[str], prefix: str = "") -> Plain:
    found = {}
    for name, value in settings.items():
        if name not in base:
            found[name] = value
        elif _fields(name, prefix, value, base[name]):
            if within := _differing(value, base[name], deleted, f"{prefix}{name}."):
                found[name] = within
        elif not same(value, base[name]):
            found[name] = value
    deleted += [prefix + name for name in base.keys() - settings.keys()]
    return found


def changes(old: Plain, new: Plain, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields that two configs share and in which they differ: name, old and new value."""
    for name in sorted(old.keys() & new.keys()):
        if _fields(name, prefix, old[name], new[name]):
            yield from changes(old[name], new[name], f"{prefix}{name}.")
        elif not same(old[name], new[name]):
            yield prefix + name, old[name], new[name]


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal; 1 and 1.0 are, 1 and true are not."""
    return text(one) == text(other)


def text(value: Any) -> str:
    """A plain value as JSON; equal values have equal texts."""
    return json.dumps(_numbers(value), sort_keys=True)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def recorded() -> dict[str, Plain]:
    """The first defaults, by experiment (``ticket``) and by file of a group (``target/mlp``)."""
    return json.loads(RECORD.read_text()) if RECORD.is_file() else {}


def _of_experiment(experiment: str) -> Plain:
    """Today's defaults of an experiment; of a group that has a name no more than that."""
    plain = composed(experiment)
    return plain | {group: {"name": kind} for group, kind in kinds_of(plain).items()}


def file_of(group: str, kind: str) -> Plain:
    """Today's content of a file of a group; nothing where the file is gone."""
    try:
        return composed(f"{group}/{kind}")[group]
    except HydraException:
        return {}


@cache
def composed(name: str, overrides: tuple[str, ...] = ()) -> Plain:
    """What a config says with these overrides, resolved and without `ELSEWHERE`."""
    inside = GlobalHydra.instance().is_initialized()  # with the search path of the command line
    with nullcontext() if inside else initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, list(overrides))
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in ELSEWHERE}


def names_in(config: str) -> list[str]:
    """The dotted names of the settings of an experiment or of a file of a group, with `ELSEWHERE`."""
    return [*names_of(composed(config)), *ELSEWHERE]


def missing() -> dict[str, Plain]:
    """What the record lacks, beside what it has: today's defaults of new experiments, files and fields."""
    names = [path.stem for path in sorted(CONF.glob("*.yaml")) if path.stem != "common"]
    today = {name: _of_experiment(name) for name in names}
    for group in SECTIONS:
        for path in sorted((CONF / group).glob("*.yaml")):
            if file_of(group, path.stem).get("name") == path.stem:
                today[f"{group}/{path.stem}"] = file_of(group, path.stem)
    return {
        name: added for name, own in today.items() if (added := _added(own, recorded().get(name, {}))) != {}
    }


def _added(now: Plain, first: Plain, prefix: str = "") -> Plain:
    found = {name: value for name, value in now.items() if name not in first}
    for name in now.keys() & first.keys():
        if _fields(name, prefix, now[name], first[name]):
            found[name] = _added(now[name], first[name], f"{prefix}{name}.")
    return {name: value for name, value in found.items() if value != {} or name not in first}


def main() -> None:
    """Add what the record lacks; a line for each experiment and file of a group."""
    added = missing()
    both = {name: _merged(recorded().get(name, {}), added.get(name, {})) for name in {**recorded(), **added}}
    lines = [f"  {json.dumps(name)}: {json.dumps(own)}" for name, own in both.items()]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{RECORD}: added {', '.join(added) or 'nothing'}")


def _merged(first: Plain, added: Plain) -> Plain:
    both = {name: _merged(first[name], added[name]) for name in first.keys() & added.keys()}
    return {**first, **added, **both}


if __name__ == "__main__":
    main()
