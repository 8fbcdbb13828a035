"""What the command line says of names that it does not know."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from experiments.command_line import CONF, number_of
from experiments.messages import PLUGINS, said
from experiments.names import nearest
from tests.experiments.commands import command

WRONG = {  # an override, and the end of what is said of it
    "source.multiplicty=3": "source.multiplicty: there is no such setting: did you mean source.multiplicity?",
    "multiplicity=3": "multiplicity: there is no such setting: did you mean source.multiplicity?",
    "sourc.seed=3": "sourc.seed: there is no such setting: did you mean source.seed?",
    "solvr=robust": "solvr: there is no such setting: did you mean solver?",
    "output_dr=x": "output_dr: there is no such setting: did you mean output_dir?",
    "source.foo=1": "source.foo: there is no such setting",
    "~target.foo": "target.foo: there is no such setting",
    "target.width=[3]": "target.width: there is no such setting: did you mean target.widths?",
    "+target.name=x": "target.name: is a setting already: leave out the +",
}


def refused(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    monkeypatch.setattr(sys, "argv", ["ticket", *overrides])
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as raised:
        compose("ticket", [*overrides])
    return said(raised.value, "ticket")


@pytest.mark.parametrize("override", WRONG)
def test_a_misspelt_setting_has_the_nearest_known_name(monkeypatch: pytest.MonkeyPatch, override: str):
    assert refused(monkeypatch, "target=mlp", override) == WRONG[override]


def test_a_misspelt_file_of_a_group_has_the_nearest_known_name(monkeypatch: pytest.MonkeyPatch):
    line = refused(monkeypatch, "target=resnet2")
    assert line.startswith(
        "target=resnet2: there is no target/resnet2: did you mean resnet20? There are conv_"
    )
    assert line.endswith("wrn28_10")


def test_a_plugin_that_is_not_installed_is_said_to_be_one():
    for config, extra in PLUGINS.items():
        group, _, name = config.rpartition("/")
        error = HydraException(f"In 'hydra/x': Could not find '{config}'\n\nAvailable options in 'x':\n\ty")
        install = f'pip install "slth[{extra}]"'
        assert said(error) == f"{group}: {name} is a plugin that is not installed: {install}"


def test_names_are_compared_within_their_group_first():
    known = ["source", "source.scale", "source.seed", "train.scales", "train", "solver.noise"]
    assert nearest("source.scales", known) == "train.scales", "the very name of another group"
    assert nearest("source.scal", known) == "source.scale"
    assert nearest("soure.scale", known) == "source.scale"
    assert nearest("source.zzz", known) is None
    assert nearest("x", []) is None


@pytest.mark.slow
def test_help_begins_with_the_experiment(root: Path):
    done = command(root, "--help")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    lines = said.splitlines()
    assert lines[0] == "python -m experiments.ticket"
    assert lines[2] == "A trained network in, a verified strong lottery ticket and a report out."
    assert "powered by Hydra" not in said


def test_a_search_is_told_a_number():
    metrics = {"error": {"relative": 0.25}, "certificate": {"bound": None}}
    assert number_of(metrics, "error.relative") == 0.25
    for name in ("error", "error.largest", "certificate.bound", "a.b.c"):
        with pytest.raises(ValueError, match=f"returns: expected the name of a number .*, {name} is"):
            number_of(metrics, name)
