"""Presets and experiments: their first lines say what they are, and their commands are commands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments import when_do_pruners_succeed
from experiments.command_line import CONF
from experiments.messages import header_of
from experiments.names import names_of
from experiments.points import metrics_of
from experiments.run_folder import execute

PRESETS = sorted((CONF / "experiment").glob("*.yaml"))
CONFIGS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "common")
QUICK = ("ticket", "subset_sum")
FIELDS = ("Claim", "Command", "Hardware", "Minutes", "Expected")


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])


def header(path: Path) -> dict[str, str]:
    """The fields that a preset begins with."""
    lines = [line for line in path.read_text().split("defaults:")[0].splitlines() if line.startswith("# ")]
    found: dict[str, str] = {}
    for line in lines[1:]:  # the first is Hydra's @package
        if field := re.match(r"# (\w+): +(.*)", line):
            found[(name := field[1])] = field[2]
        else:
            found[name] += " " + line.removeprefix("#").strip()
    return found


def asked(command: str) -> tuple[str, list[str]]:
    """Experiment and overrides of a command without its comment; DIR and FILE stand for any."""
    python, module, name, *overrides = shlex.split(command, comments=True)
    assert (python, module) == ("python", "-m")
    return name.removeprefix("experiments."), overrides


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_composes_and_says_what_to_expect(path: Path):
    said = header(path)
    assert tuple(said) == FIELDS
    assert said["Claim"].endswith(".")
    assert re.fullmatch(r"2 cores\.|a GPU\.", said["Hardware"])
    assert re.fullmatch(r"\d+\.|a few\.|not measured\.", said["Minutes"])
    assert re.match(r"published: |a new measurement[ :(]", said["Expected"])
    assert re.search(r"\d", said["Expected"]) or "no number is known" in said["Expected"]
    name, overrides = asked(said["Command"])
    assert f"+experiment={path.stem}" in overrides
    cfg = composed(name, *overrides)
    if name == "when_do_pruners_succeed":
        points = list(when_do_pruners_succeed.points_of(cfg))
        densities = sum(
            len(cfg.densities) * (ground.kind != "constructed" or ground.get("every", False))
            + (ground.kind == "constructed")
            for ground in cfg.grounds
        )
        assert len(points) == len(cfg.seeds) * densities * len(cfg.pruners)


NET = ("data=digits", "data.train_limit=160", "data.limit=40", "target=resnet20", "target.width=2")
SMOKE = {  # the smallest run of each, on the images that are at hand
    "at_initialisation_cifar10": (
        *NET,
        "seeds=[0]",
        "densities=[0.5]",
        "retrain.epochs=1",
        "retrain.warmup=0",
    ),
    "edge_popup_cifar10": (
        *NET,
        *("seeds=[0]", "densities=[0.5]", "pruners=[{label: a, file: edge_popup, settings: {epochs: 1}}]"),
    ),
    "lottery_mnist": (
        *("data=digits", "data.train_limit=96", "seeds=[0]", "densities=[0.8]", "retrain.epochs=1"),
        "pruners=[{label: IMP, file: imp, settings: {epochs: 1, batch: 60, rate: 0.05}}]",
    ),
    "planted_digits": (
        *("data.train_limit=128", "seeds=[0]", "densities=[0.2]", "retrain.epochs=1", "train.epochs=2"),
        "pruners=[{label: random, file: random}]",
    ),
    "popup_cifar10": (
        *("data=digits", "data.train_limit=96", "data.limit=40", "target=mlp", "target.widths=[8]"),
        *("train.epochs=2", "refine.steps=2", "pruner.settings.epochs=1"),
    ),
    "popup_digits": (
        *("data.train_limit=128", "seeds=[0]", "train.epochs=2", "pruners=[{label: random, file: random}]"),
    ),
    "rewinding_cifar10": (
        *NET,
        *("seeds=[0]", "rewinds=[0]", "density=0.8", "controls=0", "settings.epochs=1", "settings.warmup=0"),
    ),
    "seen": (
        "seeds=[0]",
        "samples.train=256",
        "samples.test=100",
        "pruners=[{label: SNIP, file: snip, floor: 1}]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_runs_at_smoke_size(path: Path, tmp_path: Path):
    name, _ = asked(header(path)["Command"])
    cfg = composed(name, f"+experiment={path.stem}", *SMOKE[path.stem], f"output_dir={tmp_path}")
    folder = execute(importlib.import_module(f"experiments.{name}").run, cfg, name)
    metrics = metrics_of(folder)
    rows = metrics.get("points") or metrics.get("levels") or [metrics["found"]]
    assert rows
    scores = [row.get("score", row.get("accuracy")) for row in rows if not row.get("refused")]
    assert scores
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in QUICK else pytest.mark.slow) for one in CONFIGS]
)
def test_help_has_examples_that_are_commands_and_settings_that_exist(name: str):
    said = header_of(name)
    assert said.startswith(f"python -m experiments.{name}\n\n")
    purpose, _, rest = said.partition("\n\n")[2].partition("\n\nExamples:\n")
    assert purpose
    examples, _, rest = rest.partition("\nSettings that are changed most:\n")
    settings = [line.split()[0] for line in rest.partition("\nFiles that")[0].splitlines()]
    commands = [asked(line) for line in examples.splitlines()]
    assert len(commands) == 3
    for experiment, overrides in commands:
        assert experiment == name
        swept = "-m" in overrides
        first = [one.partition(",")[0] if swept else one for one in overrides if one != "-m"]
        composed(name, *first)
    with_groups = composed(name, *(["data=cifar10", "target=mlp"] if name == "verify" else []))
    known = list(names_of(OmegaConf.to_container(with_groups)))
    assert [one for one in settings if one not in known] == []
    own = [one for one in names_of(OmegaConf.to_container(composed(name))) if "." not in one]
    assert min(8, len(own) - 2) <= len(settings) <= 10
